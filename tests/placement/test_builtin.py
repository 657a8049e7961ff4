"""The data that comes with the package: the published shape, machines with their sources."""

import json
import subprocess
import sys

import pytest

from hybrid.errors import ConfigError
from hybrid.hardware import Hardware
from hybrid.placement import MODEL, builtin_config, builtin_machine, machine_names
from tests.contracts.files import ROOT


def test_the_shape_is_the_published_one():
    shipped = json.loads((ROOT / "hybrid/placement/kimi_k25.json").read_text("utf-8"))
    assert shipped == json.loads((ROOT / "tests/data/kimi_k25_config.json").read_text("utf-8"))
    assert builtin_config().text.n_routed_experts == 384
    assert MODEL == "k2.5"


@pytest.mark.parametrize("name", machine_names())
def test_machines_say_where_their_numbers_are_from(name):
    machine = builtin_machine(name)
    assert machine.name == name
    assert "nothing measured" in machine.note
    assert not machine.rates.measured
    assert machine.ram.peak_gb_s
    assert machine.cpu.cores
    again = Hardware.from_json(json.loads(json.dumps(machine.to_json())))
    assert again == machine


@pytest.mark.parametrize("name", machine_names())
def test_bandwidth_is_channels_times_rate(name):
    """The note's own factors give the number beside them."""
    machine = builtin_machine(name)
    factors = machine.note.split(": ")[1].split(" = ")[0]
    channels, width, rate = (float(part.split()[0]) for part in factors.split(" x "))
    assert channels * width * rate / 1000 == pytest.approx(machine.ram.peak_gb_s, abs=0.05)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("epyc-9355-2s-rtx-509", "did you mean epyc-9355-2s-rtx-5090?"),
        ("a mainframe", "give a file, or one of desktop-ddr5-cpu, "),
        ("../placement/kimi_k25", "no machine is called"),
        ("", "no machine is called ''"),
    ],
)
def test_an_unknown_machine_is_one_line_with_the_names(name, told):
    with pytest.raises(ConfigError) as caught:
        builtin_machine(name)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_plan_loads_neither_torch_nor_numba():
    code = (
        "import sys; from hybrid.placement import *; "
        "plan(builtin_config(), builtin_machine('laptop-64gb')); "
        "print(*sorted({'numba', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""
