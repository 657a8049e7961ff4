"""How tests stop, spoil and question a run of `prepare`."""

import os
from pathlib import Path

import pytest

from hybrid.cache.prepare import prepare
from hybrid.tiny import TinyShape

SHAPE = TinyShape(  # 12 records of 3 pages
    hidden_size=96,
    moe_intermediate_size=64,
    num_hidden_layers=3,
    n_routed_experts=6,
    num_experts_per_tok=2,
)
RECORDS = 12


class StoppedError(Exception):
    """What ends a run in a test."""


def stop_after(records, phase="prepare", error=StoppedError):
    """A progress sink that raises when so many records are done."""

    def sink(progress):
        if progress.phase == phase and progress.done * RECORDS >= records * progress.total:
            raise error

    return sink


def refusal(kind, *args, **options):
    with pytest.raises(kind) as caught:
        prepare(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def damage(path, *offsets):
    with path.open("r+b") as file:
        for offset in offsets:
            file.seek(offset)
            file.write(b"damaged!")
        file.flush()
        os.fsync(file.fileno())


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))
