"""What each instruction set needs, and that this host is believed only as far as its features."""

import llvmlite.binding as llvm
import pytest

from hybrid.cpu_experts import isas
from hybrid.cpu_experts.isas import ISAS

V3 = {"avx2", "fma", "f16c", "bmi", "bmi2", "lzcnt", "movbe"}
V4 = V3 | {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd"}
HOSTS = {  # features -> the instruction sets that such a host executes
    "none": (set(), ()),
    "avx2 alone": ({"avx2"}, ()),
    "Haswell": (V3, ("avx2",)),
    "Alder Lake": (V3 | {"avxvnni"}, ("avx2", "avxvnni")),
    "Skylake-X": (V4, ("avx2", "avx512bw")),
    "Ice Lake": (V4 | {"avx512vnni"}, ("avx2", "avx512bw", "avx512vnni")),
    "Sapphire Rapids": (
        V4 | {"avx512vnni", "avxvnni", "amx-tile", "amx-int8"},
        ("avx2", "avxvnni", "avx512bw", "avx512vnni", "amx"),
    ),
    "Ice Lake without AVX-512BW": (V4 - {"avx512bw"} | {"avx512vnni"}, ("avx2",)),
    "AMX without VNNI": (V4 | {"amx-tile", "amx-int8"}, ("avx2", "avx512bw")),
}


@pytest.fixture
def host(monkeypatch):
    """A host with the given features and permission to use tiles."""

    def become(features, permitted=True):
        monkeypatch.setattr(isas, "host_features", lambda: frozenset(features))
        monkeypatch.setattr(isas, "amx_permitted", lambda: permitted)
        return isas.executable.__wrapped__()

    return become


@pytest.mark.parametrize("name", HOSTS)
def test_a_host_executes_what_its_features_say(host, name):
    features, want = HOSTS[name]
    assert host(features) == want


@pytest.mark.parametrize("name", ISAS)
def test_a_single_missing_feature_is_enough(host, name):
    """A hypervisor may mask any of them."""
    needs = ISAS[name].needs
    assert name in host(needs)
    for feature in needs:
        assert name not in host(needs - {feature}), feature


def test_amx_needs_the_operating_systems_permission(host):
    features, _ = HOSTS["Sapphire Rapids"]
    assert host(features, permitted=False) == ("avx2", "avxvnni", "avx512bw", "avx512vnni")


def test_the_operating_system_is_asked_only_where_there_are_tiles(host, monkeypatch):
    host(V3)
    monkeypatch.setattr(isas, "amx_permitted", lambda: pytest.fail("asked"))
    assert isas.executable.__wrapped__() == ("avx2",)


@pytest.mark.parametrize("name", ISAS)
def test_a_kernel_is_compiled_for_nothing_that_it_does_not_need(name):
    """The level's and the extra features that an LLVM kernel may use are all in `needs`."""
    isa = ISAS[name]
    assert set(isa.extra) <= isa.needs
    assert isa.needs - set(isa.extra) == (V4 if isa.level == "x86-64-v4" else V3)
    assert isa.features == ",".join(f"+{feature}" for feature in isa.extra)


def test_a_host_that_llvm_cannot_read_executes_none(monkeypatch):
    def unknown():
        raise RuntimeError("no host features")

    monkeypatch.setattr(llvm, "get_host_cpu_features", unknown)
    assert isas.host_features.__wrapped__() == frozenset()


def test_features_that_are_switched_off_do_not_count(monkeypatch):
    monkeypatch.setattr(llvm, "get_host_cpu_features", lambda: {"avx2": True, "avx512f": False})
    assert isas.host_features.__wrapped__() == {"avx2"}
