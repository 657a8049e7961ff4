"""Measured rates on disk, beside the compiled kernels, so that a machine is measured once.

    rates-<isa>-<threads>-...  what CPU, RAM and GPUs do     key: the machine, the package's sources
    disk-rates-<device>        what one file system does     key: the same, and its device number

A key holds whatever may change the numbers: homes are shared by machines and outlive their parts.
"""

import json
import os
import stat
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from hybrid.errors import ConfigError
from hybrid.hardware.description import Rates, rates_from_json
from hybrid.hardware.devices import driver_version, nvidia_slots
from hybrid.hardware.model_sizes import K25, ModelSizes
from hybrid.hardware.processor import read_cpu
from hybrid.hardware.roots import HERE
from hybrid.model_files import parse_json_object

GIB = 1 << 30
DISK = ("disk_gb_s", "disk_record_s", "experts_gb_s_while_reading", "disk_gb_s_while_computing")
MOST = 1 << 16  # bytes of a file of rates


@dataclass(frozen=True, slots=True)
class RatesOf:
    """What rates depend on beside the machine."""

    isa: str
    threads: int
    activation: str
    sizes: ModelSizes = K25

    @property
    def label(self) -> str:
        """For the name of a file."""
        sizes = self.sizes
        return f"{self.isa}-{self.threads}-{sizes.hidden_size}x{sizes.moe_intermediate_size}"


def asked(
    threads: int | None = None,
    isa: str | None = None,
    activation: str = "auto",
    sizes: ModelSizes = K25,
) -> RatesOf:
    """With every "auto" replaced by what a model would be loaded with."""
    from hybrid.cpu_experts import auto_mode, dispatch
    from hybrid.cpu_experts.cores import available_cores

    name, count = dispatch.select(isa), threads or available_cores()
    return RatesOf(name, count, auto_mode.resolve(activation, name, count), sizes)


def known_rates(what: RatesOf, model_dir: Path | None = None) -> Rates:
    """What was measured here before; unknown where nothing was."""
    rates = _read(f"rates-{what.label}", _key(what)) or Rates()
    device = None if model_dir is None else _device(model_dir)
    if device is None:
        return rates
    disk = _read(f"disk-rates-{device}", (*_key(what), device)) or Rates()
    return replace(rates, **_some(disk, DISK))


def keep(rates: Rates, what: RatesOf, model_dir: Path | None = None) -> None:
    """Write them where `known_rates` looks; those of the disk by themselves."""
    others = [each.name for each in fields(Rates) if each.name not in DISK]
    _write(f"rates-{what.label}", _key(what), _some(rates, others))
    device = None if model_dir is None else _device(model_dir)
    disk = _some(rates, DISK)
    if device is not None and disk:
        _write(f"disk-rates-{device}", (*_key(what), device), disk | {"measured": True})


def _some(rates: Rates, names: list[str] | tuple[str, ...]) -> dict[str, Any]:
    values = ((name, getattr(rates, name)) for name in names)
    return {name: value for name, value in values if value is not None}


def _key(what: RatesOf) -> tuple[object, ...]:
    """The machine as far as it decides its speed, and our own code."""
    import psutil

    from hybrid import cpu_dense
    from hybrid.cpu_experts.kernel_files import digest

    cpu = read_cpu()
    gpus = [(slot.bus, slot.generation, slot.width) for slot in nvidia_slots(HERE.system)]
    ram = int(psutil.virtual_memory().total) // GIB
    sources = digest(Path(str(cpu_dense.__file__)).parent)
    return ("rates", what, cpu, ram, gpus, driver_version(), sources)


def _device(directory: Path) -> int | None:
    """The number of the file system that a directory is on."""
    try:
        status = os.stat(directory)  # noqa: PTH116 - beside the test of its mode
    except OSError:
        return None
    return status.st_dev if stat.S_ISDIR(status.st_mode) else None


def _read(name: str, key: object) -> Rates | None:
    """None for what is not there or not what was written."""
    from hybrid.cpu_experts import kernel_files

    content = kernel_files.read(name, key)
    if content is None or len(content) > MOST:
        return None
    try:
        return rates_from_json(parse_json_object(content, name, ConfigError), name)
    except ConfigError:  # another version of this file
        return None


def _write(name: str, key: object, values: dict[str, Any]) -> None:
    from hybrid.cpu_experts import kernel_files

    kernel_files.write(name, key, json.dumps(values).encode())
