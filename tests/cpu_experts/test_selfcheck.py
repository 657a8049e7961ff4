"""The start-up check: right kernels pass, and a kernel wrong in any of its shapes does not."""

import ctypes

import numpy as np
import pytest

import hybrid.cpu_experts as package
from hybrid.cpu_experts import dispatch, selfcheck
from hybrid.cpu_experts.record import ROWS
from hybrid.cpu_experts.rows.direct import MAX_ROWS as DIRECT_ROWS
from hybrid.cpu_experts.rows.kernel import MAX_ROWS, WIDE
from hybrid.cpu_experts.rows.modes import MODES
from hybrid.errors import KernelError

HERE = package.available_isas()
ROWS16 = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 9)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("isa", HERE)
def test_a_right_kernel_passes(isa, mode):
    package.verify(isa, mode)


@pytest.fixture
def plant(monkeypatch):
    """plant(function): the self-check's micro-kernel "planted"; the portable one stays."""
    kept, right = [], {mode: dispatch.rows16("portable", mode) for mode in MODES}

    def into(function):
        kept.append(ROWS16(function))
        address = ctypes.cast(kept[-1], ctypes.c_void_p).value
        kernels = {"portable": right.get, "planted": lambda mode: address}
        monkeypatch.setattr(dispatch, "rows16", lambda isa, mode: kernels[isa](mode))

    monkeypatch.setattr(dispatch, "available_isas", lambda: ("portable", "planted"))
    monkeypatch.setattr(dispatch, "biased", lambda isa, mode: False)
    return into


def outputs(out, n, blocks):
    """The memory that a call fills, uint32 [n, blocks * 16]."""
    size = n * blocks * ROWS
    return np.ctypeslib.as_array((ctypes.c_uint32 * size).from_address(out)).reshape(n, -1)


def test_every_shape_of_a_kernel_is_asked_for(plant):
    portable, seen = ROWS16(dispatch.rows16("portable", "int8")), set()

    def noting(*arguments):
        seen.add((arguments[1], arguments[7]))  # blocks, n
        portable(*arguments)

    plant(noting)
    selfcheck.verify("planted")
    rows = {n for _, n in seen}
    assert rows >= set(range(1, DIRECT_ROWS + 2))  # each of the direct shape, and just beyond it
    assert any(DIRECT_ROWS < n < MAX_ROWS and n % 16 for n in rows)  # ragged for AMX
    assert MAX_ROWS in rows
    assert rows >= {32, 33}  # one expert's tokens in two calls
    assert {blocks for blocks, _ in seen} == {WIDE, 2}  # four together, and some alone


def test_a_kernel_that_gives_zeros_is_seen(plant):
    def zeros(*arguments):
        outputs(arguments[-1], arguments[-2], arguments[1])[:] = 0

    plant(zeros)
    with pytest.raises(KernelError, match=r"the planted kernel differs .* in 6240 of 6240 outputs"):
        selfcheck.verify("planted")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 17, 32, 33, 64])
def test_one_bit_wrong_for_one_number_of_rows_is_seen(plant, mode, n):
    """In the last row alone, and there in the last output alone."""
    portable = ROWS16(dispatch.rows16("portable", mode))

    def wrong(*arguments):
        portable(*arguments)
        if arguments[-2] == n:
            outputs(arguments[-1], n, arguments[1])[-1, -1] ^= 1 << 16

    plant(wrong)
    with pytest.raises(KernelError, match="the planted kernel differs"):
        selfcheck.verify("planted", mode)


@pytest.mark.parametrize("blocks", [WIDE, 2])
def test_a_fault_in_some_blocks_alone_is_seen(plant, blocks):
    portable = ROWS16(dispatch.rows16("portable", "int8"))

    def wrong(*arguments):
        portable(*arguments)
        if arguments[1] == blocks:
            outputs(arguments[-1], arguments[-2], blocks)[0, 0] ^= 1 << 16

    plant(wrong)
    with pytest.raises(KernelError, match="the planted kernel differs"):
        selfcheck.verify("planted")
