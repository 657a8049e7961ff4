"""How far the modes are from the real-valued layer: int16 keeps what int8 loses.

Bound of one expert with int8 or int16 activations, in absolute values and float64, with u = 2^-24,
L the largest code and q(v) = max|v| of the group / 2 L + 3 u |v|, the error of encoding v:

    |dg| <= |G| q(x) + (K/32 + 2) u |G| |x|               gate; up alike
    |dh| <= 1.1 |dg| |up| + |silu(g)| |du| + 1.1 |dg| |du| + 16 u |h|
                                                     |silu'| < 1.1; exp, division: 16 u of h at most
    |dy| <= |D| (dh + q(|h| + dh)) + (I/32 + 2) u |D| (|h| + dh)

and of the combination of k slots sum |w| |dy| + (k + 1) u sum |w| (|y| + |dy|). Terms in u^2 are
covered by a factor of 1 + 1e-3. The bound is for the worst case: all errors add up there, while in
fact most cancel, so the error in the norm is held to a number of its own.
"""

import numpy as np
import pytest

from hybrid.cpu_experts import available_isas
from tests.cpu_experts.native_call import filled
from tests.reference import experts as reference
from tests.reference.experts import GROUP, LARGEST, Expert, Matrix

U = 2.0**-24
MOST = 1e-4  # relative error of a layer in the norm, int16


def realistic_expert(rng, hidden, intermediate):
    """Weights as quantising makes them: normal, scale = the group's largest / 7."""

    def matrix(rows, columns):
        values = rng.standard_normal((rows, columns // GROUP, GROUP), dtype=np.float32)
        values *= np.float32(columns**-0.5)
        scale = np.abs(values).max(axis=2) / 7
        bits = (scale.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
        rounded = (bits.astype(np.uint32) << 16).view(np.float32)
        codes = np.clip(np.rint(values / rounded[:, :, None]), -8, 7).astype(np.int32) + 8
        words = codes.astype(np.uint32).reshape(rows, columns // 8, 8)
        packed = (words << np.arange(0, 32, 4, dtype=np.uint32)).sum(axis=2, dtype=np.uint32)
        return Matrix(packed.view(np.int32), bits)

    shapes = (intermediate, hidden), (intermediate, hidden), (hidden, intermediate)
    return Expert(*[matrix(*shape) for shape in shapes])


def realistic_batch(rng, tokens, hidden, n_experts, k):
    """Normalised hidden states with a few large channels; k different experts a token."""
    x = rng.standard_normal((tokens, hidden))
    x[:, rng.choice(hidden, hidden // 100 + 1, replace=False)] *= 8
    ids = np.stack([rng.permutation(n_experts)[:k] for _ in range(tokens)])
    weights = rng.dirichlet(np.full(k, 4.0), tokens) * 2.827
    return x.astype(np.float32), ids.astype(np.int32), weights.astype(np.float32)


def case(seed, hidden, intermediate, n_experts, tokens, k):
    rng = np.random.default_rng(seed)
    experts = [realistic_expert(rng, hidden, intermediate) for _ in range(n_experts)]
    batch = realistic_batch(rng, tokens, hidden, n_experts, k)
    return experts, batch, reference.layer_float64(experts, *batch)


def outputs(experts, batch, mode, isa=None):
    return filled(experts, isa=isa, threads=1, activation=mode).forward(*batch)


def relative(got, exact):
    """Largest relative error of a token in the norm."""
    return np.max(np.linalg.norm(got - exact, axis=1) / np.linalg.norm(exact, axis=1))


def encoding_error(values, largest):
    groups = np.abs(values).reshape(-1, GROUP).max(axis=1)
    return np.repeat(groups, GROUP) / (2 * largest) + 3 * U * np.abs(values)


def expert_bound(expert, x, largest):
    """|error| and |y| of one expert, float64 [hidden]."""
    gate, up, down = (np.abs(m.dense) for m in (expert.gate, expert.up, expert.down))
    g, u, magnitude = expert.gate.dense @ x, expert.up.dense @ x, np.abs(x)
    silu = g / (1 + np.exp(-g))
    error, sums = encoding_error(x, largest), (len(x) / GROUP + 2) * U
    dg, du = (w @ error + sums * (w @ magnitude) for w in (gate, up))
    h = np.abs(silu * u)
    dh = 1.1 * dg * np.abs(u) + np.abs(silu) * du + 1.1 * dg * du + 16 * U * h
    largest_h, sums = h + dh, (len(h) / GROUP + 2) * U
    dy = down @ (dh + encoding_error(largest_h, largest)) + sums * (down @ largest_h)
    return dy, np.abs(expert.down.dense @ (silu * u))


def bound(experts, batch, mode):
    """Of every output, float64 [T, hidden]."""
    x, ids, weights = batch
    total = np.zeros(x.shape)
    for t, slot in np.ndindex(*ids.shape):
        dy, y = expert_bound(experts[ids[t, slot]], x[t].astype(np.float64), LARGEST[mode])
        total[t] += weights[t, slot] * (dy + (ids.shape[1] + 1) * U * (y + dy))
    return total * (1 + 1e-3)


@pytest.fixture(scope="module")
def small():
    return case(1, 512, 256, 6, 5, 4)


@pytest.mark.parametrize("mode", LARGEST)
def test_no_output_is_off_by_more_than_the_bound(small, mode):
    experts, batch, exact = small
    limit = bound(experts, batch, mode)
    for isa in available_isas():
        assert (np.abs(outputs(experts, batch, mode, isa) - exact) <= limit).all()


def test_the_bound_sees_int8_in_the_place_of_int16(small):
    experts, batch, exact = small
    limit = bound(experts, batch, "int16")
    assert not (np.abs(outputs(experts, batch, "int8") - exact) <= limit).all()


def shifted(matrix):
    """Every scale for its neighbour's group."""
    return Matrix(matrix.packed, np.roll(matrix.scale, 1, axis=1))


FAULTS = {
    "gate's scales": lambda e: Expert(shifted(e.gate), e.up, e.down),
    "up's scales": lambda e: Expert(e.gate, shifted(e.up), e.down),
    "down's scales": lambda e: Expert(e.gate, e.up, shifted(e.down)),
    "gate for up": lambda e: Expert(e.up, e.gate, e.down),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_bound_sees_wrong_weights(small, fault):
    experts, batch, exact = small
    spoilt = [FAULTS[fault](expert) for expert in experts]
    assert not (
        np.abs(outputs(spoilt, batch, "int16") - exact) <= bound(experts, batch, "int16")
    ).all()


def test_the_norm_sees_codes_that_are_cut_off_instead_of_rounded(small, monkeypatch):
    """Twice the error, and far inside every bound."""
    experts, batch, exact = small
    right = reference.LAYER["int16"](experts, *batch)
    assert relative(right, exact) <= MOST
    monkeypatch.setattr(reference.np, "rint", np.trunc)
    cut = reference.LAYER["int16"](experts, *batch)
    assert relative(cut, exact) > MOST
    assert (np.abs(cut - exact) <= bound(experts, batch, "int16")).all()


def test_int16_is_a_hundred_times_as_exact_as_int8(small):
    experts, batch, exact = small
    errors = {mode: relative(outputs(experts, batch, mode), exact) for mode in LARGEST}
    assert errors["int16"] <= MOST
    assert errors["int8"] > 50 * MOST
    assert errors["int16"] < errors["int8"] / 100
    assert relative(outputs(experts, batch, "bf16"), exact) > errors["int16"]


@pytest.mark.slow
def test_int16_at_the_true_size():
    experts, batch, exact = case(2, 7168, 2048, 3, 2, 3)
    errors = {mode: relative(outputs(experts, batch, mode), exact) for mode in LARGEST}
    assert errors["int16"] <= MOST
    assert errors["int16"] < errors["int8"] / 100
