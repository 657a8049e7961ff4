"""The forward pass, whole, on one page. It knows no hardware.

    tokens -> embedding rows, those of pictures replaced by what the vision tower saw
    for each layer:
      x += MLA(norm x)                                    backbone
      x += FFN(norm x)                                    a dense layer: backbone
      x += sum of k routed experts + shared expert        others: router and shared expert in the
                                                          backbone, routed experts in host RAM
    final norm -> head

Design: docs/design.md. The shared expert is launched before the routed experts, so that a GPU
computes it while the CPU works.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from hybrid.backbone import Backbone, Stream
from hybrid.config import TextConfig
from hybrid.cpu_experts import ExpertLayer
from hybrid.vision.features import Features


@dataclass(slots=True)
class Spent:
    """Where time and bytes went since the model was loaded."""

    attention_s: float = 0.0
    dense_s: float = 0.0
    router_s: float = 0.0
    shared_s: float = 0.0
    experts_s: float = 0.0
    head_s: float = 0.0
    expert_picks: int = 0  # (token, expert) pairs
    expert_reads: int = 0  # distinct experts, summed over blocks and layers
    expert_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Model:
    """A loaded model: the backbone, and the routed experts of each layer that has them."""

    text: TextConfig
    backbone: Backbone
    experts: Sequence[ExpertLayer | None]  # by layer; None where the layer is dense
    vision: Features | None = None  # None: this model reads text only
    spent: Spent = field(default_factory=Spent)

    def forward(
        self,
        token_ids: Sequence[int],
        start: int,
        poll: Callable[[], None] = lambda: None,
        pictures: Iterable[tuple[int, NDArray[np.float32]]] = (),
    ) -> Stream:
        """Run a block of tokens at positions from `start`; returns the residual stream [tokens, …].

        `pictures`: (row of the block, rows) that take the place of embeddings.
        `poll` is called before each layer and may raise to abandon the block: rows of the KV cache
        from `start` on are then undefined, all earlier ones are intact.
        """
        x = self.backbone.embed(token_ids)
        for row, rows in pictures:
            x = self.backbone.insert(x, row, rows)
        for layer in range(self.text.num_hidden_layers):
            poll()
            x = self._attend(layer, x, start)
            x = self._moe(layer, x) if self.text.is_moe(layer) else self._dense(layer, x)
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

    def _moe(self, layer: int, x: Stream) -> Stream:
        experts, spent = self.experts[layer], self.spent
        assert experts is not None
        began = perf_counter()
        routing = self.backbone.route(layer, x)
        routed_at = perf_counter()
        shared = self.backbone.shared(layer, routing)
        shared_at = perf_counter()
        routed = experts.forward(routing.hidden, routing.expert_ids, routing.weights)
        experts_at = perf_counter()
        x = self.backbone.combine(x, shared, routed)
        spent.router_s += routed_at - began
        spent.shared_s += shared_at - routed_at + perf_counter() - experts_at
        spent.experts_s += experts_at - shared_at
        self._count(routing.expert_ids, experts.record_bytes)
        return x

    def _count(self, expert_ids: NDArray[np.int32], record_bytes: int) -> None:
        one_token = expert_ids.shape[0] == 1  # whose experts differ by construction
        distinct = expert_ids.size if one_token else len(np.unique(expert_ids))
        self.spent.expert_picks += expert_ids.size
        self.spent.expert_reads += distinct
        self.spent.expert_bytes += distinct * record_bytes
