"""The training graph is the model: float64 reference, the runtime, and gradients of plain torch."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

import hybrid
from hybrid.vision import positions
from hybrid.vision.prompt import expanded
from nano.data import mix
from nano.export.directory import write
from nano.export.reading import parameters
from nano.model.batch import Row, batch
from nano.model.experts import routed
from nano.model.forward import Graph
from nano.model.parameters import BIAS, initial
from nano.model.shape import model_config
from nano.training.masters import Masters
from nano.training.optimiser import Optimiser
from nano.training.passes import dealt, passes
from nano.training.schedule import Plan
from nano.training.state import Run
from tests.reference.float64_model import Float64Model

DENSE = {"n_routed_experts": 4, "num_experts_per_tok": 4}  # nothing to choose: no choice can differ


def lively(config, vocabulary):
    """Weights that matter everywhere: a steep head, biases and norms away from their start."""
    made = initial(config, vocabulary, seed=3)
    random = torch.Generator().manual_seed(4)
    for name, values in made.items():
        if name.endswith("lm_head.weight"):
            values.mul_(10)
        elif values.ndim == 1:
            scale = 0.1 if name.endswith((BIAS, "bias")) else 0.3
            values.add_(scale * torch.randn(values.shape, generator=random))
    return made


@pytest.fixture(scope="module")
def exported(small_shape, nano_vocabulary, tmp_path_factory):
    """(run, directory) for a shape whose router chooses, and one whose router has no choice."""
    made = {}
    for name, change in (("routed", {}), ("dense", DENSE)):
        shape = replace(small_shape, **change)
        master = lively(model_config(shape, nano_vocabulary), nano_vocabulary)
        run = Run(
            Plan(), shape, Masters.of(master), Optimiser.of(shape.num_attention_heads, master)
        )
        directory = tmp_path_factory.mktemp(name) / "model"
        write(directory, run, nano_vocabulary)
        made[name] = run, directory
    return made


def whole(row):
    """A row whose every id is predicted."""
    return Row(row.task, row.ids, [1.0] * len(row.ids), row.media)


def graph_logits(run, vocabulary, rows):
    graph = Graph(model_config(run.shape, vocabulary))
    with torch.no_grad():
        return graph(run.weights.seen, batch([whole(row) for row in rows])).logits.numpy()


def test_the_graph_is_the_float64_model(exported, nano_vocabulary, renderer):
    """Sums of at most 64 terms in float32 over 3 layers: errors of some 64 * 3 * 2^-24 = 1e-5 of
    logits of size 3."""
    run, directory = exported["routed"]
    row = renderer.row(mix.held_out("table", 1)[0])
    ours = graph_logits(run, nano_vocabulary, [row])
    theirs = Float64Model(directory).logits(row.ids)[:-1]
    assert theirs.std() > 0.5
    assert np.abs(ours - theirs).max() < 1e-4


def test_a_batch_is_its_rows(exported, nano_vocabulary, renderer):
    run, _ = exported["routed"]
    rows = [renderer.row(mix.held_out(f, 1)[0]) for f in ("table", "picture", "identity", "clip")]
    together = graph_logits(run, nano_vocabulary, rows)
    alone = np.concatenate([graph_logits(run, nano_vocabulary, [row]) for row in rows])
    assert np.abs(together - alone).max() < 1e-4


@pytest.mark.parametrize("family", ["one call", "picture", "clip"])
def test_the_runtime_computes_what_was_trained(exported, nano_vocabulary, renderer, family):
    """The runtime rounds latents to bf16 (2^-9 relative) and the experts' inputs to int16 (2^-16):
    each of 3 layers moves its output, a part of a stream that grows, by about 2^-9, so logits of
    spread s by less than 3 * 2^-9 * 4 s at four sigma: 0.023 s."""
    run, directory = exported["dense"]
    sample = mix.held_out(family, 1)[0]
    row = renderer.row(sample)
    ours = graph_logits(run, nano_vocabulary, [row])
    prompt, media = renderer.prompt(sample)
    with hybrid.load(
        directory, device="cpu", threads=1, activation="int16", warm_start=False
    ) as engine:
        items = [item for each in media for item in each.items]
        ids = [*prompt, *renderer.answer(sample)]
        rows = expanded(ids, engine.config.media_placeholder_token_id, items)
        theirs = engine._timeline.all_logits(rows)[:-1]
    bound = 0.023 * ours.std()
    assert np.abs(ours - theirs).max() < bound
    for fault in faults(run):
        assert np.abs(graph_logits(fault, nano_vocabulary, [row]) - theirs).max() > bound
        if family == "one call":
            break


def faults(run):
    """The same model with one thing wrong in each."""
    for name in ("model.layers.1.mlp.experts.gate_up", "vision_tower.patch_embed.proj.weight"):
        seen = dict(run.weights.seen)
        seen[name] = seen[name].flip(0 if "experts" in name else 1).contiguous()
        if "experts" in name:
            seen[name] = run.weights.seen[name].flip(1).contiguous()
        yield Run(run.plan, run.shape, Masters(run.weights.master, seen), run.optimiser)


@pytest.mark.parametrize("name", ["routed", "dense"])
def test_the_export_is_the_graphs_weights_bit_for_bit(exported, name):
    run, directory = exported[name]
    back = parameters(directory)
    assert back.keys() == run.weights.seen.keys()
    for key, values in run.weights.seen.items():
        assert torch.equal(back[key], values), key
    assert not torch.equal(back["lm_head.weight"], run.weights.master["lm_head.weight"])


def plain_experts(text, p, layer, h):
    """One token and one expert at a time, with gradients by torch."""
    prefix = f"model.layers.{layer}.mlp."
    scores = torch.sigmoid(h @ p[f"{prefix}gate.weight"].T)
    ids = (scores + p[f"model.layers.{layer}.{BIAS}"]).topk(text.num_experts_per_tok).indices
    rows = []
    for token, chosen in enumerate(ids):
        weights = scores[token, chosen]
        weights = weights / weights.sum() * text.routed_scaling_factor
        out = torch.zeros_like(h[token])
        for weight, expert in zip(weights, chosen, strict=True):
            gate, up = (p[f"{prefix}experts.gate_up"][expert] @ h[token]).chunk(2)
            out = out + weight * (p[f"{prefix}experts.down"][expert] @ (functional.silu(gate) * up))
        rows.append(out)
    return torch.stack(rows)


def test_gradients_of_the_experts_are_torchs(exported, nano_vocabulary):
    run, _ = exported["routed"]
    text = model_config(run.shape, nano_vocabulary).text
    names = [f"model.layers.1.mlp.{n}" for n in ("gate.weight", "experts.gate_up", "experts.down")]

    def gradients(compute):
        p = {n: w.clone().requires_grad_(n in names) for n, w in run.weights.seen.items()}
        h = torch.randn(40, 64, generator=torch.Generator().manual_seed(1)).requires_grad_()
        out = compute(text, p, 1, h)
        (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
        return [h.grad, *(p[name].grad for name in names)]

    ours = gradients(lambda *args: routed(*args)[0])
    for mine, theirs in zip(ours, gradients(plain_experts), strict=True):
        assert (mine - theirs).abs().max() < 1e-5 * theirs.abs().max() + 1e-6
        assert theirs.abs().max() > 0


def test_a_conversation_says_the_same_beside_others(exported, nano_vocabulary, renderer):
    """Of its own length, shorter, longer: in one block with some, in another with the rest."""
    run, _ = exported["dense"]
    graph, stream = Graph(model_config(run.shape, nano_vocabulary)), mix.stream(0, 3, "all")
    rows = [whole(renderer.row(next(stream))) for _ in range(12)]
    rows.sort(key=lambda row: len(row.ids))
    together = graph(run.weights.seen, batch(rows)).logits
    assert any(block.padded[0] > 1 for block in batch(rows).blocks)
    alone = torch.cat([graph(run.weights.seen, batch([row])).logits for row in rows])
    assert torch.allclose(together, alone, atol=1e-3 * float(alone.abs().max()))


def test_loads_count_every_choice(exported, nano_vocabulary):
    run, _ = exported["routed"]
    text = model_config(run.shape, nano_vocabulary).text
    _, load = routed(text, run.weights.seen, 1, torch.randn(30, 64))
    assert load.sum() == 30 * text.num_experts_per_tok


def test_passes_hold_every_row_once_and_little_padding(renderer):
    stream = mix.stream(0, 3, "all")
    rows = [renderer.row(next(stream)) for _ in range(60)]
    groups = list(passes(rows, 2048))
    assert sorted(id(row) for group in groups for row in group) == sorted(map(id, rows))
    for group in groups:
        assert len(group) == 1 or len(group) * max(len(row.ids) for row in group) <= 2048
    tokens = sum(len(row.ids) for row in rows)
    blocks = [block for group in groups for block in batch(group).blocks]
    assert sum(math.prod(block.padded) for block in blocks) < 1.15 * tokens
    assert sum(len(block.slots) for block in blocks) == tokens
    assert len(blocks) < len(rows) / 2


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_get_every_row_once_and_about_as_much_each(threads, renderer):
    stream = mix.stream(0, 3, "all")
    rows = [renderer.row(next(stream)) for _ in range(60)]
    shares = [[row for group in mine for row in group] for mine in dealt(rows, 2048, threads)]
    assert sorted(id(row) for share in shares for row in share) == sorted(map(id, rows))
    tokens = [sum(len(row.ids) for row in share) for share in shares]
    assert max(tokens) - min(tokens) <= max(len(row.ids) for row in rows)
    assert dealt(rows[:1], 2048, threads)[1:] == [[]] * (threads - 1)


def test_the_position_table_begins_as_slow_waves(small_shape, nano_vocabulary):
    """Neighbours alike, corners not; and a smaller grid is still told apart."""
    table = initial(model_config(small_shape, nano_vocabulary), nano_vocabulary, 0)[
        "vision_tower.patch_embed.pos_emb.weight"
    ]
    assert table.std().item() == pytest.approx(0.25, rel=0.01)
    steps = [(table[1:] - table[:-1]).norm(dim=-1), (table[:, 1:] - table[:, :-1]).norm(dim=-1)]
    assert max(step.max() for step in steps) < 0.5 * (table[0, 0] - table[-1, -1]).norm()
    small = positions.table(table, 6, 6)
    apart = torch.cdist(small, small) + 1e9 * torch.eye(36)
    assert apart.min() > 0.2


def test_a_head_begins_by_handing_on_what_it_sees(small_shape, nano_vocabulary):
    """Value and output of a layer, taken together, return more of a state than of another."""
    config = model_config(small_shape, nano_vocabulary)
    master, text = initial(config, nano_vocabulary, 0), config.text
    prefix = "model.layers.1.self_attn."
    latent = master[f"{prefix}kv_a_proj_with_mqa.weight"][: text.kv_lora_rank]
    heads = master[f"{prefix}kv_b_proj.weight"].unflatten(0, (text.num_attention_heads, -1))
    value = (heads[:, text.qk_nope_head_dim :] @ latent).flatten(0, 1)
    through = master[f"{prefix}o_proj.weight"] @ value  # [hidden, hidden]
    assert through.diagonal().mean() > 5 * through.mean().abs()
    embedding = master["model.embed_tokens.weight"]
    assert torch.equal(master["lm_head.weight"], 0.1 * embedding)
    assert embedding.mean(0).norm() > 0.3 * embedding.norm(dim=1).mean()
