"""What this machine consists of, asked of the kernel and, where a driver is loaded, of torch."""

from dataclasses import replace
from pathlib import Path

from hybrid.hardware.description import Hardware
from hybrid.hardware.devices import read_gpus
from hybrid.hardware.host_memory import read_ram
from hybrid.hardware.model_sizes import K25, ModelSizes
from hybrid.hardware.processor import read_cpu
from hybrid.hardware.roots import HERE, Roots
from hybrid.hardware.volume import read_disk


def describe(model_dir: Path | None = None, roots: Roots = HERE) -> Hardware:
    """This machine, or the one whose kernel's trees are `roots`, without any rate.

    `model_dir`: the directory whose file system is the disk.
    """
    return Hardware(
        cpu=read_cpu(roots),
        ram=read_ram(roots),
        gpus=read_gpus(roots),
        disk=None if model_dir is None else read_disk(model_dir),
    )


def probe(
    model_dir: Path | None = None,
    *,
    threads: int | None = None,
    isa: str | None = None,
    activation: str = "auto",
    sizes: ModelSizes = K25,
) -> Hardware:
    """This machine with the rates that a calibration kept for these options, if there was one.

    hybrid.calibration measures; here nothing is but the two modes of "auto", once on a machine.
    """
    from hybrid.hardware.kept_rates import asked, known_rates

    rates = known_rates(asked(threads, isa, activation, sizes), model_dir)
    return replace(describe(model_dir), rates=rates)
