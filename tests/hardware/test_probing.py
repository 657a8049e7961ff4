"""What other machines' trees are taken for, and what this one says of itself."""

import json
import subprocess
import sys

import psutil
import pytest

from hybrid.hardware import HERE, Cpu, Disk, Gpu, Hardware, Ram, describe, probe
from hybrid.hardware.processor import FLAGS, cache_bytes, kernel_set_of
from tests.hardware import machines

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def seen(machine, make):
    make(machine)
    return describe(roots=machine.roots)


def test_two_epycs(machine):
    found = seen(machine, machines.two_epycs)
    assert found.cpu == Cpu(
        name="AMD EPYC 9355 32-Core Processor", isa="avx512vnni", cores=16, threads_per_core=2,
        nodes=2, l2_bytes=16 * MIB, l3_bytes=4 * 32 * MIB,
    )  # fmt: skip
    assert found.ram == Ram(
        total_bytes=1_585_000_000 * KIB, free_bytes=1_560_000_000 * KIB, limit_bytes=None,
        huge_pages="madvise", peak_gb_s=24 * 48.0,
    )  # fmt: skip
    card = Gpu(name="NVIDIA GeForce RTX 5090", pcie_gen=5, pcie_width=16, driver="580.95.05")
    assert found.gpus[0] == card
    assert found.gpus[1].pcie_width == 8
    assert found.disk is None


def test_a_container_on_a_xeon(machine):
    found = seen(machine, machines.xeon_container)
    assert (found.cpu.isa, found.cpu.cores, found.cpu.nodes) == ("amx", 4, 1)  # by its quota
    assert (found.cpu.l2_bytes, found.cpu.l3_bytes) == (32 * MIB, 105 * MIB)
    assert found.ram.limit_bytes == 64 * GIB
    assert found.ram.free_bytes == 48 * GIB  # what the limit leaves, page cache given back
    assert found.ram.huge_pages == "never"
    assert found.gpus == ()


def test_the_tightest_of_nested_limits_counts(machine):
    machines.xeon_container(machine)
    machine.proc("self/cgroup", "0::/user/job")
    machine.sys("fs/cgroup/user/memory.max", 16 << 30)
    machine.sys("fs/cgroup/user/job/memory.max", "max")
    assert describe(roots=machine.roots).ram.limit_bytes == 16 * GIB
    machine.sys("fs/cgroup/user/job/memory.max", 8 << 30)
    assert describe(roots=machine.roots).ram.limit_bytes == 8 * GIB


def test_version_1_says_no_limit_with_a_large_number(machine):
    machines.arm_board(machine)
    machine.sys("fs/cgroup/memory/memory.limit_in_bytes", 9223372036854771712)
    assert describe(roots=machine.roots).ram.limit_bytes is None


def test_a_laptop(machine):
    found = seen(machine, machines.laptop)
    assert (found.cpu.isa, found.cpu.cores, found.cpu.threads_per_core) == ("avxvnni", 4, 2)
    assert (found.cpu.l2_bytes, found.cpu.l3_bytes) == (None, 12 * MIB)
    assert found.ram.peak_gb_s is None  # the tables are root's
    assert (found.gpus[0].pcie_gen, found.gpus[0].pcie_width) == (4, 8)


def test_a_board_without_names(machine):
    found = seen(machine, machines.arm_board)
    assert found.cpu == Cpu(
        name="A Board Rev 2", isa="portable", cores=4, threads_per_core=1, nodes=1
    )
    assert found.ram.total_bytes == 16_000_000 * KIB


def test_a_machine_that_says_nothing(machine):
    found = seen(machine, machines.nothing)
    assert found == Hardware(cpu=Cpu(isa="portable", cores=1, threads_per_core=1, nodes=1))


MAKERS = [
    machines.two_epycs, machines.xeon_container, machines.laptop, machines.arm_board,
    machines.nothing,
]  # fmt: skip


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_every_description_survives_json(machine, make):
    found = seen(machine, make)
    assert Hardware.from_json(json.loads(json.dumps(found.to_json()))) == found


@pytest.mark.parametrize(
    ("flags", "isa"),
    [
        (machines.AVX2, "avx2"),
        (machines.AVX2.replace(" abm", ""), "portable"),
        (f"{machines.AVX2} avx_vnni", "avxvnni"),
        (machines.AVX512, "avx512bw"),
        (f"{machines.AVX512} avx512_vnni", "avx512vnni"),
        (f"{machines.AVX512} avx512_vnni amx_tile", "avx512vnni"),  # half of AMX is none
        (f"{machines.AVX512} avx512_vnni amx_tile amx_int8", "amx"),
        ("", "portable"),
    ],
)
def test_a_kernel_set_by_flags(flags, isa):
    assert kernel_set_of(frozenset(flags.split())) == isa


def test_flags_and_llvm_agree_on_this_machine():
    from hybrid.cpu_experts import available_isas
    from hybrid.hardware.kernel_text import field, text

    flags = frozenset((field(text(HERE.processes / "cpuinfo"), "flags") or "").split())
    if not flags:
        pytest.skip("this kernel shows no flags")
    assert kernel_set_of(flags) == available_isas()[-1]
    assert FLAGS["abm"] == "lzcnt"  # planted: without one of its features a set is not taken
    assert kernel_set_of(flags - {"abm"}) == "portable"


def test_a_cache_is_counted_once(machine):
    machine.cache(2, "1M", [[0, 2], [1, 3]])
    system = machine.roots.system / "devices/system"
    assert cache_bytes(system, [0, 1], 2) == 2 * MIB
    assert cache_bytes(system, [0, 1, 2, 3], 2) == 2 * MIB
    machine.sys("devices/system/cpu/cpu1/cache/index2/shared_cpu_list", "0,2")
    assert cache_bytes(system, [0, 1], 2) == 1 * MIB  # planted: a wrong sharer is seen


@pytest.mark.parametrize("text", ["", "12Q", "-1K", "K", "9" * 40])
def test_a_cache_of_no_size(machine, text):
    machine.cache(3, text, [[0]])
    assert cache_bytes(machine.roots.system / "devices/system", [0], 3) is None


def test_a_slower_port_limits_the_link(machine):
    machine.gpu("0000:01:00.0", "A", speed="32.0 GT/s PCIe", port="16.0 GT/s PCIe")
    machine.gpu("0000:02:00.0", "B", speed="nonsense", port="Unknown", width="x", full="255")
    first, second = describe(roots=machine.roots).gpus
    assert (first.name, first.pcie_gen, first.driver) == ("A", 4, None)
    assert (second.pcie_gen, second.pcie_width) == (None, None)


def test_other_devices_are_no_gpus(machine):
    machine.gpu("0000:01:00.0", "A")
    machine.sys("bus/pci/devices/0000:01:00.0/class", "0x040300")  # its sound
    assert describe(roots=machine.roots).gpus == ()


def test_a_disk(tmp_path):
    (tmp_path / "shard").write_bytes(b"x" * 5000)
    found = describe(tmp_path).disk
    assert isinstance(found, Disk)
    assert 0 < found.free_bytes <= found.total_bytes
    assert found.direct is not None
    assert describe(tmp_path / "absent").disk is None
    (tmp_path / "empty").mkdir()
    assert describe(tmp_path / "empty").disk.direct is None


def test_this_machine():
    found = probe()
    assert found.cpu.cores >= 1
    assert Hardware.from_json(found.to_json()) == found


@pytest.mark.oracle
def test_this_machine_against_psutil_and_lscpu():
    found = describe()
    assert found.ram.total_bytes == psutil.virtual_memory().total
    told = subprocess.run(
        ["lscpu", "--bytes", "--json", "--caches"], capture_output=True, text=True, check=False
    )
    if told.returncode:
        pytest.skip("no lscpu here")
    caches = {each["name"]: int(each["all-size"]) for each in json.loads(told.stdout)["caches"]}
    physical, mask = psutil.cpu_count(logical=False), found.cpu.cores
    if physical != mask or "L2" not in caches:
        pytest.skip("this process may use only some of the cores, or caches are not shown")
    assert found.cpu.l2_bytes == caches["L2"]
    assert found.cpu.l3_bytes == caches.get("L3")


def test_importing_it_is_cheap():
    """A plan for another machine must not wait for compilers and GPUs."""
    code = "import sys, hybrid.hardware; print([m for m in ('numba', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
