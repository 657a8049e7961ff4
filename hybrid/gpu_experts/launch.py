"""Launches the Triton kernels: which form, which tiles, which scratch; nothing waits.

    up to DECODE_PAIRS pairs    encode -> decode.gate_up -> decode.down
    more, int8 or int16         encode -> sort -> grouped.gate_up -> grouped.down
    more, bf16                  encode -> sort -> decode.gate_up -> decode.down, by slot

Either form gives the same bits, so where they change over is a matter of speed alone. In the first
a record is read once for each pair that wants it. With 32 pairs, 4 tokens of 8, some 30 of 384
experts are wanted, so that sharing saves little; a tile of 16 rows would be padding for the most
part. bf16's sums have an order that no tensor core follows, so it stays with the first form and
takes the pairs of one record one after another, while the record is in the L2 cache.
"""

from dataclasses import dataclass
from math import gcd
from typing import Any

import torch
from torch import Tensor

from hybrid.cpu_experts.record import GROUP, RecordShape
from hybrid.gpu_experts.grouping import Tiles, sorted_pairs, tiles
from hybrid.gpu_experts.kernels import decode, grouped, rows

PLANES = {"bf16": 0, "int8": 1, "int16": 2}
DECODE_PAIRS = 32
UNROLL = {0: 4, 1: 8, 2: 4}  # groups that a decode program asks for at once, by planes: registers
ENCODE_GROUPS = 16  # of one encoding program
COMBINE_COLUMNS = 1024
SMALL_TILE, LARGE_TILE = 16, 64  # pairs
LARGE_FROM = 8192  # pairs: 1024 tokens of 8, over 384 experts 21 each
TILE_PROGRAMS = 512  # at most; each takes every 512th tile
WARPS = {SMALL_TILE: 4, LARGE_TILE: 4}


@dataclass(frozen=True, slots=True)
class Encoded:
    """Encoded rows, as kernels/numerics.py draws them: codes in words, bytes or floats."""

    codes: Tensor
    scales: Tensor  # f32 [rows, groups]
    offsets: Tensor  # int32 [rows, groups]

    @property
    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """What kernels take; words and pairs of floats are read as int64."""
        codes = self.codes if self.codes.dtype == torch.int8 else self.codes.view(torch.int64)
        return codes, self.scales, self.offsets


def outputs(
    x: Tensor, slot_ids: Tensor, slots: Tensor, shape: RecordShape, mode: str, out: Tensor
) -> None:
    """Write expert(x) of every slot id that is not -1 to its row of `out`; see ops.py."""
    planes = PLANES[mode]
    many = slot_ids.numel() > DECODE_PAIRS
    if many and planes:
        _grouped(x, slot_ids, slots, shape, planes, out)
    else:
        order = sorted_pairs(slot_ids, len(slots))[1] if many else None
        _decode(x, slot_ids, order, slots, shape, planes, out)


def combine(outputs: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
    """f32 [T, hidden]; see ops.py."""
    tokens, hidden = ids.shape[0], outputs.shape[1]
    result = outputs.new_empty(tokens, hidden)
    grid = (tokens, -(-hidden // COMBINE_COLUMNS))
    if tokens:
        _run(
            rows.combine,
            grid,
            (outputs, ids, weights, result, ids.shape[1]),
            {"HIDDEN": hidden, "BLOCK": COMBINE_COLUMNS},
        )
    return result


def encode_constants(groups: int, planes: int, *, words: bool) -> dict[str, Any]:
    """Constants of rows.encode."""
    return {"GROUPS": groups, "BLOCK": ENCODE_GROUPS, "PLANES": planes, "WORDS": words}


def decode_constants(
    shape: RecordShape, planes: int, *, by_slot: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Constants of decode.gate_up and decode.down."""
    both = {"HIDDEN": shape.hidden, "INTERMEDIATE": shape.intermediate, "PLANES": planes}
    gate_up = {"UNROLL": gcd(UNROLL[planes], shape.hidden // GROUP), "SORTED": by_slot}
    down = {"UNROLL": gcd(UNROLL[planes], shape.intermediate // GROUP), "SORTED": by_slot}
    return {**both, **gate_up}, {**both, **down, "ROWS": gcd(64, shape.hidden)}


def grouped_constants(
    shape: RecordShape, planes: int, pairs: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Constants of grouped.gate_up and grouped.down for tiles of `pairs`."""
    both = {
        "HIDDEN": shape.hidden,
        "INTERMEDIATE": shape.intermediate,
        "PLANES": planes,
        "PAIRS": pairs,
    }
    return (
        {**both, "ROWS": gcd(64, shape.intermediate)},
        {**both, "ROWS": gcd(64, shape.hidden)},
    )


def _decode(
    x: Tensor,
    slot_ids: Tensor,
    order: Tensor | None,
    slots: Tensor,
    shape: RecordShape,
    planes: int,
    out: Tensor,
) -> None:
    pairs = slot_ids.numel()
    constants = decode_constants(shape, planes, by_slot=order is not None)
    record = slots.view(torch.int32), slots.view(torch.int16)
    which = slot_ids, slot_ids if order is None else order
    encoded = _encode(x, planes, words=True)
    h = _empty(pairs, shape.intermediate, planes, words=True, device=x.device)
    _run(
        decode.gate_up,
        (shape.intermediate // GROUP, pairs),
        (*record, *which, *encoded.parts, h.codes, h.scales, h.offsets, slot_ids.shape[1]),
        constants[0],
        warps=1,
    )
    grid = shape.hidden // constants[1]["ROWS"], pairs
    _run(decode.down, grid, (*record, *which, *h.parts, out), constants[1], warps=1)


def _grouped(
    x: Tensor, slot_ids: Tensor, slots: Tensor, shape: RecordShape, planes: int, out: Tensor
) -> None:
    pairs = LARGE_TILE if slot_ids.numel() >= LARGE_FROM else SMALL_TILE
    constants = grouped_constants(shape, planes, pairs)
    plan = tiles(slot_ids, len(slots), pairs)
    table = plan.slot, plan.first, plan.size, plan.count, plan.order
    record = slots.view(torch.int32), slots.view(torch.int16)
    encoded = _encode(x, planes, words=False)
    h = _empty(slot_ids.numel(), shape.intermediate, planes, words=False, device=x.device)
    _run(
        grouped.gate_up,
        _grid(shape.intermediate, constants[0], plan),
        (*record, *table, *encoded.parts, *h.parts, slot_ids.shape[1]),
        constants[0],
        warps=WARPS[pairs],
    )
    _run(
        grouped.down,
        _grid(shape.hidden, constants[1], plan),
        (*record, *table, *h.parts, out),
        constants[1],
        warps=WARPS[pairs],
    )


def _grid(width: int, constants: dict[str, Any], plan: Tiles) -> tuple[int, int]:
    return width // constants["ROWS"], min(plan.most, TILE_PROGRAMS)


def _encode(x: Tensor, planes: int, *, words: bool) -> Encoded:
    tokens, inputs = x.shape
    encoded = _empty(tokens, inputs, planes, words=words, device=x.device)
    groups = inputs // GROUP
    constants = encode_constants(groups, planes, words=words)
    parts = encoded.codes, encoded.scales, encoded.offsets
    _run(rows.encode, (tokens, -(-groups // ENCODE_GROUPS)), (x, *parts), constants)
    return encoded


def _empty(count: int, inputs: int, planes: int, *, words: bool, device: torch.device) -> Encoded:
    groups = inputs // GROUP
    scales = torch.empty(count, groups, dtype=torch.float32, device=device)
    offsets = torch.empty(count, groups, dtype=torch.int32, device=device)
    if not planes:
        codes = torch.empty(count, inputs, dtype=torch.float32, device=device)
    elif words:
        codes = torch.empty(count, groups * planes * 16, dtype=torch.int32, device=device)
    else:
        codes = torch.empty(count, planes * inputs, dtype=torch.int8, device=device)
    return Encoded(codes, scales, offsets)


def _run(
    kernel: Any,
    grid: tuple[int, ...],
    arguments: tuple[Any, ...],
    constants: dict[str, Any],
    warps: int = 4,
) -> None:
    kernel[grid](*arguments, **constants, num_warps=warps, enable_fp_fusion=False)
