"""A row of a real, tiny model: its numbers against the engine's own, and hashes of placements."""

from contextlib import closing, contextmanager

import pytest

import hybrid
from hybrid.benchmark import Case, Run, rows, to_json
from hybrid.benchmark.cases import depth_ids, output_hash, token_ids
from hybrid.cache.prepare import prepare
from hybrid.cache.source import slot_bytes
from hybrid.cpu_experts.record import RecordShape

CASES = [
    Case(prompt=24, depth=8),
    Case(generated=6, depth=8),
    Case(generated=6),
    Case(kind="warm", generated=6),
    Case(kind="cold", prompt=24),
]
SLOT = slot_bytes(RecordShape(64, 32).nbytes)  # the default tiny shape


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    directory = hybrid.tiny.write_tiny(tmp_path_factory.mktemp("bench") / "tiny", vision=False)
    prepare(directory)
    return directory


@pytest.fixture(scope="module")
def run_with(model_dir):
    """Rows by label and kind, with these options of hybrid.load; made once."""
    made = {}

    def run(**options):
        @contextmanager
        def opened():
            with closing(hybrid.load(model_dir, device="cpu", activation="int8", **options)) as own:
                yield own

        key = repr(options)
        if key not in made:
            found = rows(CASES, opened, Run(repetitions=2))
            made[key] = {(row.case.label, row.case.kind): row for row in found}
        return made[key]

    return run


def test_the_hash_is_that_of_the_greedy_tokens(run_with, model_dir):
    case = CASES[1]
    with closing(hybrid.load(model_dir, device="cpu", activation="int8")) as engine:
        vocab = engine.config.text.vocab_size
        for number, sample in enumerate(run_with()[case.label, case.kind].samples):
            ids = depth_ids(case, vocab, 0) + token_ids(case, number, vocab, 0)
            greedy = engine.logits(ids)[case.depth :].argmax(axis=1)
            assert sample.output_hash == output_hash(greedy)
            assert sample.output_hash != output_hash([*greedy[:-1], greedy[-1] + 1])


@pytest.mark.parametrize(
    "options",
    [
        {"threads": 2},
        {"ram_budget": 16 * SLOT},
        {"ram_budget": 16 * SLOT, "vram_budget": 8 * SLOT, "cache_policy": "lru"},
        {"isa": "portable", "threads": 1},
    ],
    ids=["threads", "disk", "three tiers", "portable"],
)
def test_placement_changes_speed_and_never_hashes(run_with, options):
    own, other = run_with(threads=1), run_with(**options)
    assert {k: row.output_hash for k, row in own.items()} == {
        k: row.output_hash for k, row in other.items()
    }


def test_another_numeric_mode_may_change_them(run_with):
    """The hash is no constant."""
    own, other = run_with(threads=1), run_with(backbone_weights="int8")
    assert any(own[key].output_hash != other[key].output_hash for key in own)


def test_shares_of_the_tiers_are_of_all_uses(run_with):
    found = {key: to_json(row) for key, row in run_with(ram_budget=16 * SLOT).items()}
    for row in found.values():
        assert sum(tier["share"] for tier in row["tiers"].values()) == pytest.approx(1, abs=1e-5)
        assert row["tiers"]["nvme"]["share"] > 0.2  # RAM holds a third of 48
    generated = found["tg6", "rotating"]
    assert generated["distinct_experts_per_step"] == 4
    assert generated["tiers"]["nvme"]["gb_s"] > 0


def test_parts_add_up_to_the_time(run_with):
    for row in run_with(threads=1).values():
        found = to_json(row)
        seconds = sum(found["seconds_per_token"].values())
        assert found["seconds_per_token"]["between"] >= 0
        assert seconds == pytest.approx(row.seconds / row.case.tokens / 2, rel=1e-4)  # digits kept


def test_in_memory_nothing_comes_from_disk(run_with):
    for row in run_with(threads=1).values():
        tiers = to_json(row)["tiers"]
        assert (tiers["ram"]["share"], tiers["nvme"]["share"]) == (1, 0)
        assert tiers["nvme"]["gb_s"] is None
