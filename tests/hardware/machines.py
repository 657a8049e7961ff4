"""Trees of /sys, /proc and /dev as other machines show them, written to a directory."""

import os
from pathlib import Path

import psutil

from hybrid.hardware import Roots
from tests.hardware import smbios

AVX2 = "fpu sse2 fma f16c movbe bmi1 bmi2 abm avx avx2"
AVX512 = f"{AVX2} avx512f avx512bw avx512dq avx512vl avx512cd"


class Machine:
    """One machine; files are written as it is described."""

    def __init__(self, root, monkeypatch):
        self.roots = Roots(root / "sys", root / "proc", root / "dev")
        self._monkeypatch = monkeypatch
        for folder in (self.roots.system, self.roots.processes, self.roots.devices):
            folder.mkdir(parents=True)
        monkeypatch.setattr(psutil, "PROCFS_PATH", str(self.roots.processes))
        self.allow({0})

    def allow(self, cpus):
        mask = set(cpus)
        self._monkeypatch.setattr(os, "sched_getaffinity", lambda _: mask, raising=False)

    def sys(self, name, text):
        return _write(self.roots.system / name, text)

    def proc(self, name, text):
        return _write(self.roots.processes / name, text)

    def cpu(self, cores, name="model name\t: A CPU", flags=""):
        """`cores` maps a node to its cores, each a list of logical CPUs."""
        self.proc("cpuinfo", f"processor\t: 0\n{name}\nflags\t\t: {flags}\n\nprocessor\t: 1\n")
        for node, own in cores.items():
            every = ",".join(str(cpu) for core in own for cpu in core)
            self.sys(f"devices/system/node/node{node}/cpulist", every)
            for core in own:
                for cpu in core:
                    shared = ",".join(map(str, core))
                    self.sys(f"devices/system/cpu/cpu{cpu}/topology/core_cpus_list", shared)
        self.allow({cpu for own in cores.values() for core in own for cpu in core})

    def cache(self, level, size, groups, index=None):
        """A cache of each group of logical CPUs."""
        for group in groups:
            for cpu in group:
                at = f"devices/system/cpu/cpu{cpu}/cache/index{level if index is None else index}"
                self.sys(f"{at}/level", level)
                self.sys(f"{at}/size", size)
                self.sys(f"{at}/shared_cpu_list", ",".join(map(str, group)))

    def memory(self, total_kib, available_kib, swap_kib=0):
        names = (
            "MemFree",
            "Buffers",
            "Cached",
            "Active",
            "Inactive",
            "SwapFree",
            "Shmem",
            "Slab",
            "SReclaimable",
        )
        lines = [f"{name}: 0 kB" for name in names]
        told = {"MemTotal": total_kib, "MemAvailable": available_kib, "SwapTotal": swap_kib}
        lines += [f"{name}: {kib} kB" for name, kib in told.items()]
        self.proc("meminfo", "\n".join(lines))

    def gpu(self, bus, model, speed="32.0 GT/s PCIe", width=16, full=16, port="32.0 GT/s PCIe"):
        """A card below a bridge of its own."""
        bridge = f"devices/pci0000:00/0000:00:{bus[5:7]}.0"
        self.sys(f"{bridge}/max_link_speed", port)
        for name, text in {
            "vendor": "0x10de",
            "class": "0x030000",
            "max_link_speed": speed,
            "current_link_speed": "2.5 GT/s PCIe",
            "max_link_width": full,
            "current_link_width": width,
        }.items():
            file = self.sys(f"{bridge}/{bus}/{name}", text)
        link = self.roots.system / "bus/pci/devices" / bus
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file.parent)
        self.proc(f"driver/nvidia/gpus/{bus}/information", f"Model: \t\t {model}\nIRQ: 12\n")

    def driver(self, version):
        line = f"NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {version}  Release Build"
        self.proc("driver/nvidia/version", line)
        (self.roots.devices / "nvidiactl").touch()

    def dmi(self, content):
        path = self.roots.system / "firmware/dmi/tables/DMI"
        path.parent.mkdir(parents=True)
        path.write_bytes(content)


def _write(path, text):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(f"{text}\n")
    return path


def two_epycs(machine):
    """2 sockets of 8 cores with SMT, 12 channels each with one module, two GPUs."""
    cores = {node: [[8 * node + i, 16 + 8 * node + i] for i in range(8)] for node in (0, 1)}
    name = "model name\t: AMD EPYC 9355 32-Core Processor"
    machine.cpu(cores, name, f"{AVX512} avx512_vnni avx_vnni")
    every = [core for own in cores.values() for core in own]
    machine.cache(1, "48K", every, index=0)
    machine.cache(2, "1024K", every)
    quads = [own[i : i + 4] for own in cores.values() for i in (0, 4)]
    machine.cache(3, "32768K", [[cpu for core in quad for cpu in core] for quad in quads])
    machine.memory(1_585_000_000, 1_560_000_000)
    machine.sys("kernel/mm/transparent_hugepage/enabled", "always [madvise] never")
    modules = [
        smbios.Module(f"P{socket} CHANNEL {letter}")
        for socket in (0, 1)
        for letter in "ABCDEFGHIJKL"
    ]
    machine.dmi(smbios.table(*modules))
    machine.driver("580.95.05")
    machine.gpu("0000:01:00.0", "NVIDIA GeForce RTX 5090")
    machine.gpu("0000:81:00.0", "NVIDIA GeForce RTX 5090", width=8)
    machine.proc("sys/kernel/numa_balancing", 1)


def xeon_container(machine):
    """A part of a Xeon with AMX: a memory limit, and a quota below the cores."""
    flags = f"{AVX512} avx512_vnni avx_vnni amx_tile amx_int8 amx_bf16"
    cores = {0: [[i] for i in range(16)]}
    machine.cpu(cores, "model name\t: Intel(R) Xeon(R) Platinum 8488C", flags)
    machine.cache(2, "2048K", cores[0])
    machine.cache(3, "107520K", [list(range(16))])
    machine.memory(258_000_000, 200_000_000)
    machine.sys("fs/cgroup/cpu.max", "400000 100000")
    machine.sys("fs/cgroup/memory.max", 64 << 30)
    machine.sys("fs/cgroup/memory.current", 20 << 30)
    machine.sys("fs/cgroup/memory.stat", f"anon 1\ninactive_file {4 << 30}")
    machine.sys("kernel/mm/transparent_hugepage/enabled", "always madvise [never]")


def laptop(machine):
    """Four cores without AVX-512, one GPU behind eight lanes of generation 4, swap."""
    machine.cpu({0: [[0, 1], [2, 3], [4], [5]]}, "model name\t: Ultra 7", f"{AVX2} avx_vnni")
    machine.cache(3, "12M", [[0, 1, 2, 3, 4, 5]])
    machine.memory(32_000_000, 20_000_000, swap_kib=8_000_000)
    machine.proc("sys/vm/swappiness", 60)
    machine.sys("kernel/mm/transparent_hugepage/enabled", "[always] madvise never")
    machine.driver("570.86.10")
    machine.gpu("0000:01:00.0", "RTX 4070 Laptop", speed="16.0 GT/s PCIe", width=8, full=8)


def arm_board(machine):
    """No model name, no flags, caches that nobody describes."""
    lines = "CPU implementer\t: 0x41\nCPU part\t: 0xd4f"
    machine.cpu({0: [[i] for i in range(4)]}, lines, "")
    machine.proc("cpuinfo", f"processor\t: 0\n{lines}\nFeatures\t: fp asimd asimddp\n")
    machine.proc("device-tree/model", "A Board Rev 2\0")
    machine.memory(16_000_000, 15_000_000)


def nothing(machine):
    """Not one file that can be read."""
