"""The plan: bytes, slots, speeds, what limits them and what would help; from arithmetic alone."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from hybrid.config import ModelConfig
from hybrid.errors import ConfigError
from hybrid.hardware import Hardware
from hybrid.inventory import Inventory
from hybrid.placement.advice import Found, advice, bottleneck
from hybrid.placement.hits import Hits, hits
from hybrid.placement.needs import Needs, needs
from hybrid.placement.options import PlanOptions
from hybrid.placement.potential import potential
from hybrid.placement.rates import Speeds, speeds
from hybrid.placement.share import Shares, shares
from hybrid.placement.speed import decode, load, prefill

PROMPTS = (512, 2048, 8192, 32768)
DEPTHS = (8192, 32768, 131072)


@dataclass(frozen=True, slots=True)
class Plan:
    """What the runtime does on a machine. Speeds are 0 where the model does not fit."""

    fits: bool
    machine: str
    measured: bool  # whether the rates were measured on the machine
    assumed: tuple[str, ...]  # rates that were not
    settings: dict[str, Any]  # what to load the model with
    bytes: dict[str, dict[str, int]]  # component -> tier -> bytes
    expert_slots_per_layer: dict[str, int]  # vram, ram, nvme (the rest)
    hits: Hits
    seconds: dict[str, float]  # of one token, by part
    decode_tok_s: float  # of the first tokens
    decode_tok_s_at: dict[str, float]  # after so many tokens
    decode_tok_s_uniform: float  # if experts were asked for at random
    prefill_tok_s: dict[str, float]  # by tokens of the prompt
    load_s: float
    bottleneck: str
    advice: tuple[str, ...]
    potential: dict[str, Any] | None  # what experts on the GPU would give; not in the runtime yet
    parts: tuple[Needs, Shares, Speeds]  # for whoever wants to predict something else

    def decode_parts(self, depth: int = 0, found: Hits | None = None) -> dict[str, float]:
        """Seconds of one token after `depth` tokens, by part; `found`: hits as measured."""
        model, share, rates = self.parts
        return decode(model, rates, found or self.hits, share.device, depth)

    def prefill_parts(self, tokens: int) -> dict[str, float]:
        """Seconds of a prompt by part."""
        model, share, rates = self.parts
        return prefill(model, rates, _resident(model, share), share.device, tokens)

    def prefill_seconds(self, tokens: int) -> float:
        """Seconds of a prompt."""
        return sum(self.prefill_parts(tokens).values())

    def to_json(self) -> dict[str, Any]:
        """The contract's keys (design §6), and more."""
        own = {name: getattr(self, name) for name in self.__slots__ if name != "parts"}
        tiers = {name: round(getattr(self.hits, name), 6) for name in self.hits.__slots__}
        return own | {
            "assumed": list(self.assumed),
            "advice": list(self.advice),
            "hits": tiers,
            "seconds": {name: round(value, 9) for name, value in self.seconds.items()},
        }


def plan(
    config: ModelConfig,
    hardware: Hardware,
    options: PlanOptions | None = None,
    inventory: Inventory | None = None,
) -> Plan:
    """Lay out a model on a machine and predict its speed.

    `inventory` is that of a checkpoint, if it is there; else the published form is taken. A plan
    that does not fit says why; ConfigError is for what no machine could do.
    """
    options, limit = options or PlanOptions(), config.text.max_position_embeddings
    if options.context > limit:
        raise ConfigError(f"context is {options.context}; this model allows at most {limit}")
    if options.device == "cuda" and options.backbone_weights == "int8":
        raise ConfigError(
            "backbone_weights is 'int8', which only the CPU has; use bf16 or auto on a GPU"
        )
    found = _best(config, hardware, options, inventory)
    told = advice(found, lambda changed: _best(config, hardware, changed, inventory))
    return _described(found, tuple(told))


def _best(
    config: ModelConfig, hardware: Hardware, options: PlanOptions, inventory: Inventory | None
) -> Found:
    """The way that fits and is fastest; of several that do not, the one that lacks least.

    bf16 goes before int8 where both are allowed: it is what the model was trained with.
    """
    weights = options.backbone_weights
    ways = ("bf16", "int8") if weights == "auto" else (weights,)
    if options.device == "cuda":
        ways = ("bf16",)
    tried: list[Found] = []
    for kind in ways:
        asked = replace(options, backbone_weights=kind)
        each = [
            _try(config, hardware, replace(asked, device=device), inventory)
            for device in _devices(hardware, asked)
        ]
        if any(found.fits for found in each):
            return max(each, key=lambda found: found.tokens_per_second)
        tried += each
    return min(tried, key=lambda found: sum(found.share.missing.values()))


def _devices(hardware: Hardware, options: PlanOptions) -> tuple[str, ...]:
    """Where the backbone may be; only the CPU has it in int8 (docs/limits.md)."""
    if options.device != "auto":
        return (options.device,)
    can = hardware.gpus and options.backbone_weights == "bf16"
    return ("cuda", "cpu") if can else ("cpu",)


def _try(
    config: ModelConfig, hardware: Hardware, options: PlanOptions, inventory: Inventory | None
) -> Found:
    vision = options.vision and config.vision is not None
    model = needs(config, weights=options.backbone_weights, vision=vision, inventory=inventory)
    share = shares(model, hardware, options, options.device)
    rates = speeds(
        hardware,
        record_bytes=model.record_bytes,
        weights=options.backbone_weights,
        threads=options.threads,
    )
    where = _hits(model, share, options.routing)
    seconds = decode(model, rates, where, share.device)
    return Found(config, hardware, options, model, share, rates, where, seconds)


def _hits(model: Needs, share: Shares, routing: str) -> Hits:
    """A second share of RAM is RAM: without a device its experts are in no other memory."""
    found = hits(model.records, 0, _held(model, share), routing)
    return Hits(0.0, found.vram + found.ram, found.nvme)


def _held(model: Needs, share: Shares) -> int:
    """Records in memory, whichever."""
    return min(model.records, share.slots.resident + share.slots.device)


def _resident(model: Needs, share: Shares) -> float:
    return _held(model, share) / model.records if model.records else 1.0


def _described(found: Found, told: tuple[str, ...]) -> Plan:
    model, share, rates = found.model, found.share, found.speeds
    on = float(found.fits)
    context = found.options.context

    def token_rate(where: Hits, depth: int) -> float:
        return round(on / sum(decode(model, rates, where, share.device, depth).values()), 4)

    def prompt_rate(tokens: int) -> float:
        resident = _resident(model, share)
        seconds = sum(prefill(model, rates, resident, share.device, tokens).values())
        return round(on * tokens / seconds, 4)

    memory = _held(model, share) * model.record_bytes
    return Plan(
        fits=found.fits,
        machine=found.hardware.name,
        measured=found.hardware.rates.measured,
        assumed=rates.assumed,
        settings=dict(_settings(found)),
        bytes=share.table,
        expert_slots_per_layer=_per_layer(model, share),
        hits=found.hits,
        seconds=found.seconds,
        decode_tok_s=token_rate(found.hits, 0),
        decode_tok_s_at={str(d): token_rate(found.hits, d) for d in DEPTHS if d <= context},
        decode_tok_s_uniform=token_rate(_hits(model, share, "uniform"), 0),
        prefill_tok_s={str(n): prompt_rate(n) for n in PROMPTS if n <= max(context, 2048)},
        load_s=round(load(model, rates, memory, share.device), 1),
        bottleneck=bottleneck(found),
        advice=told,
        potential=potential(found.hardware, found.options, model, share, rates),
        parts=(model, share, rates),
    )


def _settings(found: Found) -> Iterator[tuple[str, Any]]:
    """Parameters of `hybrid.load` that give this plan."""
    options = found.options
    yield "device", found.share.device
    yield "backbone_weights", options.backbone_weights
    yield "kv_tokens", options.context * options.users
    yield "vision", "vision" in found.model.backbone
    if threads := options.threads or found.hardware.cpu.cores:
        yield "threads", threads
    for name in ("ram_budget", "vram_budget"):
        if getattr(options, name) is not None:
            yield name, getattr(options, name)


def _per_layer(model: Needs, share: Shares) -> dict[str, int]:
    """Experts of a layer by tier; where layers differ, what each of them has at least."""
    layers = max(1, model.moe_layers)
    vram = share.slots.device // layers
    ram = model.experts - vram
    if share.slots.from_file:
        ram = min(ram, share.slots.resident // layers)
    elif not model.records:
        ram = 0
    return {"vram": vram, "ram": ram, "nvme": model.experts - vram - ram if model.records else 0}
