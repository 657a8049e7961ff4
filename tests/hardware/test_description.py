"""Descriptions that anybody may have written: read in full, or refused in one line."""

import json
from contextlib import suppress
from dataclasses import fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybrid.config import ModelConfig
from hybrid.errors import ConfigError
from hybrid.hardware import K25, Cpu, Disk, Gpu, Hardware, ModelSizes, Ram, Rates
from hybrid.hardware.description import rates_from_json
from hybrid.placement import builtin_config

FULL = Hardware(
    name="a workstation",
    cpu=Cpu(name="A", isa="amx", cores=64, threads_per_core=2, nodes=2, l2_bytes=1, l3_bytes=2),
    ram=Ram(total_bytes=1 << 40, free_bytes=1, limit_bytes=2, huge_pages="always", peak_gb_s=614.4),
    gpus=(
        Gpu(name="B", vram_bytes=32 << 30, free_bytes=1, capability="12.0", pcie_gen=5,
            pcie_width=16, peak_gb_s=1792.0, driver="580.1"),
        Gpu(),
    ),
    disk=Disk(total_bytes=1, free_bytes=0, direct=False, peak_gb_s=14.0),
    rates=Rates(**{each.name: 1.5 for each in fields(Rates) if each.name != "measured"}),
    note="from the makers' pages",
)  # fmt: skip


def test_everything_survives_json():
    assert Hardware.from_json(json.loads(json.dumps(FULL.to_json()))) == FULL


def test_nothing_need_be_known():
    assert Hardware.from_json({}) == Hardware(name="unnamed machine")
    assert Hardware.from_json({"cpu": None, "gpus": [], "disk": None, "note": None}).disk is None


def test_whole_numbers_may_be_written_as_floats():
    found = Hardware.from_json(json.loads('{"ram": {"total_bytes": 1.2e12}}')).ram.total_bytes
    assert (found, type(found)) == (1_200_000_000_000, int)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([], "hardware is []; expected a JSON object"),
        ({"cpus": {}}, "'cpus' is no part"),
        ({"cpu": {"speed": 1}}, "'cpu.speed' is no part"),
        ({"cpu": 4}, "cpu is 4; expected an object"),
        ({"cpu": {"cores": 0}}, "cpu.cores is 0; expected a number from 1 to 65536"),
        ({"cpu": {"cores": 2.5}}, "cpu.cores is 2.5; expected a whole number"),
        ({"cpu": {"cores": True}}, "cpu.cores is True"),
        ({"cpu": {"cores": "4"}}, "cpu.cores is '4'"),
        ({"cpu": {"name": "a\x1b[2Jb"}}, "printable text"),
        ({"cpu": {"name": "x" * 201}}, "printable text of at most 200"),
        ({"name": 1}, "name is 1; expected printable text"),
        ({"gpus": {}}, "expected a list of at most 64 objects"),
        ({"gpus": [{}] * 65}, "expected a list of at most 64 objects"),
        ({"gpus": [{}, 7]}, "gpus[1] is 7; expected an object"),
        ({"gpus": [{"pcie_gen": 99}]}, "gpus[0].pcie_gen is 99"),
        ({"ram": {"total_bytes": 1e30}}, "ram.total_bytes is 1e+30"),
        ({"ram": {"peak_gb_s": -1}}, "ram.peak_gb_s is -1"),
        ({"ram": {"peak_gb_s": float("inf")}}, "ram.peak_gb_s is inf"),
        ({"rates": {"ram_gb_s": float("nan")}}, "rates.ram_gb_s is nan"),
        ({"rates": {"ram_gb_s": 10**400}}, "rates.ram_gb_s is 1000"),
        ({"rates": {"measured": 1}}, "rates.measured is 1; expected true or false"),
        ({"disk": {"direct": "yes"}}, "disk.direct is 'yes'; expected true or false"),
    ],
)
def test_refusals_name_the_key(values, said):
    with pytest.raises(ConfigError) as error:
        Hardware.from_json(values)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 700


NAMES = st.text(max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
PARTS = ("cpu", "ram", "gpus", "disk", "rates", "name", "note", "cores", "free_bytes", "direct")


PART = st.dictionaries(st.sampled_from(PARTS), JSON)


@settings(max_examples=60)
@given(st.dictionaries(st.sampled_from(PARTS), JSON | PART))
def test_any_json_is_read_or_refused(values):
    with suppress(ConfigError):
        found = Hardware.from_json(values)
        assert Hardware.from_json(found.to_json()) == found


def test_rates_alone():
    assert rates_from_json({"ram_gb_s": 20, "measured": True}) == Rates(
        ram_gb_s=20.0, measured=True
    )
    with pytest.raises(ConfigError, match="rates is None"):
        rates_from_json(None)


def test_the_sizes_of_k25_are_those_of_its_configuration():
    assert isinstance(builtin_config(), ModelConfig)
    assert ModelSizes.of(builtin_config().text) == K25
