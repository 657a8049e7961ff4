"""The operators on CPU tensors: the bits of ExpertLayer for any sizes, ids and numbers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from hybrid.cpu_experts.record import RecordShape
from hybrid.errors import ConfigError, RequestError
from hybrid.gpu_experts import GpuExperts, combine, ops, plain
from tests.gpu_experts.cases import (
    MODES,
    UNTOUCHED,
    case,
    differences,
    differing,
    expected,
    extreme_expert,
    special_rows,
    values,
)
from tests.reference.experts import LARGEST


def computed(made, mode):
    """(outputs, combined) by the operators."""
    x, ids, weights, records = map(torch.from_numpy, (made.x, made.ids, made.weights, made.records))
    out = torch.full((ids.numel(), made.shape.hidden), float(UNTOUCHED))
    GpuExperts(made.shape, records, mode).outputs(x, ids, out)
    return out.numpy(), combine(out, ids, weights).numpy()


def wrong(made, mode):
    outputs, combined = computed(made, mode)
    return differing(outputs, made.outputs) + differing(combined, made.combined)


@settings(max_examples=10, deadline=None)
@given(
    mode=st.sampled_from(MODES),
    groups=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    tokens=st.integers(1, 40),
    k=st.integers(1, 8),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_same_bits_as_the_cpu(mode, groups, tokens, k, seed):
    hidden, intermediate = (32 * n for n in groups)
    assert wrong(case(mode, hidden, intermediate, tokens, k, seed=seed), mode) == 0


@pytest.mark.parametrize("mode", MODES)
def test_numbers_that_are_not_ordinary(mode):
    made = case(mode, 64, 64, 10, 2, x=special_rows(64), make=extreme_expert)
    assert not np.isfinite(made.outputs).all()
    assert wrong(made, mode) == 0


def arithmetic(x, mode):
    """(silu, rounded to bf16, codes, scales) as plain.py has them."""
    x = torch.from_numpy(x)
    codes, scales = plain.quantise(x[:, None], LARGEST[mode])
    found = plain.silu(x), x.to(torch.bfloat16).float(), codes.int(), scales
    return [each.numpy() for each in found]


@pytest.mark.parametrize("mode", LARGEST)
def test_silu_rounding_and_codes(mode):
    x = values()
    assert differences(arithmetic(x, mode), expected(x, mode)) == [0, 0, 0, 0]


def test_another_exp_shows(monkeypatch):
    x = values()
    monkeypatch.setattr(plain, "exp", torch.exp)
    assert differences(arithmetic(x, "int8"), expected(x, "int8"))[0] > 0


quantise = plain.quantise


def larger_scales(groups, largest):
    codes, scales = quantise(groups, largest)
    return codes, torch.nextafter(scales, torch.full_like(scales, torch.inf))


FAULTS = {
    "no activation": ("silu", lambda gate: gate),
    "scales an ulp too large": ("quantise", larger_scales),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_shows(monkeypatch, name):
    function, replacement = FAULTS[name]
    made = case("int8", 96, 96, 20, 4)
    assert wrong(made, "int8") == 0
    monkeypatch.setattr(plain, function, replacement)
    assert wrong(made, "int8") > 0


def test_nothing_to_do():
    shape = RecordShape(32, 32)
    experts = GpuExperts(shape, torch.zeros(1, shape.nbytes, dtype=torch.uint8), "int8")
    out = torch.full((2, 32), 3.0)
    experts.outputs(torch.ones(2, 32), torch.full((2, 1), -1, dtype=torch.int32), out)
    assert (out == 3).all()
    nobody = torch.empty(0, 1, dtype=torch.int32)
    experts.outputs(torch.empty(0, 32), nobody, torch.empty(0, 32))
    assert combine(torch.empty(0, 32), nobody, torch.empty(0, 1)).shape == (0, 32)


def test_rows_of_nobody_are_not_summed():
    out = torch.full((2, 32), float("nan"))
    out[1] = 2.0
    ids = torch.tensor([[-1, 0]], dtype=torch.int32)
    assert (combine(out, ids, torch.tensor([[1.0, 0.5]])) == 1.0).all()


def test_refusals():
    shape = RecordShape(32, 32)
    slots = torch.zeros(2, shape.nbytes, dtype=torch.uint8)
    with pytest.raises(ConfigError, match=r"activation is 'fp8'; choose one of int8, int16, bf16"):
        GpuExperts(shape, slots, "fp8")
    with pytest.raises(ConfigError, match=rf"must be contiguous uint8 \[count, {shape.nbytes}\]"):
        GpuExperts(shape, slots[:, 1:], "int8")
    experts = GpuExperts(shape, slots, "int8")
    ids, out = torch.zeros(1, 2, dtype=torch.int32), torch.empty(2, 32)
    with pytest.raises(
        RequestError, match=r"x is float32 \(1, 64\) on cpu; it must be .*\(1, 32\)"
    ):
        experts.outputs(torch.empty(1, 64), ids, out)
    with pytest.raises(RequestError, match=r"slot_ids is int64"):
        experts.outputs(torch.empty(1, 32), ids.long(), out)
    with pytest.raises(RequestError, match=r"outputs is float32 \(1, 32\)"):
        experts.outputs(torch.empty(1, 32), ids, out[:1])
    with pytest.raises(RequestError, match=r"on meta; it must be .* on cpu"):
        experts.outputs(torch.empty(1, 32, device="meta"), ids, out)


def test_fake_tensors_of_a_device_that_is_not_here():
    shape = RecordShape(64, 32)
    with FakeTensorMode():
        slots = torch.empty(3, shape.nbytes, dtype=torch.uint8, device="cuda")
        x, out = torch.empty(5, 64, device="cuda"), torch.empty(10, 64, device="cuda")
        ids = torch.empty(5, 2, dtype=torch.int32, device="cuda")
        GpuExperts(shape, slots, "int8").outputs(x, ids, out)
        result = combine(out, ids, torch.empty(5, 2, device="cuda"))
        assert result.shape == (5, 64)
        assert result.device.type == "cuda"


@pytest.mark.oracle
def test_torch_finds_the_operators_well_made():
    made = case("int8", 32, 32, 2, 2)
    x, ids, weights, records = map(torch.from_numpy, (made.x, made.ids, made.weights, made.records))
    out = torch.zeros(4, 32)
    checks = "test_schema", "test_faketensor"
    torch.library.opcheck(
        ops.experts_outputs, (x, ids, records, 32, 32, "int8", out), test_utils=checks
    )
    torch.library.opcheck(ops.combine, (out, ids, weights), test_utils=checks)
