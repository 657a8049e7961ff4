"""Rates: what is measured stands, what is not follows from what parts promise, and says so."""

from dataclasses import fields, replace

import pytest

from hybrid.hardware import Cpu, Disk, Gpu, Hardware, Ram, Rates
from hybrid.placement.cards import Together, free_vram, in_order, together
from hybrid.placement.rates import Speeds, speeds

RECORD = 24_772_608
GIB = 1 << 30
NAMES = [each.name for each in fields(Speeds) if each.name != "assumed"]


def of(**parts):
    return speeds(Hardware(**parts), record_bytes=RECORD)


def test_what_is_measured_stands():
    measured = {name: 7.0 + at for at, name in enumerate(NAMES)}
    found = of(gpus=(Gpu(),), rates=Rates(measured=True, **measured))
    assert {name: getattr(found, name) for name in NAMES} == measured
    assert found.assumed == ()


def test_a_machine_that_nobody_described_has_rates_all_of_them_assumed():
    found = of(gpus=(Gpu(),))
    assert all(getattr(found, name) > 0 for name in NAMES)
    assert set(found.assumed) == set(NAMES)


def test_without_a_gpu_its_rates_are_no_assumption():
    assert not {"link_gb_s", "device_gb_s", "device_gflop_s", "sync_s"} & set(of().assumed)


def test_memory_follows_from_the_dimms_and_cores_from_their_kernels():
    wide = of(cpu=Cpu(cores=64, isa="avx512vnni"), ram=Ram(peak_gb_s=400))
    assert wide.ram_gb_s == pytest.approx(300)
    assert wide.experts_gb_s == pytest.approx(270)
    narrow = of(cpu=Cpu(cores=4, isa="avx2"), ram=Ram(peak_gb_s=400))
    assert narrow.experts_gb_s == pytest.approx(56)
    assert of(cpu=Cpu(cores=64, nodes=2), ram=Ram(peak_gb_s=400)).ram_gb_s < wide.ram_gb_s


def test_fewer_threads_are_slower():
    machine = Hardware(cpu=Cpu(cores=64), ram=Ram(peak_gb_s=1000))
    few = speeds(machine, record_bytes=RECORD, threads=8)
    every = speeds(machine, record_bytes=RECORD)
    assert few.experts_gflop_s == pytest.approx(every.experts_gflop_s / 8)
    assert few.experts_gb_s < every.experts_gb_s
    assert speeds(machine, record_bytes=RECORD, threads=640) == every


def test_kernels_follow_a_measured_read():
    assert of(cpu=Cpu(cores=64), rates=Rates(ram_gb_s=100)).experts_gb_s == pytest.approx(90)


def test_int8_has_rates_of_its_own():
    known = Hardware(rates=Rates(backbone_gb_s=20, backbone_int8_gb_s=15, backbone_gflop_s=80))
    found = speeds(known, record_bytes=RECORD, weights="int8")
    assert found.backbone_gb_s == 15
    assert "backbone_gflop_s" in found.assumed
    assert speeds(known, record_bytes=RECORD).backbone_gb_s == 20


def test_the_link_by_generation_and_width():
    rate = {
        (gen, width): of(gpus=(Gpu(pcie_gen=gen, pcie_width=width),)).link_gb_s
        for gen in (3, 4, 5)
        for width in (4, 16)
    }
    assert rate[5, 16] == pytest.approx(0.8 * 63, rel=0.01)
    assert rate[4, 4] == pytest.approx(rate[5, 16] / 8, rel=0.01)
    assert of(gpus=(Gpu(pcie_gen=16),)).link_gb_s >= rate[5, 16]  # a bus of the future


def test_one_record_alone_is_slower_than_its_share_of_many():
    found = of(disk=Disk(peak_gb_s=14))
    assert found.disk_gb_s == pytest.approx(11.2)
    assert found.disk_record_s > RECORD / 11.2e9


def test_the_card_with_most_room_comes_first():
    small, large = Gpu(vram_bytes=24 * GIB), Gpu(vram_bytes=96 * GIB, free_bytes=30 * GIB)
    assert in_order(Hardware(gpus=(small, large))) == (large, small)
    assert in_order(Hardware(gpus=(small, replace(large, free_bytes=GIB))))[0] is small
    assert in_order(Hardware()) == ()
    assert free_vram(small) == 23 * GIB
    assert free_vram(Gpu()) == 0


def test_rates_of_several_cards_add_up():
    fast = Gpu(peak_gb_s=1000, pcie_gen=5, pcie_width=16)
    slow = Gpu(peak_gb_s=500, pcie_gen=4, pcie_width=8)
    assert together((fast,)) == together(()) == Together(1.0, 1.0)
    assert together((fast, fast, slow)).memory == pytest.approx(2.5)
    assert together((fast, fast, slow)).link == pytest.approx(2.25)
    assert together((slow, fast)).link == pytest.approx(5)
