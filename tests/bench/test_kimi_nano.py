"""The model in the box does what it learnt, through the runtime; and notices a broken runtime.

Greedy answers to fixed held-out conversations. It does not reach its bars in every family yet:
`REACHED` is what it does, docs/nano.md says what is missing, and `slow` runs the bars themselves.
"""

import nano_eval
import numpy as np
import pytest
from nano_faults import FAULTS, Fault

import hybrid
from hybrid.cache.policy import POLICIES
from hybrid.cache.simulate import replay, replay_bound, replay_ram
from nano.data import mix

PICTURES = ("picture", "clip")
CALLS = ("one call", "two calls")
BARS = {family: 0.95 if family in PICTURES else 0.97 for family in mix.FAMILIES}
REACHED = {
    "identity": 1.0, "small talk": 1.0, "system prompt": 0.99, "refusal": 0.98,
    "arithmetic": 0.98, "large sums": 0.99, "comparison": 0.97, "copy": 0.98, "reverse": 0.98,
    "sort": 0.98, "count": 0.97, "letters": 0.99, "table": 0.98, "needle 200": 1.0,
    "needle 1000": 0.99, "needle 3000": 0.96, "picture": 0.95, "clip": 0.99, "one call": 0.99,
    "two calls": 1.0, "tool result": 0.98, "no call": 0.99,
}  # fmt: skip
FEW, MANY = 10, 100  # conversations of each family
SLOW = pytest.mark.slow
SEEN = [fault for fault in FAULTS if fault.shows_in]


@pytest.fixture(scope="module")
def engine():
    with load() as engine:
        yield engine


def load(directory=hybrid.KIMI_NANO, **options):
    options = {"activation": "int8", "threads": 2, "warm_start": False} | options
    return hybrid.load(directory, device="cpu", **options)


def test_it_is_small_and_complete():
    files = list(hybrid.KIMI_NANO.iterdir())
    assert sum(file.stat().st_size for file in files) <= 25e6
    names = {file.name for file in files}
    assert {"README.md", "config.json", "chat_template.jinja", "tiktoken.model"} <= names
    text = hybrid.ModelConfig.from_dir(hybrid.KIMI_NANO).text
    assert text.moe_layers >= 3
    assert text.n_routed_experts >= 32


@pytest.mark.parametrize("family", [f for f in mix.FAMILIES if f != "needle 3000"])
def test_a_few_of_each_family_are_right(family, engine):
    row = nano_eval.measure(engine, family, FEW)
    assert row.right >= REACHED[family] - 0.35  # three standard deviations of ten
    assert row.ended == 1.0


def _with_its_bar(family):
    missing = REACHED[family] < BARS[family]
    marks = pytest.mark.xfail(reason=f"reaches {REACHED[family]:.0%}", strict=True)
    return pytest.param(family, marks=[marks] if missing else [])


@SLOW
@pytest.mark.parametrize("family", [_with_its_bar(family) for family in mix.FAMILIES])
def test_the_bars_hold(family, engine):
    row = nano_eval.measure(engine, family, MANY)
    assert row.right >= BARS[family]
    assert row.ended >= BARS[family]
    if family in CALLS:
        assert row.parsed == 1.0


@SLOW
def test_perplexity_is_that_of_the_training_graph():
    found = nano_eval.perplexities(hybrid.KIMI_NANO, mix.FAMILIES, 20, 2)
    for activation in nano_eval.ACTIVATIONS:
        assert found[activation] == pytest.approx(found["graph"], rel=0.01), activation


@pytest.fixture(scope="module")
def sound():
    """What is right without a fault, by family."""
    families = sorted({fault.shows_in for fault in SEEN})
    rows = nano_eval.sabotage(hybrid.KIMI_NANO, Fault("none"), families, 2 * FEW, 2)
    return {row.family: row.right for row in rows}


@pytest.mark.parametrize("fault", SEEN, ids=lambda fault: fault.name)
def test_a_fault_of_the_runtime_drops_a_task(fault, sound):
    """By more than another machine's rounding could: four answers of twenty."""
    family = fault.shows_in
    (row,) = nano_eval.sabotage(hybrid.KIMI_NANO, fault, [family], 2 * FEW, 2)
    assert row.right < sound[family] - 0.19


@pytest.mark.parametrize(
    "options",
    [{"activation": "int16"}, {"activation": "bf16"}, {"backbone_weights": "int8"}],
    ids=lambda options: next(iter(options.values())),
)
def test_other_numbers_keep_the_answers(options):
    """Coarser or finer arithmetic moves logits, not what a trained model says."""
    families = [f for f in mix.FAMILIES if REACHED[f] >= BARS[f]]
    with load(**options) as engine:
        rows = [nano_eval.measure(engine, family, 5) for family in families]
    assert np.mean([row.right for row in rows]) >= 0.95


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    """What the router chose in conversations of all families."""
    path = tmp_path_factory.mktemp("trace") / "kimi-nano.trace"
    families = [family for family in mix.FAMILIES if "000" not in family]
    with load() as engine:
        return nano_eval.traced(engine, families, 3, path)


def test_the_load_is_spread_and_still_skewed(trace):
    """Balanced over all it learnt: no expert is dead, none takes over; each answer has its own."""
    load = nano_eval.loads(trace)
    assert load.shape == (trace.layers, trace.experts)
    assert load.mean() == pytest.approx(1)
    assert load.min() > 0.05
    assert load.max() < 4


def test_the_cache_makes_something_of_it(trace):
    """With a quarter of the experts: better than chance, below what knowing the future gives."""
    slots = trace.experts // 4
    played = {name: replay(trace, policy, slots) for name, policy in POLICIES.items()}
    bound = replay_bound(trace, slots)
    assert played["decayed-lfu"].hit_rate > 0.25
    assert all(each.hit_rate <= bound.hit_rate for each in played.values())
    in_ram = replay_ram(trace, POLICIES["decayed-lfu"], slots)
    assert in_ram.hit_rate > 0.25
