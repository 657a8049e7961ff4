"""What `rows16` is given in tests, and what numpy makes of it."""

from functools import cache

import numpy as np

from hybrid.cpu_experts.record import ROWS, STRIDE
from tests.cpu_experts.native_call import same_bits
from tests.reference import rows16 as reference
from tests.reference.rows16 import F32, GROUPS

PLANES = {"int8": ("codes",), "int16": ("hi", "lo"), "bf16": ()}


def random_blocks(rng, blocks, groups):
    """uint8 [blocks, groups, 288]: all nibbles, scales of either sign and never near zero."""
    memory = rng.integers(0, 256, (blocks, groups, STRIDE), dtype=np.uint8)
    shape = (blocks, groups, ROWS)
    scales = (rng.uniform(0.005, 0.05, shape) * rng.choice([-1, 1], shape)).astype(F32)
    bits = (scales.view(np.uint32) >> 16).astype(np.uint16)
    memory[..., 256:] = bits.view(np.uint8)
    return memory


def random_acts(rng, mode, rows, groups):
    """GROUPS[mode] [rows, groups]; exponents of bf16 so far apart that the order of sums tells."""
    acts = np.zeros((rows, groups), GROUPS[mode])
    for plane in PLANES[mode]:
        acts[plane] = rng.integers(-127, 128, acts[plane].shape)
    if mode == "bf16":
        x = rng.uniform(1, 2, acts["x"].shape) * rng.choice([-1, 1], acts["x"].shape)
        x *= 2.0 ** rng.integers(-8, 8, x.shape)
        acts["x"] = (x.astype(F32).view(np.uint32) & np.uint32(0xFFFF0000)).view(F32)
        return acts
    acts["scale"] = rng.uniform(0.001, 0.03, acts.shape)
    return with_sums(mode, acts)


def with_sums(mode, acts):
    acts["offset"] = 8 * reference.codes(mode, acts).sum(axis=2)
    return acts


def flat(blocks):
    """uint8 [blocks, block bytes]."""
    return blocks.reshape(len(blocks), -1)


@cache
def random_case(mode, blocks, groups, n):
    """Blocks, activation rows, and n of them out of order, one of them twice."""
    rng = np.random.default_rng([blocks, groups, n])
    index = rng.permutation(n + 2)[:n]
    index[n // 2] = index[0]
    return random_blocks(rng, blocks, groups), random_acts(rng, mode, n + 2, groups), index


@cache
def wanted(mode, *size):
    blocks, acts, index = random_case(mode, *size)
    return reference.rows16(mode, blocks, acts[index])


def agrees(kernel, mode, *size):
    """Whether a kernel(blocks, acts, index) gives numpy's bits."""
    blocks, acts, index = random_case(mode, *size)
    return same_bits(kernel(flat(blocks), acts, index), wanted(mode, *size))
