"""The plans of the machines that come with the package, as they were when last looked at."""

import json

import pytest

from hybrid.placement import builtin_config, builtin_machine, machine_names, plan
from tests.placement.golden import FOLDER, planned

CONTRACT = {
    "fits": bool, "decode_tok_s": float, "prefill_tok_s": dict, "bottleneck": str, "bytes": dict,
    "expert_slots_per_layer": dict, "advice": list,
}  # fmt: skip


def kept(name):
    return json.loads((FOLDER / f"{name}.json").read_text("utf-8"))


def same(found, expected):
    """Equal, floats to a millionth: compilers may round the last bit of a power differently."""
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(
            same(found[key], expected[key]) for key in expected
        )
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(same, found, expected))
    if isinstance(expected, float):
        return found == pytest.approx(expected, rel=1e-6)
    return found == expected


def test_every_machine_is_kept():
    assert {path.stem for path in FOLDER.glob("*.json")} == set(machine_names())
    assert len(machine_names()) >= 12


@pytest.mark.parametrize("name", machine_names())
def test_plans_are_those_that_were_kept(name):
    found = json.loads(planned(name))
    changed = [key for key in kept(name) if not same(found.get(key), kept(name)[key])]
    assert not changed, "read the diff of `python -m tests.placement.golden`"
    assert found.keys() == kept(name).keys()


@pytest.mark.parametrize("name", machine_names())
def test_the_contracts_keys_are_there(name):
    found = plan(builtin_config(), builtin_machine(name)).to_json()
    assert {key: type(found[key]) for key in CONTRACT} == CONTRACT
    assert set(found["expert_slots_per_layer"]) == {"vram", "ram", "nvme"}
    assert all(type(n) is int for row in found["bytes"].values() for n in row.values())


def test_a_change_is_seen():
    name = machine_names()[0]
    plan_, other = kept(name), kept(name)
    other["prefill_tok_s"]["2048"] *= 1.001
    assert same(plan_, kept(name))
    assert not same(plan_, other)
