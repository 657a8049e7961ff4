"""What is timed and on which tokens: names, order, and prompts that differ where they should."""

import itertools

import pytest

from hybrid.benchmark.cases import KINDS, Case, all_cases, combined_hash, depth_ids, output_hash
from hybrid.benchmark.cases import token_ids as ids
from hybrid.chat.vocabulary import SPECIAL_SLOTS


@pytest.mark.parametrize(
    ("case", "label", "positions"),
    [
        (Case(prompt=512), "pp512", 512),
        (Case(generated=128), "tg128", 128),
        (Case(generated=128, depth=4096), "tg128 @ d4096", 4224),
        (Case(prompt=1, depth=1), "pp1 @ d1", 2),
    ],
)
def test_names_are_those_of_llama_bench(case, label, positions):
    assert (case.label, case.positions) == (label, positions)


def test_every_combination_once_and_cold_last():
    cases = all_cases([512, 64, 512], [8, 0], [0, 16], ["cold", "rotating"])
    assert [(case.kind, case.label) for case in cases] == [
        *(("rotating", name) for name in ("pp512", "pp64", "tg8")),
        *(("rotating", f"{name} @ d16") for name in ("pp512", "pp64", "tg8")),
        *(("cold", name) for name in ("pp512", "pp64", "tg8")),
        *(("cold", f"{name} @ d16") for name in ("pp512", "pp64", "tg8")),
    ]
    assert all_cases([0], [0], [0], KINDS) == []


def test_prompts_rotate_warm_ones_stay_and_no_two_cases_share_any():
    cases = [Case(kind=kind, prompt=64) for kind in KINDS]
    drawn = {case.kind: [ids(case, r, 1000, 0) for r in range(-1, 4)] for case in cases}
    assert len(set(map(tuple, drawn["rotating"]))) == 5
    assert len(set(map(tuple, drawn["warm"]))) == 1
    assert drawn["cold"] == drawn["rotating"]
    longer = ids(Case(prompt=65), 0, 1000, 0)
    assert longer[:64] != drawn["rotating"][1]
    assert ids(Case(generated=64), 0, 1000, 0) != drawn["rotating"][1]
    assert depth_ids(Case(prompt=1, depth=64), 1000, 0) not in drawn["rotating"]


def test_a_seed_says_it_all():
    case = Case(prompt=32, depth=8)
    assert ids(case, 3, 1000, 7) == ids(case, 3, 1000, 7)
    assert ids(case, 3, 1000, 7) != ids(case, 3, 1000, 8)
    assert depth_ids(case, 1000, 7) != depth_ids(case, 1000, 8)


@pytest.mark.parametrize("vocab", [1, SPECIAL_SLOTS, SPECIAL_SLOTS + 2, 163_840])
def test_no_special_token_is_drawn(vocab):
    drawn = ids(Case(prompt=4096), 0, vocab, 0)
    ordinary = max(1, vocab - SPECIAL_SLOTS)
    assert 0 <= min(drawn) <= max(drawn) < ordinary
    if vocab == 163_840:
        assert max(drawn) > 0.99 * ordinary  # the whole range is used
        assert len(set(drawn)) > 4000


def test_hashes_tell_outputs_apart():
    outputs = [[1, 2], [2, 1], [1], [12], [1, 2, 0], []]
    assert all(output_hash(a) != output_hash(b) for a, b in itertools.combinations(outputs, 2))
    assert output_hash([1, 2]) == output_hash((1, 2))
    assert combined_hash(["a", "b"]) != combined_hash(["b", "a"])
