"""Which kernel runs, that it is checked before it runs, and that its code contracts nothing."""

import re

import pytest
from numba import njit, types

import hybrid.cpu_experts as package
from hybrid.cpu_experts import dispatch, isas, kernel_files, machine_code
from hybrid.cpu_experts.rows.modes import MODES
from hybrid.errors import ConfigError

FUSED = re.compile(r"\b(vfn?m(add|sub)\w*|fmadd|fmla|fmsub)\b")
HERE = package.available_isas()


def test_the_fastest_available_is_selected():
    assert HERE[0] == "portable"
    assert dispatch.select(None) == dispatch.select("auto") == HERE[-1]
    assert [dispatch.select(isa) for isa in HERE] == list(HERE)
    with pytest.raises(ConfigError, match=r"isa is 'sse2'; this machine has portable"):
        dispatch.select("sse2")


@pytest.mark.parametrize("isa", isas.ISAS)
def test_what_the_host_lacks_is_refused_by_name(isa, monkeypatch):
    """An instruction it lacks would end the process."""
    monkeypatch.setattr(isas, "executable", lambda: ())
    assert dispatch.available_isas() == ("portable",)
    assert dispatch.select(None) == "portable"
    with pytest.raises(ConfigError, match=rf"isa is '{isa}'; this machine has portable$"):
        dispatch.select(isa)


def test_a_host_that_cannot_run_elf_for_x86_runs_the_portable_kernel(monkeypatch):
    monkeypatch.setattr(isas, "executable", lambda: ("avx2",))
    assert dispatch.available_isas() == ("portable", "avx2")
    monkeypatch.setattr(machine_code, "supported", lambda: False)
    assert dispatch.available_isas() == ("portable",)


@pytest.mark.parametrize("name", ["auto", *MODES])
def test_modes(name):
    assert dispatch.select_mode(name) == ("int8" if name == "auto" else name)


@pytest.mark.parametrize("mode", MODES)
def test_who_wants_panels_and_biased_codes(mode):
    """Panels from the fifth row on, biased for the expanded shape alone; bf16 has no codes."""
    assert dispatch.panels_from(mode) == (5 if mode != "bf16" else dispatch.NEVER)
    expanded = {"avx2", "avxvnni", "avx512bw"} if mode != "bf16" else set()
    for isa in ("portable", *isas.ISAS):
        assert dispatch.biased(isa, mode) == (isa in expanded)


def test_warm_up_reports_every_kernel():
    seen = []
    package.warm_up(progress=seen.append)
    assert [p.done for p in seen] == list(range(seen[-1].total + 1))
    assert {(p.phase, p.unit, p.total) for p in seen} == {("kernels", "kernels", seen[-1].total)}


# ---- no contraction


def numba_code(monkeypatch, compile_one):
    monkeypatch.setattr(kernel_files, "_directories", list)  # from disk there is nothing to inspect
    return compile_one()._library.get_asm_str()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("piece", [dispatch.compiled_kernel, dispatch._portable])
def test_nothing_is_fused_by_numba(monkeypatch, piece, mode):
    code = numba_code(monkeypatch, lambda: piece.__wrapped__(mode))
    assert re.search(r"\bv?mul[ps]s|fmul", code)
    assert not FUSED.search(code)


@pytest.mark.skipif("fma" not in isas.host_features(), reason="this CPU has no FMA to find")
def test_a_fused_multiply_add_would_be_seen():
    @njit(fastmath={"contract"})
    def contracted(a, b, c):
        return a * b + c

    contracted.compile((types.float32,) * 3)
    assert FUSED.search(next(iter(contracted.inspect_asm().values())))
