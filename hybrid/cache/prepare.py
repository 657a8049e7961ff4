"""Writes the record file of a checkpoint, reads it back, and mends one that is damaged.

    readers   shards -> repack -> xxh3, each into a slot of its own      threads
    writer    slots -> part file, in order, past the page cache          the calling thread

Memory: about two records a thread, whatever the model. What a run has written the next one keeps
(part_file.py); what lies on the disk is believed only once it has been read back.
"""

import os
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hybrid.cache.ahead import ahead
from hybrid.cache.direct_io import make_direct, open_paged, open_regular, pages, write_pages
from hybrid.cache.fingerprint import contents_of
from hybrid.cache.part_file import (
    PartFile,
    open_locked,
    part_path,
    require_file,
    require_ours,
    writing,
)
from hybrid.cache.record_file import DEFAULT_NAME, Contents, RecordFile, checksum, require_match
from hybrid.cache.shard_source import ShardSource
from hybrid.cache.source import PAGE
from hybrid.checkpoint import Checkpoint
from hybrid.config import ModelConfig
from hybrid.cpu_experts.cores import available_cores
from hybrid.errors import CheckpointError, ConfigError, PlacementError
from hybrid.progress import Phase, Progress, ProgressSink, ignore

MAX_THREADS = 64
_DEFAULT_THREADS = 8  # at most: more do not make a disk faster
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a run has done."""

    path: Path
    contents: Contents
    written: int = 0  # records
    mended: int = 0  # records of a whole file that were damaged
    verified: bool = False  # read back, all of them
    write_seconds: float = 0.0
    seconds: float = 0.0

    @property
    def write_gb_s(self) -> float | None:
        """Records written in a second, from shard to file; None where none was."""
        if not self.written:
            return None
        return self.written * self.contents.shape.nbytes / self.write_seconds / 1e9


@dataclass(frozen=True, slots=True)
class Job:
    """What all steps of a run share."""

    source: ShardSource
    contents: Contents
    slots: tuple[NDArray[np.uint8], ...]  # each [stride]
    progress: ProgressSink

    def report(self, phase: Phase, done: int, total: int) -> None:
        """Progress in bytes of records."""
        size = self.contents.shape.nbytes
        self.progress(Progress(phase, done * size, total * size, "bytes"))

    def each(
        self, items: Iterable[int], work: Callable[[int, NDArray[np.uint8]], Result]
    ) -> "closing[Generator[tuple[int, NDArray[np.uint8], Result], None, None]]":
        """Results of work(item, slot) in order, worked out ahead by threads."""
        return closing(ahead(items, work, self.slots))

    def repacked(self, index: int, slot: NDArray[np.uint8]) -> int:
        """Make a record from the shards; returns its checksum."""
        size = self.contents.shape.nbytes
        self.source.read(*self.contents.place(index), slot)
        slot[size:] = 0
        return checksum(slot[:size])


def prepare(
    model_dir: Path | str,
    output: Path | str | None = None,
    *,
    threads: int | None = None,
    verify: bool = True,
    force: bool = False,
    progress: ProgressSink = ignore,
) -> Prepared:
    """Write the record file of a model, or go on writing it; check and mend one that is there.

    `force` writes a record file anew that is damaged or belongs to another checkpoint; what fits of
    one that was begun is kept. Raises CheckpointError for what is wrong with the model or the file,
    PlacementError where there is no room for it or it cannot be written; what has been written by
    then is kept.
    """
    began = perf_counter()
    model_dir = Path(model_dir)
    target = Path(output) if output is not None else model_dir / DEFAULT_NAME
    there = require_file(target)
    config = ModelConfig.from_dir(model_dir)
    with ExitStack() as stack:
        with Checkpoint.open(model_dir, config) as checkpoint:
            contents = contents_of(model_dir, config.text, checkpoint)
            source = stack.enter_context(closing(ShardSource(model_dir, config.text, checkpoint)))
        job = Job(source, contents, _slots(contents, threads), progress)
        if there and not force:
            done = _check(target, job, verify=verify)
        else:
            done = _make(target, job, verify=verify, force=force)
    return replace(done, seconds=perf_counter() - began)


def _slots(contents: Contents, threads: int | None) -> tuple[NDArray[np.uint8], ...]:
    """Memory for a record on each thread, and for the one that is being written."""
    count = min(available_cores(), _DEFAULT_THREADS) if threads is None else threads
    if not 0 < count <= MAX_THREADS:
        raise ConfigError(f"threads is {count}; it must be 1 ... {MAX_THREADS}")
    return tuple(pages(contents.stride, "records on their way") for _ in range(count + 1))


def _check(target: Path, job: Job, *, verify: bool) -> Prepared:
    """A file that is there: its head, and with `verify` its records; mends those."""
    records = RecordFile.open(target)
    require_match(target, records.contents, job.contents)
    mended = _verify(records, job, range(job.contents.records)) if verify else 0
    return Prepared(target, job.contents, mended=mended, verified=verify)


def _make(target: Path, job: Job, *, verify: bool, force: bool) -> Prepared:
    """A new file, or the rest of one that was begun."""
    if force:
        _require_replaceable(target)
    _require_room(target, job.contents)
    with closing(PartFile(target, job.contents, force=force)) as part:
        if require_file(target) and not force:  # another process was faster
            part.remove()
            raise PlacementError(f"{target} has just appeared; run the same command again")
        kept = _trusted(part, job)
        began = perf_counter()
        written = _write(part, job)
        part.finish()
        spent = perf_counter() - began
    rest = [index for index in range(job.contents.records) if index not in kept]
    records = RecordFile(target, job.contents, part.journal)
    mended = _verify(records, job, rest) if verify else 0
    return Prepared(target, job.contents, written, mended, verify, write_seconds=spent)


def _require_replaceable(target: Path) -> None:
    """Even by force only a record file is written over, damaged or not."""
    with writing(target), suppress(FileNotFoundError):
        fd = open_regular(target)
        try:
            require_ours(os.pread(fd, PAGE, 0), target)
        finally:
            os.close(fd)


def _require_room(target: Path, contents: Contents) -> None:
    """Refuse a file that cannot fit before a byte of it is written."""
    with writing(target):
        disk = os.statvfs(target.parent)
    needed = contents.nbytes
    with suppress(OSError):  # no part file yet
        needed -= part_path(target).lstat().st_blocks * 512
    free = disk.f_bavail * disk.f_frsize
    if needed > free:
        raise PlacementError(
            f"{target} needs {needed / 1e9:,.3f} GB more but {target.parent} has "
            f"{free / 1e9:,.3f} GB free; make room, or give another place with --output"
        )


def _trusted(part: PartFile, job: Job) -> set[int]:
    """Records of a part file that are what its journal says; the journal forgets the others."""
    claimed = np.flatnonzero(part.journal).tolist()
    records = RecordFile(part.path, job.contents, part.journal)
    damaged = _damaged(records, job, claimed)
    for index in damaged:
        part.forget(index)
    return set(claimed).difference(damaged)


def _write(part: PartFile, job: Job) -> int:
    """Write what the journal lacks; returns how many records that were."""
    missing = np.flatnonzero(part.journal == 0).tolist()
    total = job.contents.records
    try:
        with job.each(missing, job.repacked) as results:
            for done, (index, slot, digest) in enumerate(results, total - len(missing) + 1):
                part.write(index, slot, digest)
                job.report("prepare", done, total)
    except BaseException:
        with suppress(PlacementError):  # the first error says why
            part.commit()
        raise
    return len(missing)


def _verify(records: RecordFile, job: Job, indexes: Sequence[int]) -> int:
    """Read records back and write damaged ones again; returns how many those were."""
    damaged = _damaged(records, job, indexes)
    if damaged:
        _mend(records, job, damaged)
        if lasting := _damaged(records, job, damaged):
            raise CheckpointError(
                f"{records.path}: {len(lasting)} records read back other than they were written; "
                "check the disk, or give another place with --output"
            )
    return len(damaged)


def _damaged(records: RecordFile, job: Job, indexes: Sequence[int]) -> list[int]:
    """Those of the records that cannot be read or have another checksum than the table says."""
    if not indexes:
        return []
    file = open_paged(records.path)
    size = job.contents.shape.nbytes

    def is_whole(index: int, slot: NDArray[np.uint8]) -> bool:
        try:
            file.read(slot, job.contents.offset(index), len(slot))
        except CheckpointError:
            return False
        return bool(checksum(slot[:size]) == records.checksums[index])

    damaged = []
    with closing(file), job.each(indexes, is_whole) as results:
        for done, (index, _, whole) in enumerate(results, 1):
            if not whole:
                damaged.append(index)
            job.report("verify", done, len(indexes))
    return damaged


def _mend(records: RecordFile, job: Job, indexes: Sequence[int]) -> None:
    """Write records of a whole file again."""
    with writing(records.path), ExitStack() as stack:
        fd = open_locked(records.path)
        stack.callback(os.close, fd)
        make_direct(fd)
        results = stack.enter_context(job.each(indexes, job.repacked))
        for index, slot, digest in results:
            if digest != records.checksums[index]:
                layer, expert = job.contents.place(index)
                raise CheckpointError(
                    f"expert {expert} of layer {layer} is no longer what {records.path} was "
                    "prepared from: the checkpoint was changed; use --force to write the file anew"
                )
            write_pages(fd, slot, job.contents.offset(index))
        os.fsync(fd)
