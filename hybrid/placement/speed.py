"""Seconds of a token and of a prompt: what must be moved and computed, over how fast that goes.

Decode, layer by layer (k experts a token, j of them in no memory):

    RAM     k records at the kernels' rate; while they are computed, j are read
    file    longer of one read alone and j records at the disk's rate, then the last one's kernel
    layer   longer of the two, weighted over j, which is binomial with the share of misses
    device  backbone, cache and shared expert; the shared expert overlaps routed ones on a device
            and follows them on a CPU, whose cores are busy

A prompt goes in passes of 2,048 tokens. Each pass computes every token and reads every expert that
some token asks for, E (1 - (1 - k/E)^tokens) of them at random; those that RAM lacks are read from
the file meanwhile. Where arithmetic and bytes could overlap, the longer of the two counts.
"""

import math

from hybrid.placement.hits import Hits
from hybrid.placement.needs import BLOCK_TOKENS, PASS_TOKENS, Needs
from hybrid.placement.rates import Speeds

GB = 1e9
F32 = 4  # bytes: what crosses the link, both ways
Parts = dict[str, float]


def decode(needs: Needs, speeds: Speeds, hits: Hits, device: str, depth: int = 0) -> Parts:
    """Seconds of one token by part, after `depth` tokens; their sum is the token's time.

    The names are those of `stats()["seconds"]` where it has them; what the file or the device adds
    to the experts beyond RAM's own time is `experts_file`, `experts_device`.
    """
    cuda = device == "cuda"
    rate = (speeds.device_gb_s if cuda else speeds.backbone_gb_s) * GB
    flops = (speeds.device_gflop_s if cuda else speeds.backbone_gflop_s) * GB
    cache = max(depth * needs.kv_token_bytes / rate, depth * needs.absorbed_flop / flops)
    shared = needs.token_bytes("shared") / rate
    in_ram, whole = _experts(needs, speeds, hits)
    on_device = hits.vram * needs.token_experts_bytes / rate if cuda else 0.0
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
        parts["link"] = _link(needs, speeds, 1)
    return parts


def _experts(needs: Needs, speeds: Speeds, hits: Hits) -> tuple[float, float]:
    """Seconds of all layers' experts on the CPU: without waiting for the file, and with."""
    if not needs.records:
        return 0.0, 0.0
    record, here = needs.record_bytes, needs.per_token * (1 - hits.vram)
    alone = here * record / (speeds.experts_gb_s * GB)
    rate = min(speeds.experts_gb_s, speeds.experts_gb_s_while_reading) * GB
    disk = min(speeds.disk_gb_s, speeds.disk_gb_s_while_computing) * GB
    total = 0.0
    for missed, chance in enumerate(_binomial(needs.per_token, hits.nvme)):
        seconds = alone
        if missed:
            read = max(speeds.disk_record_s, missed * record / disk)
            seconds = max(here * record / rate, read + record / rate)
        total += chance * seconds
    return needs.moe_layers * alone, needs.moe_layers * max(total, alone)


def _binomial(count: int, share: float) -> list[float]:
    """Chances of 0 ... count misses."""
    share = min(1.0, max(0.0, share))
    return [math.comb(count, n) * share**n * (1 - share) ** (count - n) for n in range(count + 1)]


def prefill(needs: Needs, speeds: Speeds, resident: float, device: str, tokens: int) -> Parts:
    """Seconds of a prompt of so many tokens by part, named as in `decode`.

    `resident` is the share of the experts that is in memory.
    """
    rate = speeds.device_gb_s if device == "cuda" else speeds.backbone_gb_s
    total = {"head": needs.token_bytes("head") / (rate * GB)}
    for start in range(0, tokens, PASS_TOKENS):
        count = min(PASS_TOKENS, tokens - start)
        for name, seconds in _pass(needs, speeds, resident, device, start, count).items():
            total[name] = total.get(name, 0.0) + seconds
    return total


def _pass(
    needs: Needs, speeds: Speeds, resident: float, device: str, start: int, count: int
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
    parts["experts"], whole = experts_of_pass(needs, speeds, resident, count)
    parts["experts_file"] = whole - parts["experts"]
    parts["step"] = needs.layers * blocks * speeds.step_s
    if cuda:
        parts["experts_device"] = max(0.0, parts["shared"] - whole)
        parts["shared"] = 0.0
        parts["sync"] = 2 * needs.moe_layers * blocks * speeds.sync_s
        parts["link"] = _link(needs, speeds, count)
    return parts


def experts_of_pass(
    needs: Needs, speeds: Speeds, resident: float, count: int
) -> tuple[float, float]:
    """Seconds of all layers' routed experts for one pass of `count` tokens.

    Without waiting for the file, and with.
    """
    if not needs.records:
        return 0.0, 0.0
    asked = distinct(needs, count) * needs.moe_layers * needs.record_bytes
    work = count * needs.per_token * needs.moe_layers * needs.expert_flop
    alone = max(work / (speeds.experts_gflop_s * GB), asked / (speeds.experts_gb_s * GB))
    if resident >= 1:
        return alone, alone
    rate = min(speeds.experts_gb_s, speeds.experts_gb_s_while_reading)
    disk = min(speeds.disk_gb_s, speeds.disk_gb_s_while_computing)
    return alone, max(alone, asked / (rate * GB), asked * (1 - resident) / (disk * GB))


def distinct(needs: Needs, tokens: int) -> float:
    """Experts of a layer that so many tokens ask for, if they ask at random."""
    return float(needs.experts * (1 - (1 - needs.per_token / needs.experts) ** tokens))


def load(needs: Needs, speeds: Speeds, memory_bytes: int, device: str) -> float:
    """Seconds to fill memory from the disk: `memory_bytes` of experts, and the backbone."""
    backbone = sum(needs.backbone.values())
    seconds = (memory_bytes + backbone) / (speeds.disk_gb_s * GB)
    return max(seconds, backbone / (speeds.link_gb_s * GB)) if device == "cuda" else seconds


def _link(needs: Needs, speeds: Speeds, tokens: int) -> float:
    """Hidden states to the host and routed sums back, of all layers with experts."""
    crossing = 2 * F32 * needs.hidden * tokens * needs.moe_layers
    return crossing / (speeds.link_gb_s * GB)
