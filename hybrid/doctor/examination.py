"""All checks in the order of a start: software, system, GPU, model, speed."""

import platform
from collections.abc import Callable
from pathlib import Path

from hybrid.cpu_experts import kernel_files, selfcheck
from hybrid.cpu_experts.topology import read_topology
from hybrid.doctor import gpus, kernels, model, software, speed, system
from hybrid.doctor.check import Check, bad
from hybrid.errors import KernelError, PlacementError
from hybrid.hardware import HERE, K25, Hardware, ModelSizes, Rates, Roots, describe
from hybrid.hardware.devices import driver_version, has_driver, nvidia_slots
from hybrid.placement import Plan, PlanOptions, plan

Sink = Callable[[str], None]


def examine(
    model_dir: Path | None = None, *, deep: bool = False, sink: Sink = lambda _: None
) -> list[Check]:
    """Look at this machine, and at a model on it; `deep` also measures, which takes some seconds.

    `sink` is told what is being looked at. Nothing raises for what a check can say.
    """
    sink("software")
    checks = [software.python(), software.packages(), *_kernels()]
    sink("model")
    hardware = describe(model_dir)
    first, opened = model.checkpoint(model_dir)
    planned = _planned(opened, hardware)
    checks += _system(HERE, hardware, planned)
    sink("GPU")
    checks += _gpu()
    checks += [first, *_model(opened, hardware, planned)]
    sizes = ModelSizes.of(opened.config.text) if opened else K25
    try:
        rates = _measured(sizes, model_dir, sink) if deep else Rates()
    except (PlacementError, KernelError) as error:
        return [*checks, bad("speed", str(error), speed.AGAIN)]
    return checks + _speed(rates, hardware, sizes, _from_file(planned))


def _kernels() -> list[Check]:
    from hybrid.cpu_experts import available_isas

    x86 = platform.machine() in ("x86_64", "AMD64")
    return [
        kernels.kernel_set(available_isas()[-1], x86, selfcheck.verify),
        kernels.kernel_files_kept(kernel_files.read, kernel_files.write),
    ]


def _system(roots: Roots, hardware: Hardware, planned: Plan | None) -> list[Check]:
    topology = read_topology(roots.system / "devices/system", roots.system / "fs/cgroup")
    wanted = None if planned is None else model.in_ram(planned)
    return [
        system.cores(topology, hardware.cpu.threads_per_core),
        system.numa(topology, roots),
        system.huge_pages(hardware.ram.huge_pages),
        system.swap(roots, wanted, hardware.ram.total_bytes),
    ]


def _gpu(roots: Roots = HERE) -> list[Check]:
    slots, loaded, version = nvidia_slots(roots.system), has_driver(roots), driver_version(roots)
    torch = gpus.ask_torch() if loaded else None
    return [
        gpus.driver(slots, loaded, version),
        gpus.torch_match(torch, loaded, version),
        gpus.links(slots),
    ]


def _planned(opened: model.Opened | None, hardware: Hardware) -> Plan | None:
    if opened is None:
        return None
    context = min(PlanOptions().context, opened.config.text.max_position_embeddings)
    return plan(opened.config, hardware, PlanOptions(context=context), opened.inventory)


def _model(opened: model.Opened | None, hardware: Hardware, planned: Plan | None) -> list[Check]:
    from_file = _from_file(planned)
    return [
        model.memory(planned),
        model.prepared(opened, from_file, hardware.disk),
        model.direct_reads(hardware.disk, from_file),
    ]


def _from_file(planned: Plan | None) -> bool:
    return planned is not None and planned.expert_slots_per_layer["nvme"] > 0


def _measured(sizes: ModelSizes, model_dir: Path | None, sink: Sink) -> Rates:
    from hybrid.calibration import calibrate

    return calibrate(sizes, model_dir=model_dir, sink=sink)


def _speed(rates: Rates, hardware: Hardware, sizes: ModelSizes, from_file: bool) -> list[Check]:
    return [
        speed.memory_bandwidth(rates, hardware.ram),
        speed.kernel_bandwidth(rates, sizes.hidden_size),
        speed.disk_speed(rates, from_file, rates.measured),
    ]
