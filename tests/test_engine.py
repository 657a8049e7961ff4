"""The public API end to end on a tiny checkpoint: events, limits, refusals, statistics."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import hybrid
from hybrid import SamplingParams
from hybrid.cpu_experts import auto_mode
from hybrid.cpu_experts.dispatch import available_isas
from hybrid.errors import (
    CheckpointError,
    ConfigError,
    ContextTooLongError,
    PlacementError,
    RequestError,
)
from hybrid.tiny import TinyShape, write_tiny

KV_TOKENS = 256
HELLO = [{"role": "user", "content": "Hello, who are you?"}]


@pytest.fixture(scope="module")
def engine(tiny_dir):
    with_progress: list[hybrid.Progress] = []
    engine = hybrid.load(tiny_dir, device="cpu", kv_tokens=KV_TOKENS, progress=with_progress.append)
    engine.load_progress = with_progress
    return engine


def answer(engine, prompt=HELLO, **options):
    sampling = SamplingParams(**({"seed": 3, "max_tokens": 60} | options.pop("sampling", {})))
    return list(engine.generate(prompt, sampling, **options))


@pytest.fixture(scope="module")
def seed(engine):
    """A seed with which the random model says something in either mode."""
    for seed in range(100):
        sampling = {"seed": seed}
        thoughts = text(answer(engine, sampling=sampling), "reasoning")
        if len(thoughts) > 12 and len(text(answer(engine, sampling=sampling, thinking=False))) > 12:
            return seed
    raise AssertionError("the tiny model never speaks")


def text(events, kind="content"):
    return "".join(event.text for event in events if event.kind == kind)


def ids_of(events):
    return [token for event in events for token in event.token_ids]


def test_public_names_resolve():
    for name in hybrid.__all__:
        assert getattr(hybrid, name)
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        hybrid.lod  # noqa: B018


def test_loading_reports_every_phase_to_its_end(engine):
    last = {p.phase: p for p in engine.load_progress}
    assert set(last) == {"kernels", "weights", "experts"}
    assert all(p.done == p.total for p in last.values())


def test_a_conversation_is_answered(engine):
    events = answer(engine)
    assert [e.kind for e in events].count("finish") == 1
    finish = events[-1]
    assert finish.kind == "finish"
    assert finish.finish_reason in ("stop", "length")
    assert finish.usage.prompt_tokens == len(engine.prompt_ids(HELLO))
    assert finish.usage.completion_tokens >= len(ids_of(events)) > 0
    assert "<|" not in text(events) + text(events, "reasoning")


def test_thinking_starts_in_reasoning_and_instant_in_content(engine, seed):
    assert answer(engine, sampling={"seed": seed})[0].kind == "reasoning"
    instant = answer(engine, thinking=False, sampling={"seed": seed})
    assert instant[0].kind == "content"
    assert not text(instant, "reasoning")
    assert instant[-1].usage.reasoning_tokens == 0


def test_messages_and_their_token_ids_are_the_same_request(engine):
    assert answer(engine) == answer(engine, engine.prompt_ids(HELLO))


def test_a_seed_repeats_an_answer_whatever_is_cached(engine):
    answer(engine, [3, 4, 5])
    first = answer(engine)
    again = answer(engine)
    assert ids_of(first) == ids_of(again)
    assert first[-1].usage.cached_tokens < again[-1].usage.cached_tokens


def test_the_next_turn_reuses_the_common_prefix(engine):
    first = answer(engine, thinking=False)
    follow_up = [
        *HELLO,
        {"role": "assistant", "content": text(first)},
        {"role": "user", "content": "And?"},
    ]
    usage = answer(engine, follow_up, thinking=False)[-1].usage
    assert usage.cached_tokens >= len(engine.prompt_ids(HELLO, thinking=False))


def test_max_tokens_cuts_the_answer(engine):
    events = answer(engine, sampling={"max_tokens": 3})
    assert events[-1].finish_reason == "length"
    assert events[-1].usage.completion_tokens == 3


def test_a_full_cache_ends_the_answer(engine):
    ids = [7] * (KV_TOKENS - 2)
    events = answer(engine, ids, sampling={"max_tokens": None, "temperature": 0.0})
    assert events[-1].usage.completion_tokens <= 2
    with pytest.raises(ContextTooLongError, match="256 tokens but the KV cache holds 256"):
        engine.generate([7] * KV_TOKENS)


def test_a_stop_string_ends_the_visible_answer_before_it(engine, seed):
    whole = text(answer(engine, thinking=False, sampling={"seed": seed}))
    stop = whole[5:8]
    cut = answer(engine, thinking=False, sampling={"seed": seed, "stop": stop})
    assert text(cut) == whole[: whole.index(stop)]
    assert cut[-1].finish_reason == "stop"


@pytest.mark.parametrize("name", ["<|im_end|>", "[EOS]", "[EOT]"])
def test_every_stop_token_of_the_tokenizer_ends_an_answer(engine, monkeypatch, name):
    """Spec §7 (f): <|im_end|> above all, found by name and not by config.json's eos."""
    forced = iter([65, 66, engine.tokenizer.id_of(name), 67])
    monkeypatch.setattr("hybrid.sampling.Sampler.__call__", lambda *_: next(forced))
    events = answer(engine, thinking=False)
    assert ids_of(events) == [65, 66]
    assert events[-1].finish_reason == "stop"


def test_trusting_the_configs_eos_alone_would_run_past_the_end(engine, monkeypatch):
    """The planted fault to the test above."""
    end = engine.tokenizer.id_of("<|im_end|>")
    monkeypatch.setattr(engine.tokenizer, "stop_ids", frozenset({end - 1}))
    forced = iter([65, end, 67, 68])
    monkeypatch.setattr("hybrid.sampling.Sampler.__call__", lambda *_: next(forced))
    assert 67 in ids_of(answer(engine, thinking=False, sampling={"max_tokens": 4}))


def test_no_bos_is_added(engine):
    """Spec §7 (k)."""
    ids = engine.prompt_ids(HELLO)
    assert ids[0] == engine.tokenizer.id_of("<|im_user|>")
    assert engine.tokenizer.id_of("[BOS]") not in ids


def test_logprobs_come_with_the_tokens_they_belong_to(engine):
    events = answer(engine, sampling={"logprobs": 2, "temperature": 0.0})
    for event in events:
        assert [entry.token_id for entry in event.logprobs] == list(event.token_ids)
        assert all(len(entry.top) == 2 for entry in event.logprobs)
        assert all(entry.top[0][0] == entry.token_id for entry in event.logprobs)  # greedy
    plain = answer(engine)
    assert not any(event.logprobs for event in plain)


def test_should_stop_ends_with_cancelled_and_the_engine_goes_on(engine):
    polls = iter(range(10_000))
    events = answer(engine, should_stop=lambda: next(polls) > 40)
    assert events[-1].finish_reason == "cancelled"
    assert ids_of(events)
    at_once = answer(engine, should_stop=lambda: True)
    assert [e.kind for e in at_once] == ["finish"]
    assert at_once[-1].finish_reason == "cancelled"
    assert answer(engine)[-1].finish_reason in ("stop", "length")


def test_a_new_request_takes_over(engine):
    abandoned = engine.generate(HELLO, SamplingParams(seed=1))
    next(abandoned)
    expected = ids_of(answer(engine))
    assert expected
    with pytest.raises(RequestError, match="another request took this engine over"):
        list(abandoned)
    assert ids_of(answer(engine)) == expected


def test_an_old_iterator_that_starts_late_cannot_spoil_a_newer_answer(engine):
    greedy = SamplingParams(max_tokens=12, temperature=0.0)
    expected = ids_of(engine.generate([*range(100, 130)], greedy))
    late = engine.generate([*range(20, 60)], greedy)
    current = engine.generate([*range(100, 130)], greedy)
    got = [next(current) for _ in range(3)]
    with pytest.raises(RequestError, match="took this engine over"):
        next(late)
    got += list(current)
    assert ids_of(got) == expected


def test_logits_in_between_take_over_too(engine):
    answering = engine.generate(HELLO, SamplingParams(seed=1))
    next(answering)
    engine.logits([1, 2, 3])
    with pytest.raises(RequestError, match="took this engine over"):
        list(answering)


@pytest.mark.parametrize("options", [{"activation": "int16"}, {"backbone_weights": "int8"}])
def test_other_numerics_answer_and_stay_near(tiny_dir, options):
    usual, (name, _) = {"activation": "int8", "backbone_weights": "bf16"}, *options.items()
    logits = []
    for chosen in (usual, usual | options):
        with hybrid.load(tiny_dir, device="cpu", kv_tokens=64, **chosen) as engine:
            logits.append(engine.logits([*range(100, 130)]))
            assert getattr(engine.options, name) == chosen[name]
    assert not np.array_equal(*logits)
    assert np.corrcoef(logits[0][0], logits[1][0])[0, 1] > 0.99  # one token: no routing to flip


def test_auto_keeps_what_it_measured(tiny_dir, monkeypatch):
    speeds = auto_mode.Speeds(int8=20.0, int16=19.0)
    monkeypatch.setattr(auto_mode, "known_speeds", lambda isa, threads: speeds)
    with hybrid.load(tiny_dir, device="cpu", kv_tokens=64, activation="auto") as engine:
        expected = "int8" if engine.options.isa == "portable" else "int16"
        assert engine.options.activation == expected


def test_a_request_that_comes_while_another_is_prepared_is_its_own(engine, monkeypatch):
    greedy = SamplingParams(max_tokens=6, temperature=0.0)
    expected = ids_of(engine.generate([*range(100, 130)], greedy))
    inner = []
    prepare = hybrid.engine.Sampler

    def interrupted(*args, **kwargs):
        if not inner:
            inner.append(None)
            inner.append(engine.generate([*range(20, 50)], greedy))
        return prepare(*args, **kwargs)

    monkeypatch.setattr(hybrid.engine, "Sampler", interrupted)
    outer = engine.generate([*range(100, 130)], greedy)
    got = [next(outer)]
    with pytest.raises(RequestError, match="took this engine over"):
        next(inner[1])
    assert ids_of(got + list(outer)) == expected


def test_threads_are_told_or_answered_right(engine):
    greedy = SamplingParams(max_tokens=20, temperature=0.0)
    prompts = [[*range(start, start + 30)] for start in (0, 100, 200)]
    expected = [ids_of(engine.generate(prompt, greedy)) for prompt in prompts]

    def ask(which):
        try:
            return ids_of(engine.generate(prompts[which], greedy))
        except RequestError:
            return None

    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(ask, [0, 1, 2] * 10))
    for which, got in enumerate(answers):
        assert got in (None, expected[which % 3])


def test_a_closed_engine_says_so(tiny_dir):
    with hybrid.load(tiny_dir, device="cpu", kv_tokens=64) as engine:
        answering = engine.generate([1, 2, 3], SamplingParams(temperature=0.0))
        next(answering)
    engine.close()
    for call in (
        lambda: list(answering),
        lambda: engine.generate([1]),
        lambda: engine.logits([1]),
        lambda: engine.kv_tokens,
        lambda: engine.open_image(b""),
        lambda: engine.open_video(b""),
        engine.stats,
    ):
        with pytest.raises(RequestError, match="this engine is closed"):
            call()


def test_a_model_without_experts_runs(tmp_path):
    shape = TinyShape(num_hidden_layers=2, first_k_dense_replace=2)
    engine = hybrid.load(write_tiny(tmp_path / "dense", shape), device="cpu", kv_tokens=64)
    assert engine.logits([1, 2]).shape == (2, 1024)


def test_logits_larger_than_memory_are_refused(engine, monkeypatch):
    monkeypatch.setattr("hybrid.engine.free_host_bytes", lambda: 4000)
    with pytest.raises(PlacementError, match="logits of 3 positions need"):
        engine.logits([1, 2, 3])


def test_a_prompt_beyond_the_model_itself_is_not_sent_to_a_larger_cache(engine):
    with pytest.raises(ContextTooLongError, match="the model reads at most 16384; shorten it"):
        engine.generate([7] * 20_000)
    with pytest.raises(ContextTooLongError, match="kv_tokens=301 or more"):
        engine.generate([7] * 300)


def test_logits_are_float32_for_every_position(engine):
    logits = engine.logits([1, 2, 3])
    assert logits.shape == (3, engine.config.text.vocab_size)
    assert logits.dtype == np.float32


@pytest.mark.parametrize(
    ("prompt", "match"),
    [
        ([], "empty or not a list of token ids"),
        ([[1, 2]], "empty or not a list of token ids"),
        ([1.5], "empty or not a list of token ids"),
        (["a"], "empty or not a list of token ids"),
        ([-1], "token id -1 is not in the vocabulary of 1024"),
        ([1024], "token id 1024 is not in the vocabulary of 1024"),
        ([{"role": "wizard", "content": "x"}], "wizard"),
        ([[1], [2, 3]], "empty or not a list of token ids"),
        ("hello", "empty or not a list of token ids"),
        (None, "the prompt is a NoneType; give a list"),
        ({"role": "user", "content": "x"}, "the prompt is a dict; give a list"),
        (iter([1, 2]), "the prompt is a list_iterator; give a list"),
    ],
)
def test_a_bad_prompt_is_refused_in_one_line(engine, prompt, match):
    with pytest.raises(RequestError, match=match) as caught:
        engine.generate(prompt)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("option", "value", "error", "match"),
    [
        ("device", "tpu", ConfigError, "device is 'tpu'; choose auto, cpu or cuda"),
        ("threads", 0, ConfigError, "threads is 0"),
        ("threads", True, ConfigError, "threads is True"),
        ("threads", 1.5, ConfigError, "threads is 1.5"),
        ("threads", 5000, ConfigError, "threads is 5000; give at most 1024"),
        ("kv_tokens", 10**9, ConfigError, "kv_tokens is 1000000000; this model allows at most"),
        ("activation", "fp4", ConfigError, "activation is 'fp4'"),
        ("backbone_weights", "fp8", ConfigError, "backbone_weights is 'fp8'; choose bf16 or int8"),
        ("isa", "sse", ConfigError, "isa is 'sse'"),
        ("ram_budget", -1, ConfigError, "ram_budget is -1; give a whole number of at least 0"),
        ("vram_budget", 0.5, ConfigError, "vram_budget is 0.5"),
        ("cache_policy", "fifo", ConfigError, "cache_policy is 'fifo'; choose one of decayed-lfu"),
        ("prefetch", 1, ConfigError, "prefetch is 1; give True or False"),
    ],
)
def test_a_bad_option_is_refused_in_one_line(tiny_dir, option, value, error, match):
    with pytest.raises(error, match=match):
        hybrid.load(tiny_dir, **{"device": "cpu", option: value})


def test_cuda_without_a_card_is_one_line(tiny_dir, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(PlacementError, match="torch sees no CUDA device"):
        hybrid.load(tiny_dir, device="cuda")


def test_a_directory_that_is_no_model_is_one_line(tmp_path):
    for directory in (tmp_path / "absent", tmp_path):
        with pytest.raises((CheckpointError, ConfigError)) as caught:
            hybrid.load(directory)
        assert "\n" not in str(caught.value)


def test_statistics_add_up(engine):
    before = engine.stats()
    finish = answer(engine)[-1]
    after = engine.stats()
    assert after["last"]["completion_tokens"] == finish.usage.completion_tokens
    grown = after["total"]["completion_tokens"] - before["total"]["completion_tokens"]
    assert grown == finish.usage.completion_tokens
    ram = after["tiers"]["ram"]
    assert ram["bytes"] > before["tiers"]["ram"]["bytes"]
    record_bytes = engine._timeline.model.experts.counters.record_bytes
    assert ram["bytes"] == ram["expert_reads"] * record_bytes
    assert after["context"]["capacity"] == KV_TOKENS
    assert after["options"]["isa"] in available_isas()
    assert all(seconds >= 0 for seconds in after["seconds"].values())
