"""A cache's folder: its manifest, its lock, what is missing in it, and its reader."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from tutelage.cache.basis import read_basis
from tutelage.cache.builder import Built, ShardBuilder
from tutelage.cache.coding import coding_of
from tutelage.cache.form import Form
from tutelage.cache.jobs import Job, Keys, jobs_of
from tutelage.cache.manifest import NAME, Identity, Manifest
from tutelage.cache.reader import Reader, Spec
from tutelage.cache.shards import PARTIAL, read_about
from tutelage.errors import CacheError, RunError, SignalError

__all__ = ["Store"]

LOCK = ".lock"


class Store:
    """The stored answers of one teacher about the rows of one transfer set.

    Args:
        folder: Where they are; made when it is filled.
        identity: What they must be of.
        form: How they are stored.
        rows: How many rows the transfer set has.

    Attributes:
        gone: Shards that the manifest names and the folder no longer has: their answers are missing, and no others.

    Raises:
        CacheError: The folder holds another cache, a damaged one, or something else.
    """

    def __init__(self, folder: Path, identity: Identity, form: Form, rows: int) -> None:
        self.folder, self.identity, self.form, self.rows = folder, identity, form, rows
        self.manifest = Manifest(identity=identity)
        self.reader = Reader(folder, {}, {}, rows)
        self.refresh()

    def refresh(self) -> None:
        """Reads the manifest again: what another process has stored meanwhile is then read too.

        Raises:
            CacheError: See the class.
        """
        found = Manifest.load(self.folder)
        if found is None:
            _require_free(self.folder)
        else:
            found.require(self.identity, self.folder)
            self.manifest = found
        self.gone = sorted(name for name in self.manifest.shards if not (self.folder / name).exists())
        for name in self.gone:
            del self.manifest.shards[name]
        self.read_anew()

    def read_anew(self) -> None:
        """Has the reader read what the manifest names now; shards that are open stay so."""
        shards = self.manifest.shards
        self.reader = Reader(self.folder, shards, self._specs(), self.rows, self.reader.opened(shards))

    def missing(self, wanted: Sequence[Keys], shard_rows: int) -> list[Job]:
        """The jobs that have to be done for these answers.

        Raises:
            CacheError: A shard that would be used is damaged.
        """
        return jobs_of(wanted, self.reader.stored, self.rows, shard_rows)

    def builder(self, job: Job) -> ShardBuilder:
        """What takes the answers of a job."""
        bases = {name: about["basis"] for name, about in self.manifest.signals.items() if "basis" in about}
        return ShardBuilder(self.folder, self.identity, self.form, specs=self.reader.specs, bases=bases, job=job)

    def needs_fitting(self, job: Job) -> bool:
        """Whether a signal of a job has a coding that is not fitted yet: this job has to be done before others."""
        unknown = [name for name in job.names if name not in self.manifest.signals]
        return self.form.features == "low_rank" and any("features/" in name for name in unknown)

    def keep(self, *shards: Built) -> None:
        """Enters shards that are written into the manifest.

        Raises:
            SignalError: A signal is not stored as it was before.
        """
        known = set(self.manifest.signals)
        for built in shards:
            for name, about in built.signals.items():
                before = self.manifest.signals.setdefault(name, about)
                if before != about:
                    raise SignalError(
                        f"{self.folder}: {name}", expected=f"answers as before: {before}", found=f"{about}"
                    )
            self.manifest.shards[built.file] = built.record
        self.manifest.save(self.folder)
        if set(self.manifest.signals) != known:
            self.reader.specs = self._specs()

    @contextlib.contextmanager
    def locked(self, *, wait: bool = False) -> Iterator[None]:
        """Holds the folder for filling; what a kill left half done is removed.

        Args:
            wait: For another process to be done with it.

        Raises:
            CacheError: The folder can't be made or written, or holds a shard of another cache.
            RunError: Another process is filling it.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.folder / LOCK, os.O_CREAT | os.O_RDWR)
        except OSError as error:
            raise CacheError(
                str(self.folder),
                expected="a folder that can be written",
                found=str(error),
                mend="give the cached teacher another folder",
            ) from error
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except OSError as error:
                raise RunError(
                    f"another process is filling {self.folder}: wait for it, then the same command goes on"
                ) from error
            self.refresh()
            self._tidy()
            if not (self.folder / NAME).exists():  # a folder in which shards are is always known for a cache
                self.manifest.save(self.folder)
            yield
        finally:
            os.close(handle)

    def _tidy(self) -> None:
        """Removes what a kill left, and refuses shards that belong elsewhere."""
        for path in self.folder.glob(f"*{PARTIAL}"):
            path.unlink(missing_ok=True)
        for path in self.folder.glob("answers-*.arrow"):
            if path.name in self.manifest.shards:
                continue
            about = read_about(path)
            if about is None or any(about.get(key) != value for key, value in self.identity.to_dict().items()):
                raise CacheError(
                    str(path),
                    expected="shards of this cache alone",
                    found="one that is damaged, or belongs to another cache: the manifest does not name it",
                    mend="move it away",
                )
            path.unlink()  # the shard in hand when the filling was killed: it is asked again

    def _specs(self) -> dict[str, Spec]:
        specs = {}
        for name, about in self.manifest.signals.items():
            basis = read_basis(self.folder, about["basis"]) if "basis" in about else None
            specs[name] = Spec(coding_of(about["coding"], basis), tuple(about["shape"]), about["tokens"])
        return specs


def _require_free(folder: Path) -> None:
    """Refuses to make a cache of a folder that holds something else."""
    try:
        strangers = [path.name for path in folder.iterdir() if path.name != LOCK and not path.name.endswith(PARTIAL)]
    except FileNotFoundError:
        return
    except OSError as error:
        raise CacheError(str(folder), expected="a folder for a cache", found=str(error), mend="give another") from error
    if strangers:
        raise CacheError(
            str(folder),
            expected=f"a cache ({NAME} in it), an empty folder, or a new one",
            found=f"a folder without {NAME}: {', '.join(sorted(strangers)[:4])}",
            harm="answers would be mixed with what is there",
            mend="give the cached teacher another folder",
        )
