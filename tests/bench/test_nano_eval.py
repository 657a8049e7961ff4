"""bench/nano_eval.py: what counts as right, and faults that each change what the model says."""

import json

import nano_eval
import numpy as np
import pytest
import torch
from nano_faults import FAULTS, Fault

import hybrid
from hybrid.chat.vocabulary import Vocabulary
from hybrid.tiny import TinyShape
from hybrid.tiny.bpe import build_vocabulary, special_names
from nano.data import mix
from nano.data.draw import Draw
from nano.export.directory import write
from nano.model.parameters import BIAS, initial
from nano.model.shape import model_config
from nano.training.masters import Masters
from nano.training.optimiser import Optimiser
from nano.training.schedule import Plan
from nano.training.state import Run

SHAPE = TinyShape(
    hidden_size=64, num_hidden_layers=2, num_attention_heads=2, q_lora_rank=32,
    moe_intermediate_size=64, n_routed_experts=4, num_experts_per_tok=3, vt_num_hidden_layers=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    base = build_vocabulary(512)
    vocabulary = Vocabulary(base, special_names(len(base)))
    master = initial(model_config(SHAPE, vocabulary), vocabulary, seed=1)
    for name, values in master.items():
        if name.endswith("lm_head.weight"):
            values.mul_(5)
        elif name.endswith(BIAS):
            values += torch.tensor([0.5, -0.5]).repeat(len(values) // 2)
        elif values.ndim > 1 and not name.endswith(("embed_tokens.weight", "mlp.gate.weight")):
            values.mul_(2)  # so that every part has its say
    directory = tmp_path_factory.mktemp("nano") / "model"
    optimiser = Optimiser.of(SHAPE.num_attention_heads, master)
    write(directory, Run(Plan(), SHAPE, Masters.of(master), optimiser), vocabulary)
    return directory


def logits(directory, sample):
    with hybrid.load(
        directory, device="cpu", threads=1, activation="int8", warm_start=False
    ) as engine:
        prompt, _ = engine._prompting.of_messages(sample.messages, thinking=False)
        return engine._timeline.all_logits(prompt)


@pytest.fixture(scope="module")
def sound(model_dir):
    """A clip and a picture, with the logits of the sound model."""
    samples = [mix.FAMILIES["clip"](Draw.of("2")), mix.FAMILIES["picture"](Draw.of("3"))]
    return [(sample, logits(model_dir, sample)) for sample in samples]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_every_fault_changes_what_the_model_says(fault, model_dir, sound, tmp_path):
    directory = fault.directory(model_dir, tmp_path)
    with fault.patch(model_dir):
        moved = [np.abs(logits(directory, s) - right).max() / right.std() for s, right in sound]
    assert max(moved) > 0.02


def test_no_fault_changes_nothing_and_a_copy_is_the_model(model_dir, sound, tmp_path):
    sample, right = sound[0]
    assert np.array_equal(logits(model_dir, sample), right)
    copied = Fault("copied", lambda raw, tensors: None).directory(model_dir, tmp_path)
    assert np.array_equal(logits(copied, sample), right)


def call():
    return next(s for n in range(9) if (s := mix.FAMILIES["one call"](Draw.of(f"{n}"))).tools)


def said(sample, **change):
    functions = [c["function"] for c in sample.answer.get("tool_calls", ())]
    calls = tuple((f["name"], f["arguments"]) for f in functions)
    given = {"content": sample.answer["content"], "calls": calls, "ended": True} | change
    return nano_eval.Said(**given)


def test_an_answer_is_right_only_if_all_of_it_is():
    sample = call()
    assert nano_eval.is_right(sample, said(sample))
    ((name, arguments),) = said(sample).calls
    spaced = ((name, f" {arguments} "),)
    assert nano_eval.is_right(sample, said(sample, calls=spaced))
    for change in (
        {"ended": False}, {"content": "Hm."}, {"calls": ()}, {"calls": ((name, "{}"),)},
        {"calls": ((f"{name}s", arguments),)}, {"calls": ((name, arguments[:-1]),)},
    ):  # fmt: skip
        assert not nano_eval.is_right(sample, said(sample, **change)), change


def test_a_call_is_valid_by_its_schema():
    sample = call()
    ((name, text),) = said(sample).calls
    arguments = json.loads(text)
    first = next(iter(arguments))
    assert nano_eval.is_valid(sample, (name, text))
    for wrong in (arguments | {"x": 1}, arguments | {first: None}, {}, [arguments]):
        assert not nano_eval.is_valid(sample, (name, json.dumps(wrong)))
    assert not nano_eval.is_valid(sample, ("nothing", text))
    assert not nano_eval.is_valid(sample, (name, "{"))


def test_an_untrained_model_is_measured(model_dir):
    with hybrid.load(model_dir, device="cpu", threads=1, kv_tokens=500, warm_start=False) as engine:
        row = nano_eval.measure(engine, "identity", 2)
    assert (row.right, row.count, row.parsed) == (0.0, 2, None)


def test_perplexity_of_the_runtime_is_that_of_the_graph(model_dir):
    """Activations in int8 round to one in 254 of the largest: a per cent of the loss at most."""
    found = nano_eval.perplexities(model_dir, ["identity", "picture", "clip"], 2, 1)
    for activation in nano_eval.ACTIVATIONS:
        assert found[activation] == pytest.approx(found["graph"], rel=0.05)
    assert found["graph"] > 10
