"""Kernels with one fault each, for which the checks of machine code must have a word."""
# ruff: noqa: N803 (constants are Triton's capitals)

import triton
import triton.language as tl


@triton.jit
def exact(x, y, N: tl.constexpr):
    at = tl.arange(0, N)
    value = tl.load(x + at)
    tl.store(y + at, tl.div_rn(value * value + value, value))


@triton.jit
def fused(x, y, N: tl.constexpr):
    at = tl.arange(0, N)
    value = tl.load(x + at)
    tl.store(y + at, tl.fma(value, value, value))


@triton.jit
def divides_roughly(x, y, N: tl.constexpr):
    at = tl.arange(0, N)
    value = tl.load(x + at)
    tl.store(y + at, 1.0 / value)


@triton.jit
def exponential(x, y, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(y + at, tl.exp(tl.load(x + at)))


@triton.jit
def more_than_registers(x, y, N: tl.constexpr):
    at = tl.arange(0, N)
    value = tl.load(x + at)
    tl.store(y + at, value * tl.sum(value))  # every value waits for the sum
