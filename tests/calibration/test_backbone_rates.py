"""The backbone's matrices under the calibration: copies side by side, each with its own bytes."""

import numpy as np
import pytest

from hybrid.calibration import backbone_rates as module
from hybrid.calibration.backbone_rates import BackboneRates, backbone_rates
from hybrid.cpu_dense.tiles import BF16, INT8, aligned
from hybrid.hardware.kept_rates import RatesOf
from hybrid.hardware.model_sizes import ModelSizes

SHAPES = ((48, 64), (32, 128))
WHAT = RatesOf("portable", 1, "int8", ModelSizes(64, 32, 4, SHAPES))


@pytest.mark.parametrize("layout", [BF16, INT8], ids=lambda layout: layout.panel)
def test_copies_fill_the_memory_without_overlap(layout):
    each = sum(layout.nbytes(*shape) for shape in SHAPES)
    memory = aligned(3 * each + each // 2)
    rates = BackboneRates(WHAT, layout, memory)
    assert len(rates._jobs) == 3 * len(SHAPES)
    begins = [int(job["matrix"]["weights"]) for job in rates._jobs]
    ends = [at + layout.nbytes(*SHAPES[i % 2]) for i, at in enumerate(begins)]
    assert begins[0] == memory.ctypes.data
    assert begins[1:] == ends[:-1]
    assert ends[-1] <= memory.ctypes.data + memory.nbytes
    nbytes, seconds = rates.token()
    assert nbytes == 3 * each
    assert seconds > 0


def test_what_is_timed_is_the_product():
    """Weights of one and inputs of a half: each output is half the columns, exactly."""
    memory = aligned(sum(BF16.nbytes(*shape) for shape in SHAPES))
    rates = BackboneRates(WHAT, BF16, memory)
    memory[:] = 0x3F80  # one in bf16
    rates._jobs["tokens"] = 1
    rates._run([1])
    rows, columns = SHAPES[1]
    assert (rates._out.memory[0, :rows] == columns / 2).all()
    memory[-1] = 0  # planted: one weight is missing
    rates._run([1])
    assert (rates._out.memory[0, :rows] != columns / 2).sum() == 1


def test_a_prompt_counts_its_operations(monkeypatch):
    weights = sum(rows * columns for rows, columns in SHAPES)
    memory = aligned(sum(BF16.nbytes(*shape) for shape in SHAPES))
    rates = BackboneRates(WHAT, BF16, memory)
    assert rates.prompt()[0] == 2 * weights * 512
    monkeypatch.setattr(module, "PROMPT_FLOP", 2 * weights * 100)
    assert rates.prompt()[0] == 2 * weights * 100


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "LEAST_BYTES", 1 << 20)
    both = backbone_rates(WHAT, 1 << 30, 0)
    assert set(both) == {"bf16", "int8"}
    assert both["bf16"]._memory is both["int8"]._memory
    assert both["bf16"]._memory.nbytes == 1 << 20
    assert (both["int8"]._memory == module.SMALL).all()
    assert backbone_rates(WHAT, 1 << 20, 0)["bf16"]._memory.nbytes < 1 << 18
    small = backbone_rates(WHAT, 0, 0)["bf16"]
    assert len(small._jobs) == len(SHAPES)
    assert np.isfinite(small.token()[1])
