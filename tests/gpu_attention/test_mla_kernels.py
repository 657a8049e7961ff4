"""MLA of a decode step as Triton launches it, interpreted, against float64."""

import pytest
import torch

from hybrid.gpu_attention.kv_cache import PAGE

pytestmark = pytest.mark.triton
RANK, ROPE = 48, 8
SCALE = 0.4  # scores of a spread of 3: with a flat softmax a wrong position could not be seen


def case(tokens, heads, length, rank=RANK, rope=ROPE, seed=0):
    """Arguments of launching.mla_decode but the last: all that is not in use is NaN.

    The block's own rows resemble their token's query and the one before, so that they weigh much.
    """
    make = torch.Generator().manual_seed(seed)
    count = -(-length // PAGE) + 2
    table = torch.randperm(count, generator=make).int()
    rows = torch.full((count * PAGE, rank + rope), torch.nan)
    rows[:length] = torch.randn(length, rank + rope, generator=make)
    query = torch.randn(tokens, heads, rank + rope, generator=make).bfloat16()
    wanted = query.float().mean(1)
    rows[length - tokens : length] += 0.4 * (wanted + wanted.roll(1, 0)) * heads**0.5
    pages = torch.empty(count, PAGE, rank + rope, dtype=torch.bfloat16)
    pages[table.long()] = rows.view(count, PAGE, -1).bfloat16()
    start = torch.tensor([length - tokens], dtype=torch.int32)
    return query, pages, table, start, SCALE, rank


def exact_and_limit(query, pages, table, start, scale, rank):
    """Token by token, position by position, in float64; and what the kernel may differ by.

    A score is an fp32 sum of `width` exact products, scaled: off by width * 2^-22 of its terms at
    most. That much a weight is off in proportion, and once more as the sum that divides it;
    2^-8 for its rounding to bf16; fp32 sums over the positions; the result's rounding to bf16.
    """
    end = int(start) + len(query)
    rows = pages.double()[table.long()].flatten(0, 1)[:end]
    exact, limit = [], []
    for token, q in enumerate(query.double()):
        seen = rows[: int(start) + token + 1]
        weights = torch.softmax(scale * (q @ seen.T), dim=-1)
        off = (scale * (q.abs() @ seen.abs().T)).amax(-1, keepdim=True) * len(seen.T) * 2.0**-22
        value = weights @ seen[:, :rank]
        size = weights @ seen[:, :rank].abs()
        exact.append(value)
        limit.append((2.0**-8 + 2 * off + (end + 16) * 2.0**-23) * size + 2.0**-8 * value.abs())
    return torch.stack(exact), torch.stack(limit)


def excess(interpreter, arguments, programs, faults=()):
    """The largest distance in units of what is allowed."""
    exact, limit = exact_and_limit(*arguments)
    got = interpreter.ask("mla_decode", *arguments, programs, faults=faults)
    assert got.shape == exact.shape
    assert got.dtype == torch.bfloat16
    return ((got.double() - exact).abs() / limit).nan_to_num(torch.inf).max().item()


@pytest.mark.parametrize(
    ("tokens", "heads", "length"),
    [(1, 1, 1), (1, 16, 64), (1, 64, 65), (2, 16, 65), (8, 1, 8), (8, 3, 65), (5, 7, 66)],
)
def test_heads_and_tokens(interpreter, tokens, heads, length):
    assert excess(interpreter, case(tokens, heads, length), 16) <= 1


@pytest.mark.parametrize("length", [1, 63, 64, 65, 128, 129, 1000])
@pytest.mark.parametrize("programs", [1, 5])
def test_lengths_over_one_split_and_several(interpreter, length, programs):
    assert excess(interpreter, case(1, 3, length), programs) <= 1


@pytest.mark.parametrize("tokens", range(1, 9))
def test_a_split_that_the_first_tokens_do_not_see(interpreter, tokens):
    """The block begins at position 127: the second split begins behind its first token."""
    assert excess(interpreter, case(tokens, 2, 127 + tokens), 64) <= 1


@pytest.mark.slow
def test_true_width(interpreter):
    assert excess(interpreter, case(2, 64, 700, rank=512, rope=64), 16) <= 1


FAULTS = {
    "scale": ("tl.dot(q_c, tl.trans(c))) * scale", "tl.dot(q_c, tl.trans(c))) * scale * 1.02"),
    "a token does not see itself": ("position[None, :] <= own", "position[None, :] < own"),
    "a token sees the next one": ("position[None, :] <= own", "position[None, :] <= 1 + own"),
    "no causality": ("position[None, :] <= own[:, None]", "position[None, :] >= 0"),
    "the table is not read": ("tl.load(table + at // PAGE).to(", "(at // PAGE + 0 * split).to("),
    "the next page": ("tl.load(table + at // PAGE)", "tl.load(table + at // PAGE + 1)"),
    "the last page is not masked": ("(position < first + tokens)[", "(position >= 0)["),
    "nothing seen yet": ('tl.where(higher == float("-inf"), 0.0, higher)', "higher"),
    "no rescaling within a split": ("mixed * shrink[:, None])", "mixed)"),
    "no rescaling of the sum": ("total = total * shrink +", "total = total +"),
    "merged without rescaling": ("part * shrink[:, None]", "part"),
    "merged sums without rescaling": ("tl.sum(total * shrink, 0)", "tl.sum(total, 0)"),
    "a split left out": ("there = split * share < used", "there = split * share < used - share"),
    "values of the wrong width": ("is_rope = (rank_at < rank)", "is_rope = (rank_at < rank - 1)"),
    "no rotated part": ("tl.dot(q_r, tl.trans(r), tl", "(tl"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_seen(interpreter, fault):
    old, new = FAULTS[fault]
    arguments = case(3, 2, 130)  # from position 127 on: two splits, the second unseen by the first
    assert excess(interpreter, arguments, 64, [("mla", old, new)]) > 2


def test_without_a_fault_it_passes(interpreter):
    assert excess(interpreter, case(3, 2, 130), 64) <= 1
