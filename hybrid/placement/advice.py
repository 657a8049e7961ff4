"""What limits a plan, in one line with its number, and what would make it fit or go faster.

Each piece of advice about memory is tried before it is given: the plan is made again with it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from hybrid.cache.card_room import RING
from hybrid.config import ModelConfig
from hybrid.hardware import Hardware
from hybrid.placement.hits import Hits
from hybrid.placement.needs import Needs
from hybrid.placement.options import PlanOptions
from hybrid.placement.rates import Speeds
from hybrid.placement.share import Shares

GB = 1e9


@dataclass(frozen=True, slots=True)
class Found:
    """One way to lay out a model, with its speed."""

    config: ModelConfig
    hardware: Hardware
    options: PlanOptions  # resolved: no "auto" is left
    model: Needs
    share: Shares
    speeds: Speeds
    hits: Hits
    seconds: dict[str, float]  # of a token, by part

    @property
    def fits(self) -> bool:
        """Whether the loader would accept it."""
        return self.share.fits

    @property
    def tokens_per_second(self) -> float:
        """Of an answer's first tokens; 0 if it does not fit."""
        return 1 / sum(self.seconds.values()) if self.fits else 0.0


Retry = Callable[[PlanOptions], Found]


def bottleneck(found: Found) -> str:
    """The part of a token that takes longest, or what is missing."""
    if not found.fits:
        tier, nbytes = max(found.share.missing.items(), key=lambda item: item[1])
        return f"{tier.upper()}: {nbytes / GB:,.1f} GB short"
    groups = _groups(found)
    name = max(groups, key=lambda key: groups[key][0])
    seconds, what = groups[name]
    part = 100 * seconds / sum(found.seconds.values())
    return f"{name}: {what}, {seconds * 1e3:,.1f} ms or {part:.0f} % of a token"


def _groups(found: Found) -> dict[str, tuple[float, str]]:
    """Seconds by what is busy, and of what."""
    part, model, speeds = found.seconds, found.model, found.speeds
    cuda = found.share.device == "cuda"
    experts = model.token_experts_bytes / GB
    missed = found.hits.nvme * experts
    names = ("attention", "norms", "router", "dense", "head", "shared")
    backbone = model.token_bytes(*names) / GB
    rate = speeds.device_gb_s if cuda else speeds.backbone_gb_s
    memory, dense = part["experts"], sum(part[n] for n in part if n in (*names, "cache"))
    groups = {
        "disk": (
            part["experts_file"],
            f"{missed:,.2f} GB of experts a token at {speeds.disk_gb_s:,.1f} GB/s",
        ),
        "overhead": (
            part["step"] + part.get("sync", 0.0) + part.get("link", 0.0),
            f"{model.layers} layers a token",
        ),
    }
    in_ram = f"{experts * (1 - found.hits.vram):,.1f} GB of experts"
    if cuda:
        dense += part["experts_device"]
        groups["GPU"] = (dense, f"{backbone:,.1f} GB of backbone a token at {rate:,.0f} GB/s")
        groups["RAM"] = (memory, f"{in_ram} a token at {speeds.experts_gb_s:,.0f} GB/s")
    else:
        both = (experts + backbone) / (memory + dense) / GB
        text = f"{in_ram} and {backbone:,.1f} GB of backbone a token at {both * GB:,.0f} GB/s"
        groups["RAM"] = (memory + dense, text)
    return groups


def advice(found: Found, retry: Retry) -> Iterator[str]:
    """Lines that say what to change, most useful first."""
    yield from _to_fit(found, retry) if not found.fits else _to_speed(found, retry)
    yield from _remarks(found)


def _to_fit(found: Found, retry: Retry) -> Iterator[str]:
    tried = 0
    for text, changed in _ways(found):
        other = retry(changed)
        if other.fits:
            tried += 1
            yield f"it fits with {text}: {other.tokens_per_second:.2f} tokens/s"
    for tier, nbytes in found.share.missing.items():
        where = "VRAM" if tier == "vram" else "RAM"
        alone = "" if tried else "less context, int8 and no vision are not enough: "
        yield f"{alone}{nbytes / GB:,.1f} GB more of free {where} would do"


def _ways(found: Found) -> Iterator[tuple[str, PlanOptions]]:
    """What might fit: one change at a time, then all that do not change the device."""
    options = found.options
    if context := _fitting_context(found):
        yield f"--context {context}", replace(options, context=context)
    if options.users > 1:
        yield "--users 1", replace(options, users=1)
    if options.backbone_weights == "bf16":
        changed = replace(options, backbone_weights="int8")
        if found.share.device == "cuda":
            yield "--backbone-weights int8", changed
        yield "--backbone-weights int8 --device cpu", replace(changed, device="cpu")
    if "vision" in found.model.backbone:
        yield "--no-vision", replace(options, vision=False)
    if found.share.device == "cuda":
        yield "--device cpu", replace(options, device="cpu")
    if options.ram_budget or options.vram_budget:
        yield (
            "no --ram-budget or --vram-budget",
            replace(options, ram_budget=None, vram_budget=None),
        )
    least = replace(
        options, backbone_weights="int8", device="cpu", vision=False, context=1024, users=1,
        ram_budget=None, vram_budget=None,
    )  # fmt: skip
    yield "--backbone-weights int8 --device cpu --no-vision --context 1024 together", least


def _fitting_context(found: Found) -> int:
    """The most tokens a user that would fit, in steps of 1,024; 0 if none."""
    tier = "vram" if found.share.device == "cuda" else "ram"
    if set(found.share.missing) != {tier}:
        return 0
    options, per_token = found.options, max(1, found.model.kv_token_bytes)
    over = -(-found.share.missing[tier] // per_token)
    tokens = (options.context * options.users - over) // options.users
    return max(0, tokens // 1024 * 1024)


def _to_speed(found: Found, retry: Retry) -> Iterator[str]:
    share, model = found.share, found.model
    if share.slots.from_file:
        rest = share.table["routed"]["nvme"]
        yield (
            f"{rest / GB:,.0f} GB of experts are read from the disk when they are asked for; with "
            f"{_short_of_all(found) / GB:,.0f} GB more of free RAM none would be"
        )
        yield from _prepare(found)
    if found.options.backbone_weights == "bf16" and share.device == "cpu":
        other = retry(replace(found.options, backbone_weights="int8"))
        if other.tokens_per_second > 1.02 * found.tokens_per_second:
            yield f"--backbone-weights int8: {other.tokens_per_second:.2f} tokens/s"
    if share.device == "cpu" and found.hardware.gpus:
        yield from _to_gpu(found, retry)
    if share.scratch_short and model.records:
        safe = max(0, share.table["routed"]["ram"] - share.scratch_short - 2 * model.slot_bytes)
        yield (
            f"{share.scratch_short / GB:,.1f} GB of scratch may not find room; "
            f"--ram-budget {safe // 10**9}GB leaves it some"
        )


def _to_gpu(found: Found, retry: Retry) -> Iterator[str]:
    """Why the GPU is not used, and what would let it."""
    options = replace(found.options, device="cuda")
    gpu = retry(options)
    if gpu.fits:
        if gpu.tokens_per_second < found.tokens_per_second:
            yield "load with --device cpu: on this GPU it would be slower"
        return
    lack = gpu.share.missing.get("vram", 0)
    yield (
        f"load with --device cpu: the GPU lacks {lack / GB:,.1f} GB of VRAM for the backbone in "
        f"{options.backbone_weights}"
    )
    if options.backbone_weights == "bf16":
        other = retry(replace(options, backbone_weights="int8"))
        if other.tokens_per_second > found.tokens_per_second:
            rate = other.tokens_per_second
            yield f"on the GPU with --backbone-weights int8: {rate:.2f} tokens/s"
    ways = [("--no-vision", replace(options, vision=False))]
    if context := _fitting_context(gpu):
        ways.append((f"--context {context}", replace(options, context=context)))
    both = replace(options, vision=False, context=min(options.context, 4096), users=1)
    told = False
    for text, changed in (*ways, (f"--no-vision --context {both.context}", both)):
        other = retry(changed)
        if other.tokens_per_second > found.tokens_per_second and not (told and changed is both):
            told = True
            yield f"on the GPU with {text}: {other.tokens_per_second:.2f} tokens/s"


def _short_of_all(found: Found) -> int:
    """Bytes of RAM that would let every record stay in memory."""
    share, model = found.share, found.model
    held = share.slots.ram + (share.slots.device if share.device == "cuda" else 0)
    return max(0, model.records - held) * model.slot_bytes


def _prepare(found: Found) -> Iterator[str]:
    """What `kimi-local prepare` needs, where experts come from the file."""
    size, disk = found.model.routed_bytes, found.hardware.disk
    text = f"`kimi-local prepare` makes such reads faster; it takes {size / GB:,.0f} GB of disk"
    if disk and disk.free_bytes is not None and disk.free_bytes < size:
        text += f", and {disk.free_bytes / GB:,.0f} GB are free"
    yield text


def _remarks(found: Found) -> Iterator[str]:
    """What the runtime does not do with this machine."""
    options = found.options
    if found.share.device == "cuda":
        yield from _of_cards(found)
    if options.users > 1:
        yield (
            f"one conversation at a time is computed; the cache holds those of {options.users}, "
            "who wait for each other"
        )


def _of_cards(found: Found) -> Iterator[str]:
    """Which memory of the GPUs stays empty, and why."""
    share, options = found.share, found.options
    without = sum("working_slots" not in row for row in share.cards)
    if without and found.fits and found.model.records:
        yield (
            f"{without} of {len(share.cards)} GPUs have no room for experts beside a ring of "
            f"{RING} and the rows of a prompt: the CPU computes what they could"
        )
    held = share.slots.device * found.model.record_bytes
    if options.vram_budget and held + found.model.record_bytes <= options.vram_budget:
        yield f"--vram-budget finds room for {held / GB:,.1f} GB of experts only"
