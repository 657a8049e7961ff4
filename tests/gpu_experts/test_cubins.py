"""Every kernel of the experts at K2.5's size, as machine code for cards that are not here.

Nothing may spill, the shared memory must fit the chip, and what must be exact to the bit may hold
no fused multiply-add, no approximate division or exponential and no flush of subnormals to zero.
"""

import re

import pytest

from hybrid.placement.builtin import builtin_config

pytest.importorskip("triton")

from hybrid.gpu_experts.launches import launches
from hybrid.triton_build import CAPABILITIES, CHIPS, build, build_launch, disassembled
from tests.gpu_experts import inexact_kernels

pytestmark = pytest.mark.triton

LAUNCHES = {each.name: each for each in launches(builtin_config().text)}
QUICK = "combine", "int8 decode down", "int8 grouped down, tiles of 64"
INEXACT = re.compile(
    r"\b(fma\.rn(?:\.ftz)?\.f32|mad\.\w+\.f32|div\.(?:full|approx)\S*|(?:ex2|rcp|sqrt|lg2)\.approx\S*"
    r"|\w+(?:\.rn)?\.ftz\.f32)"
)


def inexact(ptx):
    """Instructions of PTX that are not one correctly rounded operation of IEEE 754."""
    return set(INEXACT.findall(ptx))


def faults(built, capability):
    """What is wrong with a compiled kernel, in words; empty if nothing."""
    limit = min(chip.shared_bytes for chip in CHIPS if chip.capability == capability)
    found = [f"{name} in the PTX" for name in sorted(inexact(built.ptx))]
    if built.spills:
        found.append(f"{built.spills} bytes of spilled registers")
    if built.shared_bytes > limit:
        found.append(f"{built.shared_bytes} bytes of shared memory, {limit} are there")
    return found


@pytest.mark.parametrize("name", QUICK)
def test_the_newest_card(name):
    assert faults(build_launch(LAUNCHES[name], 120), 120) == []


@pytest.mark.slow
@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("name", LAUNCHES)
def test_every_card(name, capability):
    assert faults(build_launch(LAUNCHES[name], capability), capability) == []


def test_products_run_on_tensor_cores():
    built = build_launch(LAUNCHES["int8 grouped down, tiles of 64"], 120)
    assert "mma.sync.aligned.m16n8k32.row.col.satfinite.s32.s8.s8.s32" in built.ptx
    assert "IMMA" in disassembled(built.cubin)


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("exact", None),
        ("fused", "fma.rn.f32"),
        ("divides_roughly", "div.full"),
        ("exponential", "ex2.approx"),
    ],
)
def test_inexact_operations_are_seen(name, seen):
    kernel = getattr(inexact_kernels, name)
    found = inexact(build(kernel, {"x": "*fp32", "y": "*fp32"}, {"N": 128}, 120).ptx)
    assert any(seen in each for each in found) if seen else not found


def test_spills_are_seen():
    kernel = inexact_kernels.more_than_registers
    built = build(kernel, {"x": "*fp32", "y": "*fp32"}, {"N": 16384}, 120, num_warps=1)
    assert any("spilled" in each for each in faults(built, 120))


def test_too_much_shared_memory_is_seen():
    built = build_launch(LAUNCHES["combine"], 120)
    large = type(built)(built.registers, 0, 99 * 1024 + 1, built.ptx, built.cubin)
    assert faults(large, 120) == ["101377 bytes of shared memory, 101376 are there"]
    assert faults(large, 90) == []
