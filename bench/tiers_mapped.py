"""The mapped file's side of bench/tiers.py: records in the page cache, held to a share of them."""

import mmap
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from hybrid.cache.record_file import DEFAULT_NAME, RecordFile
from hybrid.cache.tiers import Tiers
from hybrid.cpu_experts import ExpertLayer

GROUPS = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
WILLNEED = os.POSIX_FADV_WILLNEED


def mapped_tiers(model_dir: Path, old: Tiers, warm: int) -> Tiers:
    """The same layers over a private mapping of the record file, some of it in the page cache."""
    path = model_dir / DEFAULT_NAME
    contents = RecordFile.open(path).contents
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # left by the last turn
        for at in range(warm):  # as ours begins
            os.posix_fadvise(file.fileno(), contents.offset(at), contents.stride, WILLNEED)
            os.pread(file.fileno(), contents.stride, contents.offset(at))
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    layers: list[ExpertLayer | None] = []
    for at, own in enumerate(old.maps):
        if own is None:
            layers.append(None)
            continue
        first = contents.offset(contents.index(at, 0))
        records = np.frombuffer(pages, np.uint8, own.experts * contents.shape.nbytes, first)
        before = old.layers[at]
        layer = ExpertLayer(
            own.experts,
            contents.shape.hidden,
            contents.shape.intermediate,
            before.isa,
            before.threads,
            before.activation,
            records=records.reshape(own.experts, contents.shape.nbytes),
        )
        layer.where[:] = np.arange(own.experts)
        layers.append(layer)
    return Tiers(layers, old.maps, old.slots, old.counters)


@contextmanager
def limited(page_cache: int) -> Iterator[None]:
    """Hold this process to what it has now and `page_cache` bytes more."""
    used = 1 << 30  # what is resident now is charged to the old group; this leaves room to grow
    for root, limit in zip(GROUPS, ("memory.limit_in_bytes", "memory.max"), strict=True):
        group = root / f"kimi-local-bench-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        if not (group / limit).exists():
            group.rmdir()
            continue
        (group / limit).write_text(str(page_cache + used // 8))
        (group / "cgroup.procs").write_text(str(os.getpid()))
        try:
            yield
        finally:
            (root / "cgroup.procs").write_text(str(os.getpid()))
            group.rmdir()
        return
    sys.exit("no control group can be made here")
