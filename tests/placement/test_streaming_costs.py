"""The runtime's split counts with the plan's rates."""

from dataclasses import replace

import pytest

from hybrid.hardware import Rates
from hybrid.placement import builtin_config, builtin_machine, streaming_costs
from hybrid.placement.rates import speeds

K25 = builtin_config()
MACHINE = builtin_machine("epyc-7532-4x-rtx-3090")


def test_cards_add_up():
    one, two = (streaming_costs(K25, MACHINE, cards=range(count)) for count in (1, 2))
    assert two.link_gb_s == pytest.approx(2 * one.link_gb_s)
    assert two.device_gflop_s == pytest.approx(2 * one.device_gflop_s)
    assert two.cpu_gflop_s == one.cpu_gflop_s
    assert streaming_costs(K25, MACHINE).link_gb_s == pytest.approx(4 * one.link_gb_s)


def test_what_was_measured_counts():
    known = replace(MACHINE, rates=Rates(link_gb_s=20.0, experts_gflop_s=777.0, measured=True))
    found = streaming_costs(K25, known, cards=[0])
    rates = speeds(known, record_bytes=found.record_bytes)
    assert (found.link_gb_s, found.cpu_gflop_s) == (20.0, 777.0)
    assert found.cpu_gb_s == rates.experts_gb_s
    assert found.record_bytes == 24_772_608
    assert found.token_flop == 2 * 3 * 7168 * 2048


def test_without_cards_or_experts_nothing_is_streamed():
    assert streaming_costs(K25, replace(MACHINE, gpus=())) is None
    assert streaming_costs(K25, MACHINE, cards=()) is None
    text = replace(K25.text, first_k_dense_replace=K25.text.num_hidden_layers)
    dense = replace(K25, text=text, quantization=None)
    assert streaming_costs(dense, MACHINE) is None
