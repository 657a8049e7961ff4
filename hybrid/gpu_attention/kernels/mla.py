"""MLA of a decode step over the paged latent cache: one pass over its rows, in splits.

    attend_part   grid (tiles, splits): a tile of (token, head) pairs meets a run of whole pages.
                  Rows are keys and, up to RANK, values; softmax online (Milakov & Gimelshein,
                  arXiv 1805.02867; Dao et al., arXiv 2205.14135) in fp32, base 2
                    -> parts  [splits, tokens * heads, RANK]  sums of weighted rows, not divided
                    -> states [splits, tokens * heads, 2]     largest score, sum of weights
    merge_parts   grid (tokens * heads, columns): brings the parts to one largest score and divides

The grid is the same for every length: each program reads the length from the device and takes its
share of the pages there are, so that a captured step stays right as the context grows.

Bytes of K2.5 at a context of n: n * 1152 from memory, read by every tile (64 heads of a token are
64 / ROWS tiles, which run side by side and find the rows in L2), and 131 KB written and read again
for each split of a token. A split has at least LEAST pages, which are 147 KB.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators
# ruff: noqa: ANN001, ANN201, ANN202, N803 (Triton reads the source: its types and names are its own)

import triton
import triton.language as tl

LEAST = tl.constexpr(2)  # pages of a split


@triton.jit
def _share(start, tokens, splits, PAGE: tl.constexpr):
    """Pages in use, and how many each split takes."""
    pages = (tl.load(start) + tokens + PAGE - 1) // PAGE
    return pages, tl.maximum(LEAST, (pages + splits - 1) // splits)


@triton.jit
def attend_part(
    query,  # bf16 [tokens, heads, width]
    pages,  # bf16 [pages, PAGE, width]
    table,  # int32 [pages of the timeline]
    start,  # int32 [1]
    parts,  # fp32 [splits, tokens * heads, rank]
    states,  # fp32 [splits, tokens * heads, 2]
    scale,  # of scores, times log2 e
    tokens,
    heads,
    width,
    rank,
    splits,
    PAGE: tl.constexpr,
    ROWS: tl.constexpr,  # (token, head) pairs of a tile
    RANK: tl.constexpr,  # columns, padded to a power of two
    ROPE: tl.constexpr,
    BLOCK: tl.constexpr,  # positions at a time
    STAGES: tl.constexpr,
):
    """One tile and one split."""
    split = tl.program_id(1)
    used, share = _share(start, tokens, splits, PAGE)
    low, high = split * share, tl.minimum(split * share + share, used)
    if low < high:
        first = tl.load(start)
        pairs = tokens * heads
        row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
        known = (row < pairs)[:, None]
        own = first + row // heads  # position of the row's token
        rank_at, rope_at = tl.arange(0, RANK), tl.arange(0, ROPE)
        is_rank, is_rope = (rank_at < rank)[None, :], (rank + rope_at < width)[None, :]
        source = query + row[:, None] * width
        q_c = tl.load(source + rank_at[None, :], mask=known & is_rank, other=0.0)
        q_r = tl.load(source + rank + rope_at[None, :], mask=known & is_rope, other=0.0)
        largest = tl.full([ROWS], float("-inf"), tl.float32)
        total = tl.zeros([ROWS], tl.float32)
        mixed = tl.zeros([ROWS, RANK], tl.float32)
        for at in tl.range(low * PAGE, high * PAGE, BLOCK, num_stages=STAGES):
            position = at + tl.arange(0, BLOCK)
            page = tl.load(table + at // PAGE).to(tl.int64)
            place = page * PAGE + at % PAGE + tl.arange(0, BLOCK)
            # rows behind the last token were never written: as values they could be NaN
            written = (position < first + tokens)[:, None]
            lines = pages + place[:, None] * width
            c = tl.load(lines + rank_at[None, :], mask=written & is_rank, other=0.0)
            r = tl.load(lines + rank + rope_at[None, :], mask=written & is_rope, other=0.0)
            scores = tl.dot(q_r, tl.trans(r), tl.dot(q_c, tl.trans(c))) * scale
            scores = tl.where(position[None, :] <= own[:, None], scores, float("-inf"))
            higher = tl.maximum(largest, tl.max(scores, 1))
            # a token before all of these positions has seen nothing yet: -inf - -inf is NaN
            base = tl.where(higher == float("-inf"), 0.0, higher)
            shrink = tl.exp2(largest - base)
            weights = tl.exp2(scores - base[:, None])
            total = total * shrink + tl.sum(weights, 1)
            mixed = tl.dot(weights.to(c.dtype), c, mixed * shrink[:, None])
            largest = higher
        line = split.to(tl.int64) * pairs + row
        tl.store(parts + line[:, None] * rank + rank_at[None, :], mixed, mask=known & is_rank)
        tl.store(states + line * 2, largest, mask=row < pairs)
        tl.store(states + line * 2 + 1, total, mask=row < pairs)


@triton.jit
def merge_parts(
    parts,  # as above
    states,
    start,
    out,  # bf16 [tokens, heads, rank]
    tokens,
    heads,
    rank,
    splits,
    PAGE: tl.constexpr,
    SPLITS: tl.constexpr,  # splits, padded to a power of two
    COLUMNS: tl.constexpr,  # of a program
):
    """Some columns of one (token, head) pair."""
    row, pairs = tl.program_id(0), tokens * heads
    used, share = _share(start, tokens, splits, PAGE)
    split = tl.arange(0, SPLITS)
    there = split * share < used
    line = split.to(tl.int64) * pairs + row
    largest = tl.load(states + line * 2, mask=there, other=float("-inf"))
    total = tl.load(states + line * 2 + 1, mask=there, other=0.0)
    shrink = tl.exp2(largest - tl.max(largest, 0))
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < rank
    source = parts + line[:, None] * rank + column[None, :]
    part = tl.load(source, mask=there[:, None] & inside[None, :], other=0.0)
    mixed = tl.sum(part * shrink[:, None], 0) / tl.sum(total * shrink, 0)
    tl.store(out + row * rank + column, mixed.to(out.dtype.element_ty), mask=inside)
