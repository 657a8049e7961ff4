"""Which kernel runs: decided once, by what this CPU can execute and by what was asked for."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal

from hybrid.cpu_experts import avx2, kernel, numerics, pool, portable, repack
from hybrid.cpu_experts import forward as driver
from hybrid.cpu_experts.compiled import callback, once
from hybrid.cpu_experts.job import KERNEL, ROWS16
from hybrid.cpu_experts.simd import host_features
from hybrid.errors import ConfigError
from hybrid.progress import Progress, ProgressSink, ignore

Mode = Literal["int8", "bf16"]


@dataclass(frozen=True, slots=True)
class _Isa:
    features: frozenset[str]  # CPUID features without which it must not even be compiled
    rows16: dict[str, Any]  # one for each activation mode


_ISAS = {  # slowest first
    "portable": _Isa(frozenset(), {"int8": portable.rows16_int8, "bf16": portable.rows16_bf16}),
    "avx2": _Isa(frozenset({"avx2"}), {"int8": avx2.rows16_int8, "bf16": avx2.rows16_bf16}),
}
_ENCODE = {"int8": numerics.encode_int8, "bf16": numerics.encode_bf16}
GROUP_BYTES = {"int8": numerics.INT8_GROUP_BYTES, "bf16": numerics.BF16_GROUP_BYTES}


@cache
def available_isas() -> tuple[str, ...]:
    """Instruction sets that this host can execute, slowest first."""
    return tuple(name for name, isa in _ISAS.items() if isa.features <= host_features())


def select(isa: str | None) -> str:
    """The instruction set to use: the fastest one, or the one asked for."""
    if isa is None or isa == "auto":
        return available_isas()[-1]
    if isa not in available_isas():
        raise ConfigError(f"isa is {isa!r}; this machine has {', '.join(available_isas())}")
    return isa


def select_mode(activation: str) -> Mode:
    """The activation mode to use; "auto" is int8."""
    if activation in ("auto", "int8"):
        return "int8"
    if activation == "bf16":
        return "bf16"
    raise ConfigError(f"activation is {activation!r}; the modes are auto, int8 and bf16")


@once
def compiled_kernel(mode: Mode) -> Any:
    """The C function kernel(job, unit, worker) of an activation mode, for every instruction set."""
    return callback(f"kernel-{mode}", KERNEL, kernel.build(_ENCODE[mode]))


@once
def compiled_rows16(isa: str, mode: Mode) -> Any:
    """The C function rows16(...) of an instruction set."""
    return callback(f"rows16-{isa}-{mode}", ROWS16, _ISAS[isa].rows16[mode])


def warm_up(
    isa: str | None = None, activation: str = "auto", progress: ProgressSink = ignore
) -> None:
    """Compile, or read from disk, everything a layer needs; reports each function."""
    name, mode = select(isa), select_mode(activation)
    steps: list[Callable[[], Any]] = [
        repack.repack,
        driver.forward,
        pool.work_loop,
        partial(compiled_kernel, mode),
        *(partial(compiled_rows16, each, mode) for each in dict.fromkeys(("portable", name))),
    ]
    progress(Progress("kernels", 0, len(steps), "kernels"))
    for done, step in enumerate(steps, 1):
        step()
        progress(Progress("kernels", done, len(steps), "kernels"))
