"""A machine in numbers, as data classes and as JSON that anybody may have written.

    {"name": "...", "note": "where the numbers come from",
     "cpu": {"isa": "avx512vnni", "cores": 64, ...}, "ram": {"total_bytes": 1.2e12, ...},
     "gpus": [{"name": "...", "vram_bytes": ...}], "disk": {...}, "rates": {"ram_gb_s": 900, ...}}

Every key may be absent or null: unknown. An unknown key, a wrong type and a number that no machine
has are refused with one line that names the key. Bytes are whole numbers (1.2e12 is one), GB are
10^9 bytes.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

from hybrid.config_section import Section
from hybrid.errors import ConfigError
from hybrid.model_files import MAX_SHOWN, shown

MAX_TEXT = 4000  # characters of a note; names are shorter
MAX_GPUS = 64
MOST_BYTES = 1 << 60
Part = TypeVar("Part", "Cpu", "Ram", "Gpu", "Disk", "Rates")


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a value from a file may be: a number of a range, or a text up to a length."""

    kind: type  # int, float, str or bool
    low: float = 0
    high: float = 0


def _whole(low: int, high: int) -> Any:
    return field(default=None, metadata={"bounds": Bounds(int, low, high)})


def _bytes() -> Any:
    return _whole(0, MOST_BYTES)


def _real(low: float, high: float) -> Any:
    return field(default=None, metadata={"bounds": Bounds(float, low, high)})


def _rate() -> Any:
    return _real(1e-6, 1e9)


def _seconds() -> Any:
    return _real(0.0, 1e4)


def _text(default: str | None = None) -> Any:
    return field(default=default, metadata={"bounds": Bounds(str, 0, 200)})


def _flag(default: bool | None = None) -> Any:
    return field(default=default, metadata={"bounds": Bounds(bool)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    """All sockets together, as far as this process may use them."""

    name: str | None = _text()
    isa: str | None = _text()  # of the kernels it would run: portable, avx2, ... amx
    cores: int | None = _whole(1, 1 << 16)  # physical
    threads_per_core: int | None = _whole(1, 16)
    nodes: int | None = _whole(1, 1024)  # with memory of their own (NUMA)
    l2_bytes: int | None = _bytes()  # of all cores
    l3_bytes: int | None = _bytes()  # of all its parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Ram:
    """The host's memory."""

    total_bytes: int | None = _bytes()
    free_bytes: int | None = _bytes()  # what this process may still take
    limit_bytes: int | None = _bytes()  # of the tightest control group; None: no limit
    huge_pages: str | None = _text()  # transparent ones: always, madvise, never
    peak_gb_s: float | None = _rate()  # what the DIMMs promise


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One device."""

    name: str | None = _text()
    vram_bytes: int | None = _bytes()
    free_bytes: int | None = _bytes()
    capability: str | None = _text()  # "8.9"
    pcie_gen: int | None = _whole(1, 16)  # of the slot as it is wired, not as it idles
    pcie_width: int | None = _whole(1, 64)
    peak_gb_s: float | None = _rate()  # what its memory promises
    driver: str | None = _text()


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """The file system that holds the model."""

    total_bytes: int | None = _bytes()
    free_bytes: int | None = _bytes()
    direct: bool | None = _flag()  # whether it reads past the page cache
    peak_gb_s: float | None = _rate()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """How fast the parts are: GB/s of 10^9 bytes, GFLOP/s with two for a multiply-add, seconds."""

    ram_gb_s: float | None = _rate()  # a plain read by all nodes at once
    node_ram_gb_s: float | None = _rate()  # the same by the slowest node of its own memory
    experts_gb_s: float | None = _rate()  # expert kernel, one token
    experts_gflop_s: float | None = _rate()  # expert kernel, a prompt
    backbone_gb_s: float | None = _rate()  # attention, shared expert, head on the CPU, one token
    backbone_gflop_s: float | None = _rate()  # the same, a prompt
    backbone_int8_gb_s: float | None = _rate()  # with int8 weights, GB/s of these
    backbone_int8_gflop_s: float | None = _rate()
    link_gb_s: float | None = _rate()  # host to device
    device_gb_s: float | None = _rate()  # VRAM read
    device_gflop_s: float | None = _rate()  # bf16 matrix products
    disk_gb_s: float | None = _rate()  # whole records, several at once
    disk_record_s: float | None = _seconds()  # one record alone
    sync_s: float | None = _seconds()  # one hand-off between CPU and device
    step_s: float | None = _seconds()  # Python and waking threads, per layer of a token
    experts_gb_s_while_reading: float | None = _rate()  # both at once: experts and disk
    disk_gb_s_while_computing: float | None = _rate()
    measured: bool = _flag(False)  # on the machine itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """A machine."""

    name: str = "this machine"
    cpu: Cpu = Cpu()
    ram: Ram = Ram()
    gpus: tuple[Gpu, ...] = ()
    disk: Disk | None = None
    rates: Rates = Rates()
    note: str = ""  # where the numbers come from

    @classmethod
    def from_json(cls, values: object, where: str = "hardware") -> "Hardware":
        """Read a description; `where` names it in errors. Raises ConfigError in one line."""
        if not isinstance(values, Mapping):
            raise ConfigError(f"{where} is {shown(values)}; expected a JSON object")
        top = Section(values, "", where)
        _refuse_others(top, {each.name for each in fields(cls)})
        disk = _part(Disk, top, "disk") if top.has("disk") else None
        return cls(
            name=_short(top, "name", MAX_SHOWN) or "unnamed machine",
            cpu=_part(Cpu, top, "cpu"),
            ram=_part(Ram, top, "ram"),
            gpus=_gpus(top),
            disk=disk,
            rates=_part(Rates, top, "rates"),
            note=_short(top, "note", MAX_TEXT) or "",
        )

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads: dictionaries, lists, numbers, text and None."""
        return asdict(self) | {"gpus": [asdict(gpu) for gpu in self.gpus]}


def rates_from_json(values: object, where: str = "rates") -> Rates:
    """Read rates alone. Raises ConfigError in one line."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where} is {shown(values)}; expected a JSON object")
    return _read(Rates, Section(values, "", where))


def _part(kind: type[Part], top: Section, key: str) -> Part:
    return _read(kind, top.section(key)) if top.has(key) else kind()


def _gpus(top: Section) -> tuple[Gpu, ...]:
    if not top.has("gpus"):
        return ()
    listed = top.values["gpus"]
    if not isinstance(listed, list | tuple) or len(listed) > MAX_GPUS:
        raise top.refuse("gpus", f"expected a list of at most {MAX_GPUS} objects")
    devices = {f"gpus[{index}]": each for index, each in enumerate(listed)}
    return tuple(_read(Gpu, Section(devices, "", top.file).section(key)) for key in devices)


def _read(kind: type[Part], section: Section) -> Part:
    """One part: every field by its bounds, absent ones at their default."""
    known = {each.name: each.metadata["bounds"] for each in fields(kind)}
    _refuse_others(section, set(known))
    present = (name for name in known if section.has(name))
    return kind(**{name: _value(section, name, known[name]) for name in present})


def _value(section: Section, key: str, bounds: Bounds) -> Any:
    if bounds.kind is bool:
        return section.flag(key)
    if bounds.kind is str:
        return _short(section, key, int(bounds.high))
    number = section.real(key, bounds.low, bounds.high)
    if bounds.kind is float:
        return number
    if not number.is_integer():
        raise section.refuse(key, "expected a whole number")
    return int(section.values[key])


def _short(section: Section, key: str, limit: int) -> str | None:
    """A text without control characters, at most `limit` long; None if absent."""
    value = section.values.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > limit or not value.isprintable():
        raise section.refuse(key, f"expected printable text of at most {limit} characters")
    return value


def _refuse_others(section: Section, known: set[str]) -> None:
    for key in section.values:
        if key not in known:
            name = f"{section.path}.{key}" if section.path else key
            raise ConfigError(
                f"{section.file}: {shown(name)} is no part of a description; "
                f"the keys here are {', '.join(sorted(known))}"
            )
