"""The written set: JSON Lines or Parquet, whole or not at all, with a manifest that says how it was made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from tutelage.errors import DataError, RecipeError
from tutelage.evaluation.table import write_table
from tutelage.files import digest_file, replacing
from tutelage.transfer.table import MANIFEST

__all__ = ["OURS", "manifest_path", "require_place", "write_set"]

_TOKEN = [("token", pa.string()), ("logprob", pa.float64())]
OURS: dict[str, pa.DataType] = {
    "prompt": pa.string(),
    "completion": pa.string(),
    "finish_reason": pa.string(),
    "teacher": pa.string(),
    "sample": pa.int64(),
    "tokens_in": pa.int64(),
    "tokens_out": pa.int64(),
    "logprobs": pa.list_(pa.struct([*_TOKEN, ("top", pa.list_(pa.struct(_TOKEN)))])),
}
"""The columns that are written beside the source's."""
FORMATS = (".jsonl", ".parquet")


def manifest_path(path: Path) -> Path:
    """The manifest beside a set: `news.jsonl` has `news.jsonl.manifest.json`."""
    return path.with_name(path.name + MANIFEST)


def require_place(out: Path | str, name: str) -> Path:
    """The file that the set will be written to, before anything is asked.

    Raises:
        RecipeError: Its ending is of no known format, it can't be written, or it is no earlier set of this name.
    """
    path = Path(out)
    if path.suffix not in FORMATS:
        raise RecipeError("--out", expected=f"a file ending in {' or '.join(FORMATS)}", found=f"`{path.name}`")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        place = path.with_name(f".{path.name}.place")
        place.touch()
        place.unlink()
    except OSError as error:
        raise RecipeError("--out", expected=f"a file that can be written: `{path}`", found=str(error)) from error
    if path.exists() and _name_of(path) != name:
        raise RecipeError(
            "--out",
            expected=f"a new file, or an earlier set of the name `{name}`",
            found=f"`{path}`, which is none: {manifest_path(path).name} does not say so",
            harm="it would be overwritten",
            mend="give another --out, or move that file away",
        )
    return path


def write_set(path: Path, columns: Mapping[str, list[Any]], about: Mapping[str, Any]) -> dict[str, Any]:
    """Writes the set and then its manifest, each atomically; gives the manifest.

    In Parquet the manifest is in the file's metadata as well, without the digest of the file.

    Raises:
        DataError: A column of the source can't be written in this format.
    """
    if path.suffix == ".parquet":
        try:
            table = {name: pa.array(values, OURS.get(name)) for name, values in columns.items()}
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise DataError(
                "--out",
                expected="columns of one type each",
                found=str(error).splitlines()[0],
                mend="write .jsonl",
            ) from error
        write_table(path, table, about)
    else:
        rows = zip(*columns.values(), strict=True)
        lines = (json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False, allow_nan=False) for row in rows)
        with replacing(path) as partial:
            partial.write_text("".join(line + "\n" for line in lines), encoding="utf-8", newline="\n")
    file = {"name": path.name, "rows": len(columns["prompt"]), "sha256": digest_file(path)}
    manifest = {**about, "file": file}
    with replacing(manifest_path(path)) as partial:
        partial.write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return manifest


def _name_of(path: Path) -> str | None:
    try:
        found = json.loads(manifest_path(path).read_text(encoding="utf-8"))
        return str(found["name"]) if found["kind"] == "generated" else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
