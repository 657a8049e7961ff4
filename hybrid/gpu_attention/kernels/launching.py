"""From tensors to launches: outputs are allocated, tiles chosen by the sizes of a matrix.

Nothing here looks at a value on the device, and a grid depends on shapes alone, so that what is
launched can be captured as a CUDA graph.
"""

import math
from typing import Any

import torch
from torch import Tensor

from hybrid.gpu_attention.codes import GROUP
from hybrid.gpu_attention.kernels import gemv, mla, router

TOKENS = 16  # rows of the activations' tile: the least that tensor cores take
WARPS = 4
LOGIT_ROWS, LOGIT_STEP = 2, 1024  # 192 programs of 384 experts
LOGIT_STAGES = 3
ATTEND_ROWS, ATTEND_BLOCK = 32, 32  # 76 KB: what a card with 99 KB a block can hold
ATTEND_STAGES, ATTEND_WARPS = 2, 8
MERGE_COLUMNS = 64


def padded(size: int, least: int = 1) -> int:
    """The next power of two: what a Triton range may have."""
    return max(least, 1 << (size - 1).bit_length())


def linear_tiles(outputs: int, inputs: int, *, coded: bool, norm: bool) -> dict[str, Any]:
    """Constexprs of `gemv` for a matrix; wide ones have programs enough with 32 rows each.

    Codes come four groups a step: of eight, Triton makes a kernel in three times the time.
    """
    rows, width = 16 if outputs <= 4096 else 32, min(128 if coded else 256, padded(inputs, 32))
    return {
        "NORM": norm,
        "CODED": coded,
        "TOKENS": TOKENS,
        "OUTPUTS": rows,
        "PIECE": GROUP if coded else width,
        "PIECES": width // GROUP if coded else 1,
        "STAGES": 5 if coded else 4 if rows == 16 else 3,
    }


def linear(
    x: Tensor, weight: Tensor, scales: Tensor | None, norm: Tensor | None, eps: float
) -> Tensor:
    """See ops.linear; x [tokens, in] with rows of any stride."""
    out = x.new_empty(x.shape[0], weight.shape[0])
    _gemv(x.unsqueeze(1), weight.unsqueeze(0), scales, norm, eps, out)
    return out


def per_head(x: Tensor, weight: Tensor, scales: Tensor | None) -> Tensor:
    """See ops.per_head; x [tokens, heads, in] with any strides but the last."""
    out = x.new_empty(x.shape[0], x.shape[1], weight.shape[1])
    _gemv(x, weight, scales, None, 0.0, out)
    return out


def _gemv(
    x: Tensor, weight: Tensor, scales: Tensor | None, norm: Tensor | None, eps: float, out: Tensor
) -> None:
    tokens, heads, inputs = x.shape
    outputs = weight.shape[1]
    tiles = linear_tiles(outputs, inputs, coded=scales is not None, norm=norm is not None)
    gemv.gemv[-(-outputs // tiles["OUTPUTS"]), heads](
        x,
        weight,
        weight if scales is None else scales,
        x if norm is None else norm,
        out,
        tokens,
        outputs,
        inputs,
        x.stride(0),
        x.stride(1),
        eps,
        **tiles,
        num_warps=WARPS,
    )


def attend_tiles(rank: int, width: int, page: int) -> dict[str, Any]:
    """Constexprs of `mla.attend_part`."""
    return {
        "PAGE": page,
        "ROWS": ATTEND_ROWS,
        "RANK": padded(rank, 16),
        "ROPE": padded(width - rank, 16),
        "BLOCK": ATTEND_BLOCK,
        "STAGES": ATTEND_STAGES,
    }


def attend_splits(pairs: int, pages: int, programs: int) -> int:
    """Parts of the context: about `programs` programs in all, never more than pages."""
    return max(1, min(pages, programs // -(-pairs // ATTEND_ROWS)))


def mla_decode(
    query: Tensor,
    pages: Tensor,
    table: Tensor,
    start: Tensor,
    scale: float,
    rank: int,
    programs: int,
) -> Tensor:
    """See ops.mla_decode; `programs` is about how many the device runs at once."""
    tokens, heads, width = query.shape
    pairs, page = tokens * heads, pages.shape[1]
    splits = attend_splits(pairs, table.shape[0], programs)
    parts = query.new_empty(splits, pairs, rank, dtype=torch.float32)
    states = query.new_empty(splits, pairs, 2, dtype=torch.float32)
    out = query.new_empty(tokens, heads, rank)
    mla.attend_part[-(-pairs // ATTEND_ROWS), splits](
        query.contiguous(),
        pages,
        table,
        start,
        parts,
        states,
        scale * math.log2(math.e),
        tokens,
        heads,
        width,
        rank,
        splits,
        **attend_tiles(rank, width, page),
        num_warps=ATTEND_WARPS,
    )
    mla.merge_parts[pairs, -(-rank // MERGE_COLUMNS)](
        parts,
        states,
        start,
        out,
        tokens,
        heads,
        rank,
        splits,
        PAGE=page,
        SPLITS=padded(splits),
        COLUMNS=MERGE_COLUMNS,
        num_warps=WARPS,
    )
    return out


def route(
    hidden: Tensor, gate: Tensor, bias: Tensor, k: int, norm_topk_prob: bool, scaling: float
) -> tuple[Tensor, Tensor]:
    """See ops.route; hidden [tokens, hidden_size] with rows of any stride."""
    tokens, experts = hidden.shape[0], gate.shape[0]
    scores = hidden.new_empty(tokens, experts, dtype=torch.float32)
    router.logits[-(-experts // LOGIT_ROWS), tokens](
        hidden,
        gate,
        scores,
        experts,
        gate.shape[1],
        hidden.stride(0),
        ROWS=LOGIT_ROWS,
        STEP=LOGIT_STEP,
        STAGES=LOGIT_STAGES,
        num_warps=WARPS,
    )
    ids = hidden.new_empty(tokens, k, dtype=torch.int32)
    weights = hidden.new_empty(tokens, k, dtype=torch.float32)
    router.select[(tokens,)](
        scores,
        bias,
        ids,
        weights,
        experts,
        scaling,
        K=k,
        NORMALISED=norm_topk_prob,
        EXPERTS=padded(experts),
        SLOTS=padded(k),
        num_warps=WARPS,
    )
    return ids, weights
