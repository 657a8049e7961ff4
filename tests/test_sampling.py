"""Sampling against transformers' logits processors and against counting."""

import numpy as np
import pytest
import torch

from hybrid.errors import KernelError, RequestError
from hybrid.sampling import (
    INSTANT,
    THINKING,
    Sampler,
    SamplingParams,
    Scratch,
    _keep_nucleus,
)

VOCAB = 500


def random_logits(seed: int = 0, size: int = VOCAB) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 3, size).astype(np.float32)


def support(params: SamplingParams, logits: np.ndarray, draws: int = 4000) -> dict[int, float]:
    """Frequencies of what a sampler without memory draws."""
    counts: dict[int, int] = {}
    sampler = Sampler(params, [], thinking=True)
    for _ in range(draws):
        token = sampler(logits)
        counts[token] = counts.get(token, 0) + 1
    return {token: count / draws for token, count in counts.items()}


def transformers_distribution(params: SamplingParams, logits: np.ndarray) -> np.ndarray:
    from transformers import (
        LogitsProcessorList,
        MinPLogitsWarper,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    chain = LogitsProcessorList([TemperatureLogitsWarper(params.temperature)])
    if params.top_k:
        chain.append(TopKLogitsWarper(params.top_k))
    if params.top_p and params.top_p < 1:
        chain.append(TopPLogitsWarper(params.top_p))
    if params.min_p:
        chain.append(MinPLogitsWarper(params.min_p))
    scores = chain(
        torch.zeros(1, 1, dtype=torch.long), torch.from_numpy(logits.astype(float))[None]
    )
    return torch.softmax(scores, -1)[0].numpy()


CASES = [
    {"temperature": 1.0, "top_p": 0.95},
    {"temperature": 0.6, "top_p": 0.5},
    {"temperature": 1.7, "top_p": 1.0, "top_k": 7},
    {"temperature": 1.3, "top_p": 0.8, "top_k": 40},
    {"temperature": 1.0, "top_p": 1.0, "min_p": 0.1},
    {"temperature": 2.0, "top_p": 0.9, "top_k": 30, "min_p": 0.05},
    {"temperature": 0.01, "top_p": 0.95},
]


@pytest.mark.oracle
@pytest.mark.parametrize("case", CASES, ids=str)
def test_candidates_and_frequencies_are_those_of_transformers(case):
    logits = random_logits(3)
    params = SamplingParams(seed=1, **case)
    expected = transformers_distribution(params, logits)
    drawn = support(params, logits)
    assert set(drawn) <= set(np.flatnonzero(expected))
    # 5 sigma of a binomial with 4,000 draws; a wrong temperature or cut is tens of sigma
    for token in np.flatnonzero(expected > 0.002):
        sigma = np.sqrt(expected[token] * (1 - expected[token]) / 4000)
        assert abs(drawn.get(int(token), 0.0) - expected[token]) <= 5 * sigma + 1e-9


def test_the_frequency_check_sees_a_wrong_temperature():
    logits = random_logits(3)
    expected = transformers_distribution(SamplingParams(temperature=1.0, top_p=1.0), logits)
    drawn = support(SamplingParams(temperature=1.3, top_p=1.0, seed=1), logits)
    top = int(expected.argmax())
    sigma = np.sqrt(expected[top] * (1 - expected[top]) / 4000)
    assert abs(drawn.get(top, 0.0) - expected[top]) > 5 * sigma


@pytest.mark.parametrize("size", [3, 255, 256, 257, 5000])
def test_top_p_is_exact_where_all_are_equal(size):
    """The edge of the nucleus lies in the middle of one bin that holds everything."""
    logits = np.zeros(size, np.float32)
    sampler = Sampler(SamplingParams(temperature=1.0, top_p=0.9, seed=0), [], thinking=True)
    allowed = int(np.ceil(0.9 * size - 1e-9))
    drawn = {sampler(logits) for _ in range(3000)}
    assert max(drawn) < allowed  # ties go to the lower id
    assert len(drawn) > 0.4 * allowed


@pytest.mark.parametrize("spread", [0.01, 0.5, 2.0, 8.0])
@pytest.mark.parametrize("top_p", [0.1, 0.9, 0.95, 0.999])
def test_the_nucleus_is_that_of_a_full_sort(spread, top_p):
    """The histogram finds the same candidates as sorting all of the real vocabulary."""
    scratch = Scratch.of(163_840)
    scratch.drop[:] = np.abs(np.random.default_rng(2).normal(0, spread, 163_840))
    scratch.drop[7] = 0.0
    scratch.mass[:] = np.exp(-scratch.drop)
    scratch.kept[:] = True
    _keep_nucleus(scratch, top_p)
    order = np.argsort(scratch.drop, kind="stable")
    mass = scratch.mass
    count = int(np.searchsorted(mass[order].cumsum(), top_p * mass.sum())) + 1
    wrong = np.setxor1d(np.flatnonzero(scratch.kept), order[:count])
    assert len(wrong) <= 1  # sums in another order may differ in the last bit, at the very edge


def test_a_tiny_temperature_is_greedy_and_safe():
    logits = random_logits(6)
    sampler = Sampler(SamplingParams(temperature=1e-300, seed=0), [], thinking=True)
    assert {sampler(logits) for _ in range(20)} == {int(logits.argmax())}


def test_greedy_takes_the_largest_and_the_lowest_id_of_equals():
    logits = np.array([0.0, 2.0, 2.0, -1.0], np.float32)
    assert Sampler(SamplingParams(temperature=0.0), [], thinking=True)(logits) == 1


def test_defaults_follow_the_mode():
    for thinking, (temperature, top_p) in ((True, THINKING), (False, INSTANT)):
        given = SamplingParams(temperature=temperature, top_p=top_p, seed=5)
        ours = Sampler(SamplingParams(seed=5), [], thinking=thinking)
        theirs = Sampler(given, [], thinking=not thinking)
        logits = random_logits(9)
        assert [ours(logits) for _ in range(50)] == [theirs(logits) for _ in range(50)]
    assert THINKING == (1.0, 0.95)
    assert INSTANT == (0.6, 0.95)


def test_a_seed_fixes_the_answer_and_no_seed_does_not():
    logits = random_logits(1)

    def answer(seed):
        sampler = Sampler(SamplingParams(seed=seed, temperature=1.5, top_p=1.0), [], thinking=True)
        return [sampler(logits) for _ in range(30)]

    assert answer(7) == answer(7)
    assert answer(7) != answer(8)
    assert answer(None) != answer(None)


@pytest.mark.oracle
def test_repetition_penalty_is_that_of_transformers():
    from transformers import RepetitionPenaltyLogitsProcessor

    logits, prompt = random_logits(2), [1, 5, 5, 77]
    scores = RepetitionPenaltyLogitsProcessor(1.7)(
        torch.tensor([prompt]), torch.from_numpy(logits.copy())[None]
    )[0]
    ours = Sampler(SamplingParams(temperature=0.0, repetition_penalty=1.7), prompt, thinking=True)
    assert ours(logits) == int(scores.argmax())
    penalised = ours._penalise(logits)
    np.testing.assert_allclose(penalised[prompt], scores[prompt], rtol=1e-6)


def test_presence_and_frequency_look_at_the_answer_only():
    logits = np.array([1.0, 0.9, 0.0], np.float32)
    params = SamplingParams(temperature=0.0, presence_penalty=0.05, frequency_penalty=0.06)
    sampler = Sampler(params, [0, 0, 0], thinking=True)
    # 0: 1.0; then 1.0-.05-.06=.89 < .9 -> 1; then 0: .89 vs 1: .79 -> 0; then 0: .83 vs .79 -> 0
    assert [sampler(logits) for _ in range(4)] == [0, 1, 0, 0]


def test_logprobs_are_of_the_model_itself():
    logits = random_logits(4)
    sampler = Sampler(SamplingParams(logprobs=3, temperature=0.2, top_k=1), [], thinking=True)
    token = sampler(logits)
    got = sampler.logprob(logits, token)
    exact = torch.log_softmax(torch.from_numpy(logits).double(), -1)
    assert got.token_id == token
    assert got.logprob == pytest.approx(float(exact[token]), abs=1e-12)
    values, ids = exact.topk(3)
    assert [at for at, _ in got.top] == ids.tolist()
    assert [value for _, value in got.top] == pytest.approx(values.tolist(), abs=1e-12)
    assert Sampler(SamplingParams(), [], thinking=True).logprob(logits, token) is None


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_logit_that_is_not_finite_is_never_sampled_from(bad):
    logits = random_logits()
    logits[17] = bad
    with pytest.raises(KernelError, match="1 of 500 logits are not finite"):
        Sampler(SamplingParams(), [], thinking=True)(logits)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1), ("temperature", float("nan")), ("temperature", "warm"),
        ("temperature", True), ("top_p", 0.0), ("top_p", 1.5), ("top_k", -1), ("top_k", 1.5),
        ("min_p", 2), ("max_tokens", 0), ("seed", -3), ("logprobs", 21),
        ("repetition_penalty", 0.0), ("presence_penalty", 2.1), ("frequency_penalty", -3),
        ("stop", ("",)), ("stop", (5,)), ("stop", 5),
    ],
)  # fmt: skip
def test_a_bad_value_is_refused_by_name(name, value):
    with pytest.raises(RequestError, match=f"^{name} is ") as caught:
        SamplingParams(**{name: value})
    assert caught.value.param == name
    assert "\n" not in str(caught.value)


def test_numbers_of_numpy_are_numbers():
    params = SamplingParams(temperature=np.float32(0.5), seed=np.int64(3), max_tokens=np.int32(9))
    assert (params.temperature, params.seed, params.max_tokens) == (0.5, 3, 9)
    assert type(params.seed) is int


def test_stop_may_be_one_string():
    assert SamplingParams(stop="END").stop == ("END",)
    assert SamplingParams(stop=["a", "b"]).stop == ("a", "b")
