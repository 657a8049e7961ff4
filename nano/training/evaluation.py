"""Held-out conversations in the training graph: is every id of the answer the likeliest one?

The answer is given and each of its ids predicted from the right ones before it. Greedy decoding
says exactly this answer if, and only if, all are the likeliest; so this is the accuracy of greedy
generation, reasoning included, at the price of one pass.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import torch

from nano.data import mix
from nano.data.render import Renderer
from nano.data.sample import Sample
from nano.model.batch import Row, batch
from nano.model.forward import Graph
from nano.model.parameters import Parameters
from nano.training.passes import passes

PASS_TOKENS = 4096


def accuracy(
    graph: Graph, seen: Parameters, renderer: Renderer, families: Iterable[str], count: int
) -> dict[str, float]:
    """Share of held-out conversations answered exactly, by family."""
    return {
        family: _exact(graph, seen, [_last_turn(renderer, s) for s in mix.held_out(family, count)])
        for family in families
    }


def nats(graph: Graph, seen: Parameters, rows: Sequence[Row]) -> dict[str, tuple[float, int]]:
    """Summed loss and number of ids that the model says, by task; perplexity is exp(ratio)."""
    sums: dict[str, tuple[float, int]] = defaultdict(lambda: (0.0, 0))
    with torch.no_grad():
        for row in rows:
            made = batch([row])
            logits = graph(seen, made).logits
            loss = torch.nn.functional.cross_entropy(logits, made.targets, reduction="sum")
            spent, ids = sums[row.task]
            sums[row.task] = spent + float(loss), ids + len(made.targets)
    return dict(sums)


def _last_turn(renderer: Renderer, sample: Sample) -> Row:
    """Only the last answer counts; earlier turns are given."""
    row, answer = renderer.row(sample), len(renderer.answer(sample))
    weights = [0.0] * (len(row.ids) - answer) + [1.0] * answer
    return Row(row.task, row.ids, weights, row.media)


@torch.no_grad()
def _exact(graph: Graph, seen: Parameters, rows: Sequence[Row]) -> float:
    right = 0
    for group in passes(rows, PASS_TOKENS):
        made = batch(group)
        wrong = graph(seen, made).logits.argmax(-1) != made.targets
        right += len(group) - len(set(made.owners[wrong].tolist()))
    return right / len(rows)
