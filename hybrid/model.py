"""The forward pass, whole, on one page. It knows no hardware.

    tokens -> embedding rows, those of pictures replaced by what the vision tower saw
    for each layer:
      x += MLA(norm x)                                    backbone
      x += FFN(norm x)                                    a dense layer: backbone
      x += sum of k routed experts + shared expert        others: router and shared expert in the
                                                          backbone, routed experts wherever
                                                          they are (hybrid.cache)
    final norm -> head

Design: docs/design.md. Routed experts are ordered first, then the shared expert is launched, then
the CPU computes: a disk and a GPU work meanwhile.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hybrid.backbone import Backbone, Routing, Stream
from hybrid.cache.tiers import Tiers
from hybrid.config import TextConfig
from hybrid.vision.features import Features

if TYPE_CHECKING:  # it brings torch, which a machine without a GPU need not wait for
    from hybrid.accelerator.interface import Accelerator


@dataclass(slots=True)
class Spent:
    """Where time and bytes went since the model was loaded."""

    attention_s: float = 0.0
    dense_s: float = 0.0
    router_s: float = 0.0
    shared_s: float = 0.0
    experts_s: float = 0.0
    head_s: float = 0.0


# layer, start, ids and weights [tokens, num_experts_per_tok], whether of a prompt
Watcher = Callable[[int, int, NDArray[np.int32], NDArray[np.float32], bool], None]


@dataclass(frozen=True, slots=True)
class Block:
    """Some consecutive tokens, no more than the backbone takes at once."""

    token_ids: Sequence[int]
    start: int  # position of the first
    pictures: Sequence[tuple[int, NDArray[np.float32]]] = ()  # (row, rows in embeddings' place)


@dataclass(slots=True)
class Model:
    """A loaded model: the backbone, and the routed experts of all layers that have them."""

    text: TextConfig
    backbone: Backbone
    experts: Tiers
    vision: Features | None = None  # None: this model reads text only
    cards: "tuple[Accelerator, ...]" = ()  # the GPUs in use; the first has the backbone
    spent: Spent = field(default_factory=Spent)
    watcher: Watcher | None = None  # is told every routing, for traces

    def close(self) -> None:
        """End what runs in the background, then the devices that it runs on."""
        with ExitStack() as ends:
            for card in self.cards:
                ends.callback(card.close)
            self.experts.close()

    def forward(
        self,
        blocks: Sequence[Block],
        poll: Callable[[], None] = lambda: None,
        *,
        prompt: bool = True,
    ) -> list[Stream]:
        """Run consecutive blocks of tokens; returns the residual stream [tokens, …] of each.

        A block is what a verb of the backbone takes; the experts of a layer take all blocks at
        once, so that a prompt reads their weights seldom. `prompt` tells a part of a prompt from a
        token of the answer: what is read ahead, never what is computed.
        `poll` is called before each layer of a block and may raise to abandon them all: rows of the
        KV cache from the first `start` on are then undefined, all earlier ones are intact.
        """
        streams = [self._embed(block) for block in blocks]
        for layer in range(self.text.num_hidden_layers):
            for at, block in enumerate(blocks):
                poll()
                streams[at] = self._attend(layer, streams[at], block.start)
            if self.text.is_moe(layer):
                streams = self._moe(layer, streams, blocks[0].start, prompt)
            else:
                streams = [self._dense(layer, x) for x in streams]
        return streams

    def _embed(self, block: Block) -> Stream:
        x = self.backbone.embed(block.token_ids)
        for row, rows in block.pictures:
            x = self.backbone.insert(x, row, rows)
        return x

    def logits(self, x: Stream) -> NDArray[np.float32]:
        """Logits [rows, vocab_size] of rows of the residual stream."""
        began = perf_counter()
        logits = self.backbone.logits(x)
        self.spent.head_s += perf_counter() - began
        return logits

    def _attend(self, layer: int, x: Stream, start: int) -> Stream:
        began = perf_counter()
        x = self.backbone.attend(layer, x, start)
        self.spent.attention_s += perf_counter() - began
        return x

    def _dense(self, layer: int, x: Stream) -> Stream:
        began = perf_counter()
        x = self.backbone.dense(layer, x)
        self.spent.dense_s += perf_counter() - began
        return x

    def _moe(self, layer: int, streams: list[Stream], start: int, prompt: bool) -> list[Stream]:
        spent, backbone = self.spent, self.backbone
        began = perf_counter()
        routings = [backbone.route(layer, x) for x in streams]
        routing = _joined(routings)
        if self.watcher is not None:
            self.watcher(layer, start, routing.expert_ids, routing.weights, prompt)
        routed_at = perf_counter()
        step = self.experts.start(layer, routing, prompt)
        started_at = perf_counter()
        shared = [backbone.shared(layer, each) for each in routings]
        shared_at = perf_counter()
        routed = self.experts.finish(step, lambda: self._guess(layer + 1, streams[-1]))
        experts_at = perf_counter()
        row, combined = 0, []
        for x, own in zip(streams, shared, strict=True):
            combined.append(backbone.combine(x, own, routed[row : row + len(x)]))
            row += len(x)
        spent.router_s += routed_at - began
        spent.shared_s += shared_at - started_at + perf_counter() - experts_at
        spent.experts_s += started_at - routed_at + experts_at - shared_at
        return combined

    def _guess(self, layer: int, x: Stream) -> NDArray[np.int32]:
        """What a layer's router says of the state before the last layer's experts: nearly right."""
        return self.backbone.route(layer, x).expert_ids


def _joined(routings: Sequence[Routing]) -> Routing:
    """The routing of all blocks as one, for the experts."""
    if len(routings) == 1:
        return routings[0]
    return Routing(
        np.concatenate([each.hidden for each in routings]),
        np.concatenate([each.expert_ids for each in routings]),
        np.concatenate([each.weights for each in routings]),
    )
