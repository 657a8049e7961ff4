"""A fault in the phases around the micro-kernel, planted in their source, changes the result."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from hybrid.cpu_experts import available_isas, dispatch, kernel, kernel_files
from hybrid.cpu_experts.compiled import callback
from hybrid.cpu_experts.job import KERNEL, STRIPE_BYTES
from hybrid.cpu_experts.numerics import encode_int8
from tests.cpu_experts.native_call import filled, random_batch, same_bits
from tests.reference import experts as reference

TOKENS, K, HIDDEN = 2048, 8, 1056  # two stripes of columns: 1024 and 32
FAULTS = {  # name -> in the source, in its place
    "o is read by the column of the row": (
        "(slot * job.stripe + column) * 4",
        "(slot * job.stripe + job.column + column) * 4",
    ),
    "every unit of DOWN multiplies its first row blocks": (
        "down + (index - shard.down) * groups * STRIDE",
        "down + (index - first) * groups * STRIDE",
    ),
    "h is not biased": ("bias_codes(h, planes)", "h += planes"),
    "x is not biased": ("bias_codes(target, planes)", "target += planes"),
    "groups of a panel lie too close": (
        "pairs * job.group_bytes",
        "(pairs - 1) * job.group_bytes",
    ),
    "pairs of a panel share a row": ("(pair - first) * job.group_bytes", "0 * (pair - first)"),
    "a later part of a panel reads the first": (
        "rows = job.itself + (pair - start) * 4",
        "rows = job.itself",
    ),
    "nothing is wrong": ("ZERO = np.float32(0.0)", "ZERO = np.float32(0)"),
}


def planted(old, new):
    """The module kernel.py with one piece of its text replaced."""
    source = Path(kernel.__file__).read_text()
    assert source.count(old) == 1, old
    module = ModuleType("planted")
    exec(compile(source.replace(old, new), kernel.__file__, "exec"), module.__dict__)
    return module


@pytest.fixture(scope="module")
def wide():
    assert STRIPE_BYTES // (4 * TOKENS * K) < HIDDEN
    rng = np.random.default_rng(1)
    experts = [reference.random_expert(rng, HIDDEN, 32) for _ in range(40)]
    batch = random_batch(rng, TOKENS, HIDDEN, 40, K)
    return experts, batch, filled(experts).forward(*batch)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_in_a_phase_is_seen(wide, name, monkeypatch):
    """Batches of more than a stripe, held against what test_batches.py proves right."""
    if name.endswith("is not biased") and not dispatch.biased(available_isas()[-1], "int8"):
        pytest.skip("the fastest kernel here wants no biased codes")
    experts, batch, want = wide
    monkeypatch.setattr(kernel_files, "_directories", list)  # a faulty kernel is not to be kept
    body = planted(*FAULTS[name]).build(encode_int8, 1)
    faulty = callback("planted-kernel", KERNEL, body)
    monkeypatch.setattr(dispatch, "compiled_kernel", lambda mode: faulty)
    got = filled(experts).forward(*batch)
    assert same_bits(got, want) == (name == "nothing is wrong")
