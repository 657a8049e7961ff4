"""Seconds of a token and of a prompt: what must be moved and computed, over how fast that goes.

Decode, layer by layer (k experts a token, j of them in no memory):

    RAM     k records at the kernels' rate
    file    longer of one read alone and j records at the disk's rate; each slows the other down
            while both work; then the last one's kernel
    layer   weighted over j, which is binomial with the share of misses
    device  backbone, cache and shared expert; the shared expert overlaps routed ones on a device
            and follows them on a CPU, whose cores are busy

A prompt goes in passes of 2,048 tokens. Each pass computes every token and reads every expert that
some token asks for. With a card the busy ones are streamed to it and those that lie there are
computed there, with the split that the runtime computes too (hybrid/cache/split.py); how many
tokens ask for each is taken as at random (picks.py). What RAM lacks is read from the file
meanwhile.
"""

import math

from hybrid.cache.split import LEAST_TOKENS, Costs, Split, split
from hybrid.placement.cards import Together
from hybrid.placement.hits import Hits
from hybrid.placement.needs import BLOCK_TOKENS, PASS_TOKENS, Needs
from hybrid.placement.picks import lying, picks
from hybrid.placement.rates import Speeds

GB = 1e9
F32 = 4  # bytes: what crosses the link, both ways
Parts = dict[str, float]


def decode(
    needs: Needs,
    speeds: Speeds,
    hits: Hits,
    device: str,
    depth: int = 0,
    cards: Together | None = None,
) -> Parts:
    """Seconds of one token by part, after `depth` tokens; their sum is the token's time.

    `cards` compute experts; None: the CPU computes them all. The names are those of
    `stats()["seconds"]` where it has them; what the file or the device adds to the experts beyond
    RAM's own time is `experts_file`, `experts_device`.
    """
    cuda = device == "cuda"
    rate = (speeds.device_gb_s if cuda else speeds.backbone_gb_s) * GB
    flops = (speeds.device_gflop_s if cuda else speeds.backbone_gflop_s) * GB
    cache = max(depth * needs.kv_token_bytes / rate, depth * needs.absorbed_flop / flops)
    shared = needs.token_bytes("shared") / rate
    in_ram, whole = _experts(needs, speeds, hits)
    together = cards.memory if cards else 1.0
    on_device = hits.vram * needs.token_experts_bytes / (rate * together) if cuda else 0.0
    parts = {
        "attention": needs.token_bytes("attention", "norms") / rate,
        "cache": cache,
        "router": needs.token_bytes("router") / rate,
        "dense": needs.token_bytes("dense") / rate,
        "shared": shared,
        "experts": in_ram,
        "experts_file": whole - in_ram,
        "head": needs.token_bytes("head") / rate,
        "step": needs.layers * speeds.step_s,
    }
    if cuda:
        beside = shared + on_device
        parts["shared"] = 0.0
        parts["experts_device"] = max(0.0, beside - whole)
        parts["sync"] = 2 * needs.moe_layers * speeds.sync_s
        parts["link"] = _link(needs, speeds, 1, cards)
    return parts


def _experts(needs: Needs, speeds: Speeds, hits: Hits) -> tuple[float, float]:
    """Seconds of all layers' experts on the CPU: without waiting for the file, and with."""
    if not needs.records:
        return 0.0, 0.0
    here = needs.per_token * (1 - hits.vram)
    kernel = needs.record_bytes / (speeds.experts_gb_s * GB)
    record_s = needs.record_bytes / (speeds.disk_gb_s * GB)
    alone, total = here * kernel, 0.0
    for missed, chance in enumerate(_binomial(needs.per_token, hits.nvme)):
        seconds = alone
        if missed:
            read = max(speeds.disk_record_s, missed * record_s)
            in_ram = max(0.0, here - missed) * kernel
            seconds = max(alone, beside_reads(in_ram, read, speeds) + kernel)
        total += chance * seconds
    return needs.moe_layers * alone, needs.moe_layers * max(total, alone)


def beside_reads(kernels_s: float, read_s: float, speeds: Speeds) -> float:
    """Seconds until both kernels and reads are done, that take so long by themselves.

    Each is slower while both work; what is left of either has the machine to itself.
    """
    slower = max(1.0, speeds.experts_gb_s / speeds.experts_gb_s_while_reading)
    share = min(1.0, speeds.disk_gb_s_while_computing / speeds.disk_gb_s)
    computing = kernels_s * slower
    if computing * share < read_s:
        return computing + read_s - computing * share
    reading = read_s / share
    return reading + (computing - reading) / slower


def _binomial(count: int, share: float) -> list[float]:
    """Chances of 0 ... count misses."""
    share = min(1.0, max(0.0, share))
    return [math.comb(count, n) * share**n * (1 - share) ** (count - n) for n in range(count + 1)]


def prefill(
    needs: Needs,
    speeds: Speeds,
    held: Hits,
    device: str,
    tokens: int,
    cards: Together | None = None,
) -> Parts:
    """Seconds of a prompt of so many tokens by part, named as in `decode`.

    `held`: shares of the experts, not of picks, by where they lie. `cards` compute those that lie
    there and those that are streamed; None: the CPU computes them all.
    """
    rate = speeds.device_gb_s if device == "cuda" else speeds.backbone_gb_s
    total = {"head": needs.token_bytes("head") / (rate * GB)}
    for start in range(0, tokens, PASS_TOKENS):
        count = min(PASS_TOKENS, tokens - start)
        for name, seconds in _pass(needs, speeds, held, device, start, count, cards).items():
            total[name] = total.get(name, 0.0) + seconds
    return total


def _pass(
    needs: Needs,
    speeds: Speeds,
    held: Hits,
    device: str,
    start: int,
    count: int,
    cards: Together | None,
) -> Parts:
    cuda = device == "cuda"
    rate = (speeds.device_gb_s if cuda else speeds.backbone_gb_s) * GB
    flops = (speeds.device_gflop_s if cuda else speeds.backbone_gflop_s) * GB
    blocks = math.ceil(count / BLOCK_TOKENS)
    parts = {
        name: max(
            count * needs.token_flop.get(name, 0) / flops, blocks * needs.token_bytes(name) / rate
        )
        for name in ("attention", "router", "dense", "shared")
    }
    pairs = count * (start + (count + 1) / 2)
    parts["cache"] = pairs * (needs.expanded_flop if cuda else needs.absorbed_flop) / flops
    shared = parts["shared"] if cuda else 0.0
    in_ram, on_device, whole = experts_of_pass(needs, speeds, held, count, cards, shared)
    parts["experts"] = in_ram
    parts["experts_file"] = whole - in_ram
    parts["step"] = needs.layers * blocks * speeds.step_s
    if cuda:
        parts["experts_device"] = max(0.0, on_device - whole)
        parts["shared"] = 0.0
        parts["sync"] = 2 * needs.moe_layers * blocks * speeds.sync_s
        parts["link"] = _link(needs, speeds, count, cards)
    return parts


def experts_of_pass(
    needs: Needs,
    speeds: Speeds,
    held: Hits,
    count: int,
    cards: Together | None = None,
    shared: float = 0.0,
) -> tuple[float, float, float]:
    """Seconds of all layers' routed experts for one pass of `count` tokens.

    Of the CPU alone; of the device, with `shared` seconds of other work; of the CPU with waiting
    for the file.
    """
    if not needs.records:
        return 0.0, shared, 0.0
    found = split_of_pass(needs, speeds, held, count, cards, shared)
    layers = needs.moe_layers
    in_ram, on_device = layers * found.cpu_s, layers * found.device_s
    if not held.nvme:
        return in_ram, on_device, in_ram
    read = layers * distinct(needs, count) * held.nvme * needs.record_bytes
    return in_ram, on_device, beside_reads(in_ram, read / (speeds.disk_gb_s * GB), speeds)


def split_of_pass(
    needs: Needs,
    speeds: Speeds,
    held: Hits,
    count: int,
    cards: Together | None,
    shared: float = 0.0,
) -> Split:
    """Who computes which experts of a layer of one pass."""
    tokens = picks(count, needs.per_token, needs.experts)
    on_card, in_file = lying(needs.experts, held.vram if cards else 0.0, held.nvme)
    streams = cards is not None and count >= LEAST_TOKENS
    busy = shared / max(1, needs.moe_layers)
    found = costs(needs, speeds, cards)
    return split(tokens, on_card, found, ~in_file & streams, busy_s=busy)


def costs(needs: Needs, speeds: Speeds, cards: Together | None) -> Costs:
    """What an expert costs on CPU and cards; with no cards there is no link."""
    link, memory = (cards.link, cards.memory) if cards else (0.0, 1.0)
    return Costs(
        record_bytes=needs.record_bytes,
        token_flop=needs.expert_flop,
        link_gb_s=speeds.link_gb_s * link,
        device_gb_s=speeds.device_gb_s * memory,
        device_gflop_s=speeds.device_gflop_s * memory,
        cpu_gb_s=speeds.experts_gb_s,
        cpu_gflop_s=speeds.experts_gflop_s,
    )


def distinct(needs: Needs, tokens: int) -> float:
    """Experts of a layer that so many tokens ask for, if they ask at random."""
    return float(needs.experts * (1 - (1 - needs.per_token / needs.experts) ** tokens))


def load(needs: Needs, speeds: Speeds, memory_bytes: int, device: str) -> float:
    """Seconds to fill memory from the disk: `memory_bytes` of experts, and the backbone."""
    backbone = sum(needs.backbone.values())
    seconds = (memory_bytes + backbone) / (speeds.disk_gb_s * GB)
    return max(seconds, backbone / (speeds.link_gb_s * GB)) if device == "cuda" else seconds


def _link(needs: Needs, speeds: Speeds, tokens: int, cards: Together | None) -> float:
    """Hidden states to the host and what comes back, of all layers with experts.

    Sums, or where cards sum, a row for each pick.
    """
    rows = tokens * (1 + (needs.per_token if cards else 1))
    return F32 * needs.hidden * rows * needs.moe_layers / (speeds.link_gb_s * GB)
