"""`manifest.json`: whose answers a cache holds, about which rows, in which form, in which files, with which error."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutelage.cache.coding import stated
from tutelage.cache.shards import ShardRecord, write_file
from tutelage.errors import CacheError

__all__ = ["NAME", "Identity", "Manifest"]

NAME = "manifest.json"
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What must be the same for stored answers to be used.

    Attributes:
        teacher: Fingerprint of the teacher that is asked.
        inputs: Fingerprint of the rows and of how they become tensors.
        form: `Form.to_dict()`.
    """

    teacher: str
    inputs: str
    form: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {"teacher": self.teacher, "inputs": self.inputs, "form": self.form}


@dataclass(kw_only=True)
class Manifest:
    """See the module.

    Attributes:
        identity: Whose answers, about what.
        source: Digest of the teacher's settings and files, which can be told without loading it; empty if unknown.
        classes: Names of the teacher's classes.
        signals: For each signal its `coding`, the `shape` of a position and whether positions are `tokens`; and
            `basis`, the record of the file of a low-rank coding.
        shards: By file name.
    """

    identity: Identity
    source: str = ""
    classes: list[str] = field(default_factory=list)
    signals: dict[str, dict[str, Any]] = field(default_factory=dict)
    shards: dict[str, ShardRecord] = field(default_factory=dict)

    @property
    def answers(self) -> int:
        """How many (row, view) pairs are answered, over all shards."""
        return sum(shard.rows for shard in self.shards.values())

    @property
    def bytes(self) -> int:
        """Of all shards."""
        return sum(shard.bytes for shard in self.shards.values())

    def errors(self) -> dict[str, str]:
        """The error that storing caused, for each signal where it caused one, in words."""
        found = {}
        for name in self.signals:
            sums: dict[str, float] = {}
            for shard in self.shards.values():
                for key, value in shard.errors.get(name, {}).items():
                    sums[key] = sums.get(key, 0.0) + value
            if said := stated(sums):
                found[name] = said
        return found

    def to_dict(self) -> dict[str, Any]:
        """As plain data, with a checksum over all of it."""
        data = {
            "format": FORMAT,
            **self.identity.to_dict(),
            "source": self.source,
            "classes": self.classes,
            "signals": dict(sorted(self.signals.items())),
            "errors": self.errors(),
            "answers": self.answers,
            "views": sorted({view for shard in self.shards.values() for view in shard.views}),
            "shards": {name: shard.to_dict() for name, shard in sorted(self.shards.items())},
        }
        return {**data, "checksum": _checksum(data)}

    def save(self, folder: Path) -> None:
        """Writes it, atomically."""
        write_file(folder / NAME, (json.dumps(self.to_dict(), indent=1) + "\n").encode())

    @classmethod
    def load(cls, folder: Path) -> Manifest | None:
        """The manifest of a folder, or None where there is none.

        Raises:
            CacheError: It is damaged, was edited, or is of another version.
        """
        path = folder / NAME
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise _unreadable(path, str(error)) from error
        if not isinstance(data, dict) or data.pop("checksum", None) != _checksum(data):
            raise _unreadable(path, "one that was edited or damaged: its checksum is another")
        if data["format"] != FORMAT:
            raise _unreadable(path, f"format {data['format']}; this version reads {FORMAT}")
        return cls(
            identity=Identity(teacher=data["teacher"], inputs=data["inputs"], form=data["form"]),
            source=data["source"],
            classes=data["classes"],
            signals=data["signals"],
            shards={name: ShardRecord(**shard) for name, shard in data["shards"].items()},
        )

    def require(self, identity: Identity, folder: Path) -> None:
        """Refuses a cache of other rows, of another form or of another teacher.

        Raises:
            CacheError: Saying which of them differs.
        """
        mine = self.identity
        mend = "give another folder, or remove this one to have all of it asked again"
        if mine.inputs != identity.inputs:
            raise CacheError(
                str(folder),
                expected=f"answers about these rows ({identity.inputs[:12]})",
                found=f"answers about others ({mine.inputs[:12]}): other data, tokens, images or views",
                harm="each row would be taught what the teacher said of another",
                mend=mend,
            )
        if mine.form != identity.form:
            raise CacheError(
                str(folder),
                expected=f"answers in this form: {_listed(identity.form)}",
                found=_listed(mine.form),
                mend=f"set the teacher's form back, or {mend}",
            )
        if mine.teacher != identity.teacher:
            raise CacheError(
                str(folder),
                expected=f"answers of this teacher ({identity.teacher[:12]})",
                found=f"answers of another ({mine.teacher[:12]}): weights, settings or code changed; they are stale",
                harm="the student would learn from a teacher that is not the one it is compared with",
                mend=mend,
            )


def _unreadable(path: Path, found: str) -> CacheError:
    return CacheError(
        str(path),
        expected="the manifest of a cache, as it was written",
        found=found,
        harm="which answers are whose could not be told",
        mend="restore the file, or remove its folder to have all of it asked again",
    )


def _checksum(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _listed(form: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in form.items())
