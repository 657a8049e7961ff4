"""The plan: bytes, slots, speeds, what limits them and what would help; from arithmetic alone."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from hybrid.config import ModelConfig
from hybrid.errors import ConfigError
from hybrid.hardware import Hardware
from hybrid.inventory import Inventory
from hybrid.placement.advice import Found, advice, bottleneck
from hybrid.placement.cards import in_order
from hybrid.placement.hits import Hits, hits
from hybrid.placement.needs import Needs, needs
from hybrid.placement.options import PlanOptions
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
    cards: tuple[dict[str, Any], ...]  # of each GPU that is used: name, bytes by component
    parts: tuple[Needs, Shares, Speeds]  # for whoever wants to predict something else

    def decode_parts(self, depth: int = 0, found: Hits | None = None) -> dict[str, float]:
        """Seconds of one token after `depth` tokens, by part; `found`: hits as measured."""
        model, share, rates = self.parts
        return decode(model, rates, found or self.hits, share.device, depth, share.together)

    def prefill_parts(self, tokens: int) -> dict[str, float]:
        """Seconds of a prompt by part."""
        model, share, rates = self.parts
        return prefill(model, rates, _lie(model, share), share.device, tokens, share.together)

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
            "cards": list(self.cards),
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
    found = _best(config, hardware, options, inventory)
    told = advice(found, lambda changed: _best(config, hardware, changed, inventory))
    return _described(found, tuple(told))


def _best(
    config: ModelConfig, hardware: Hardware, options: PlanOptions, inventory: Inventory | None
) -> Found:
    """The way that fits and is fastest; of several that do not, the one that lacks least.

    Where both kinds of weights are allowed, a device gets bf16 if that fits there: it is what the
    model was trained with.
    """
    weights = options.backbone_weights
    ways = ("bf16", "int8") if weights == "auto" else (weights,)
    fit: list[Found] = []
    tried: list[Found] = []
    for device in _devices(hardware, options):
        for kind in ways:
            asked = replace(options, backbone_weights=kind, device=device)
            tried.append(_try(config, hardware, asked, inventory))
            if tried[-1].fits:
                fit.append(tried[-1])
                break
    if fit:
        return max(fit, key=lambda found: found.tokens_per_second)
    return min(tried, key=lambda found: sum(found.share.missing.values()))


def _devices(hardware: Hardware, options: PlanOptions) -> tuple[str, ...]:
    """Where the backbone may be."""
    if options.device != "auto":
        return (options.device,)
    return ("cuda", "cpu") if hardware.gpus else ("cpu",)


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
    seconds = decode(model, rates, where, share.device, cards=share.together)
    return Found(config, hardware, options, model, share, rates, where, seconds)


def _hits(model: Needs, share: Shares, routing: str) -> Hits:
    """Picks by where they are found."""
    if share.device == "cuda":
        return hits(model.records, share.slots.device, share.slots.resident, routing)
    found = hits(model.records, 0, share.slots.resident + share.slots.device, routing)
    return Hits(0.0, found.vram + found.ram, found.nvme)  # a second share of RAM is RAM


def _lie(model: Needs, share: Shares) -> Hits:
    """Shares of the experts by where they lie: what asking at random would hit."""
    return _hits(model, share, "uniform")


def _described(found: Found, told: tuple[str, ...]) -> Plan:
    model, share, rates = found.model, found.share, found.speeds
    on = float(found.fits)
    context = found.options.context

    def token_rate(where: Hits, depth: int) -> float:
        seconds = decode(model, rates, where, share.device, depth, share.together)
        return round(on / sum(seconds.values()), 4)

    def prompt_rate(tokens: int) -> float:
        lie = _lie(model, share)
        seconds = sum(prefill(model, rates, lie, share.device, tokens, share.together).values())
        return round(on * tokens / seconds, 4)

    held = min(model.records, share.slots.resident + share.slots.device)
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
        load_s=round(load(model, rates, held * model.record_bytes, share.device), 1),
        bottleneck=bottleneck(found),
        advice=told,
        cards=tuple(_cards(found)),
        parts=(model, share, rates),
    )


def _cards(found: Found) -> Iterator[dict[str, Any]]:
    """What lies on which GPU; the first has the backbone."""
    for gpu, row in zip(in_order(found.hardware), found.share.cards, strict=False):
        if row:
            yield {"name": gpu.name, "bytes": row}


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
