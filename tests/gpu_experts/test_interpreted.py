"""The Triton kernels, interpreted, give the bits of the CPU's; and each planted fault shows."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.gpu_experts.cases import (
    MODES,
    case,
    differences,
    differing,
    expected,
    extreme_expert,
    special_rows,
    values,
)
from tests.gpu_experts.interpreted import ROOT, Interpreter
from tests.reference.experts import LARGEST

pytest.importorskip("triton")
pytestmark = pytest.mark.triton

KERNELS = ROOT / "hybrid/gpu_experts/kernels"
FORMS = "decode", "grouped"


@pytest.fixture(scope="module")
def interpreter():
    process = Interpreter()
    yield process
    process.close()


def assert_same(interpreter, made, mode, form):
    outputs, combined = interpreter.run(made, mode, form)
    assert differing(outputs, made.outputs) == 0  # rows of -1 are as they were
    assert differing(combined, made.combined) == 0


SIZES = [(32, 32, 1, 1), (96, 64, 1, 2), (64, 160, 1, 1), (256, 32, 1, 1)]  # 1, 2, 3, 5, 8 groups


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("hidden", "intermediate", "tokens", "k"), SIZES)
def test_few_tokens(interpreter, mode, hidden, intermediate, tokens, k):
    assert_same(interpreter, case(mode, hidden, intermediate, tokens, k, seed=1), mode, "decode")


@pytest.mark.parametrize(
    ("mode", "hidden", "intermediate", "tokens", "k"),
    [
        ("int8", 96, 64, 2, 3),
        ("int8", 32, 160, 3, 1),
        ("int16", 96, 64, 2, 3),
        ("bf16", 32, 32, 2, 3),
    ],
)
def test_pairs_sorted_by_slot(interpreter, mode, hidden, intermediate, tokens, k):
    assert_same(interpreter, case(mode, hidden, intermediate, tokens, k), mode, "grouped")


def test_tiles_of_many_tokens(interpreter):
    """40 tokens of 4 over 3 experts: tiles that are full, and one of each that is not."""
    assert_same(interpreter, case("int8", 64, 32, 40, 4, experts=3), "int8", "grouped")


@pytest.mark.parametrize(
    ("mode", "form"),
    [("int8", "decode"), ("int8", "grouped"), ("int16", "grouped"), ("bf16", "decode")],
)
def test_numbers_that_are_not_ordinary(interpreter, mode, form):
    made = case(mode, 32, 32, 10, 1, x=special_rows(32), make=extreme_expert, experts=2)
    assert not np.isfinite(made.outputs).all()
    assert_same(interpreter, made, mode, form)


@pytest.mark.parametrize("mode", LARGEST)
def test_silu_rounding_and_codes(interpreter, mode):
    x = values()
    assert differences(interpreter.numerics(x, LARGEST[mode]), expected(x, mode)) == [0, 0, 0, 0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "hidden", "intermediate", "tokens", "k"),
    [("decode", 512, 256, 1, 2), ("grouped", 512, 256, 3, 4)],
)
def test_larger(interpreter, form, hidden, intermediate, tokens, k):
    """More groups than are unrolled, more programs than one in every direction."""
    made = case("int8", hidden, intermediate, tokens, k, seed=1)
    assert_same(interpreter, made, "int8", form)


FAULTS = {  # name: (file, what is there, what would be wrong, form)
    "fused, decode": (
        "decode",
        "total + dot.to(tl.float32) * (scale * tl.load(scales + at))",
        "tl.fma(dot.to(tl.float32), scale * tl.load(scales + at), total)",
        "decode",
    ),
    "fused, grouped": (
        "grouped",
        "total += _dots(first, second, nibbles, offset, PLANES) * (weight[None, :] * scale)",
        "total = tl.fma(_dots(first, second, nibbles, offset, PLANES), weight[None, :] * scale,"
        " total)",
        "grouped",
    ),
    "another association": (
        "grouped",
        "* (weight[None, :] * scale)",
        "* weight[None, :] * scale",
        "grouped",
    ),
    "another order of groups": (
        "decode",
        "group = start + step",
        "group = GROUPS - 1 - start - step",
        "decode",
    ),
    "swapped nibbles": ("decode", "((word >> 4) & NIBBLES)", "((word >> 8) & NIBBLES)", "decode"),
    "swapped nibbles, grouped": (
        "grouped",
        "index % 4 * 8 + index // 4 * 4",
        "index % 4 * 8 + (1 - index // 4) * 4",
        "grouped",
    ),
    "a borrow not given back": ("decode", "((low + 32768) >> 16)", "(low >> 16)", "decode"),
    "one tile too few": (
        "grouped",
        "tl.load(tiles), tl.num",
        "tl.load(tiles) - 1, tl.num",
        "grouped",
    ),
    "slots in another order": (
        "rows",
        "tl.load(outputs + pair",
        "tl.load(outputs + (2 * token * k + k - 1 - pair)",
        "decode",
    ),
}


NUMERIC_FAULTS = {  # name: (what is there, what would be wrong, which of the four results shows it)
    "another exp": ("exp(0.0 - limited)", "tl.exp(0.0 - limited)", 0),
    "silu by tanh": (
        "return tl.div_rn(gate, exp(0.0 - limited) + 1.0)",
        "return gate * (0.5 + 0.5 * (1.0 - 2.0 / (tl.exp(limited) + 1.0)))",
        0,
    ),
    "no limit": ("gate = tl.where(gate < -EXP_LIMIT, -EXP_LIMIT, gate)", "gate = gate", 0),
    "bf16 half up": ("(((bits >> 16) & 1) + 0x7FFF)", "0x8000", 1),
    "reciprocal for division": (
        "tl.div_rn(values, tl.where(live, scale, 1.0)[:, None])",
        "values * tl.div_rn(1.0, tl.where(live, scale, 1.0))[:, None]",
        2,
    ),
    "no clamp": ("code = tl.minimum(tl.maximum(code, -LARGEST), LARGEST)", "code = code", 2),
    "infinity as a number": ("largest >= INFINITY_BITS", "largest > INFINITY_BITS", 3),
}


@pytest.fixture
def changed(tmp_path):
    """A copy of the kernels in which one file says something else."""

    def change(file, found, wrong):
        folder = tmp_path / "kernels"
        shutil.copytree(KERNELS, folder, ignore=shutil.ignore_patterns("__pycache__"))
        source = Path(folder, f"{file}.py")
        text = source.read_text()
        assert found in text
        source.write_text(text.replace(found, wrong))
        return str(folder)

    return change


@pytest.mark.parametrize("name", NUMERIC_FAULTS)
def test_a_planted_fault_in_the_numerics_shows(interpreter, changed, name):
    found, wrong, result = NUMERIC_FAULTS[name]
    x = values()
    got = interpreter.numerics(x, LARGEST["int8"], changed("numerics", found, wrong))
    assert differences(got, expected(x, "int8"))[result] > 0


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_shows(interpreter, changed, name):
    file, found, wrong, form = FAULTS[name]
    made = case("int8", 96, 32, 2, 2, seed=4) if form == "decode" else case("int8", 96, 64, 6, 2)
    outputs, combined = interpreter.run(made, "int8", form, changed(file, found, wrong))
    assert differing(outputs, made.outputs) + differing(combined, made.combined) > 0
