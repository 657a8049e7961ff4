"""Which kernel runs: decided once, by what this CPU can execute and by what was asked for."""

from collections.abc import Callable
from functools import partial
from typing import Any

from hybrid.cpu_experts import forward as driver
from hybrid.cpu_experts import isas, kernel, machine_code, numerics, phase, portable, repack
from hybrid.cpu_experts.compiled import callback, once
from hybrid.cpu_experts.job import KERNEL, ROWS16
from hybrid.cpu_experts.rows import direct
from hybrid.cpu_experts.rows.modes import BF16, MODES, Name
from hybrid.errors import ConfigError
from hybrid.progress import Progress, ProgressSink, ignore

PORTABLE = "portable"
NEVER = 1 << 62
_ENCODE = {
    "int8": numerics.encode_int8,
    "int16": numerics.encode_int16,
    "bf16": numerics.encode_bf16,
}


def available_isas() -> tuple[str, ...]:
    """Instruction sets that this host can execute, slowest first."""
    return (PORTABLE, *(isas.executable() if machine_code.supported() else ()))


def select(isa: str | None) -> str:
    """The instruction set to use: the fastest one, or the one asked for."""
    if isa is None or isa == "auto":
        return available_isas()[-1]
    if isa not in available_isas():
        raise ConfigError(f"isa is {isa!r}; this machine has {', '.join(available_isas())}")
    return isa


def select_mode(activation: str) -> Name:
    """The activation mode to use; "auto" is int8."""
    name = "int8" if activation == "auto" else activation
    if name not in MODES:
        raise ConfigError(f"activation is {activation!r}; the modes are auto, {', '.join(MODES)}")
    return MODES[name].name


def panels_from(mode: Name) -> int:
    """Rows of one expert from which on they are laid out group by group (job.py)."""
    return NEVER if MODES[mode] is BF16 else direct.MAX_ROWS + 1


def biased(isa: str, mode: Name) -> bool:
    """Whether the codes of such rows are to be unsigned, + 128 (rows/expanded.py)."""
    return isa != PORTABLE and isas.ISAS[isa].many.biased and MODES[mode] is not BF16


@once
def compiled_kernel(mode: Name) -> Any:
    """The C function kernel(job, unit, worker) of an activation mode, for every instruction set."""
    return callback(f"kernel-{mode}", KERNEL, kernel.build(_ENCODE[mode], MODES[mode].planes))


@once
def rows16(isa: str, mode: Name) -> int:
    """Address of the C function rows16(...) of an instruction set."""
    if isa != PORTABLE:
        return machine_code.rows16(isa, mode)
    return int(_portable(mode).address)


@once
def _portable(mode: Name) -> Any:
    return callback(f"rows16-portable-{mode}", ROWS16, portable.ROWS16[mode])


def warm_up(
    isa: str | None = None, activation: str = "auto", progress: ProgressSink = ignore
) -> None:
    """Compile, or read from disk, everything a layer needs; reports each function."""
    name, mode = select(isa), select_mode(activation)
    steps: list[Callable[[], Any]] = [
        repack.repack,
        driver.forward,
        phase.lead,
        phase.work_loop,
        phase.stop_workers,
        partial(compiled_kernel, mode),
        *(partial(rows16, each, mode) for each in dict.fromkeys((PORTABLE, name))),
    ]
    progress(Progress("kernels", 0, len(steps), "kernels"))
    for done, step in enumerate(steps, 1):
        step()
        progress(Progress("kernels", done, len(steps), "kernels"))
