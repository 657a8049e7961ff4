"""The yardsticks do the work that they are credited with, and keep their sums in registers."""

import re

import ceilings
import numpy as np
import pytest
from ceilings import CHAINS, PEAKS, UNIT, Team

from hybrid.cpu_experts.arena import allocate

HERE = ceilings.host_peaks()
pytestmark = pytest.mark.skipif(not HERE, reason="no x86-64 with AVX2: the loops cannot run here")


def loop(isa, ir):
    """The instructions of the innermost loop that LLVM makes for an instruction set."""
    peak = PEAKS[isa]
    machine = ceilings.target_machine(peak.cpu, peak.features)
    text = machine.emit_assembly(ceilings.parsed(ir))
    body = re.search(r"^(\.LBB0_\d+):.*\n((?:(?!\.LBB).*\n)*?)\s*jn?e\s+\1\n", text, re.M)
    lines = (line.partition("#")[0].strip() for line in body[2].splitlines())
    return [line for line in lines if line and not line.startswith(".")]


def faults(isa, lines):
    """What would make a loop slower than the arithmetic itself."""
    adding = "vpdpbusd" if PEAKS[isa].accumulates else "vpaddw"
    sums = {line.split(",")[-1].strip() for line in lines if adding in line}
    found = [f"touches memory: {line}" for line in lines if "(" in line]
    if len(sums) != CHAINS:
        found.append(f"{len(sums)} sums")
    if not PEAKS[isa].accumulates and sum("vpmaddubsw" in line for line in lines) != CHAINS:
        found.append("products missing")
    return found


@pytest.mark.parametrize("isa", PEAKS)
def test_every_chain_has_a_register(isa):
    lines = loop(isa, ceilings.peak_ir(PEAKS[isa]))
    assert faults(isa, lines) == []
    wide = "%zmm" if PEAKS[isa].lanes == 64 else "%ymm"
    assert all(wide in line for line in lines if line.startswith(("vp", "{vex}")))


def test_too_many_chains_are_seen_to_spill(monkeypatch):
    monkeypatch.setattr(ceilings, "CHAINS", 20)
    lines = loop("avx2", ceilings.peak_ir(PEAKS["avx2"]))
    assert any("touches memory" in fault for fault in faults("avx2", lines))


def test_a_missing_product_is_seen():
    ir = ceilings.peak_ir(PEAKS["avx2"])
    product = next(line for line in ir.splitlines() if line.startswith("%p3 "))
    ir = ir.replace(product + "\n", "").replace("%p3\n", "%p2\n")
    assert faults("avx2", loop("avx2", ir)) == ["products missing"]


@pytest.fixture
def memory():
    array = allocate(3 * UNIT + 100)
    array[:] = np.random.default_rng(0).integers(0, 256, array.size, np.uint8)
    return array


@pytest.mark.parametrize("streams", [1, ceilings.STREAMS])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_read_takes_every_unit_once(memory, threads, streams):
    team = Team(threads)
    team._sinks[:] = 0
    nbytes, seconds = team.read(memory, streams)
    assert nbytes == 3 * UNIT
    assert seconds > 0
    together = np.bitwise_xor.reduce(team._sinks[:, :32])
    assert (together == np.bitwise_xor.reduce(memory[: 3 * UNIT].reshape(-1, 32))).all()
    memory[2 * UNIT + 5] ^= 1
    assert (together != np.bitwise_xor.reduce(memory[: 3 * UNIT].reshape(-1, 32))).any()


@pytest.mark.parametrize("isa", HERE)
def test_a_peak_makes_every_product(isa, monkeypatch):
    """A chain's sum after so many loops, exactly, in wrapping integers."""
    monkeypatch.setattr(ceilings, "PEAK_SECONDS", 0.0)
    team, peak = Team(2), PEAKS[isa]
    team._loops = 1001
    macs, seconds = team.peak(isa)
    assert macs == 2 * 1001 * CHAINS * peak.lanes
    assert seconds > 0
    kind, width = (np.uint32, 4) if peak.accumulates else (np.uint16, 2)
    for sink, operands in zip(team._sinks, team._operands, strict=True):
        codes = operands[: 2 * peak.lanes].reshape(2, -1).astype(np.int64)
        product = (codes[0] * codes[1]).reshape(-1, width).sum(axis=1)  # [lanes of a sum]
        chains = sink[: CHAINS * peak.lanes].view(kind).reshape(CHAINS, -1)
        assert (chains == (1001 * product).astype(kind)).all()


def test_a_short_sample_is_taken_again(monkeypatch):
    monkeypatch.setattr(ceilings, "PEAK_SECONDS", 1e-3)
    team = Team(1)
    team._loops = 8
    team.peak(HERE[0])
    assert team._loops > 8


def test_one_cpu_a_core(tmp_path, monkeypatch):
    for index, siblings in enumerate(("0,2", "1,3", "0,2", "1,3")):
        folder = tmp_path / f"cpu{index}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(siblings)
    monkeypatch.setattr(ceilings.os, "sched_getaffinity", lambda _: {1, 2, 3, 9})
    assert ceilings.one_cpu_a_core(tmp_path) == [1, 2, 9]
