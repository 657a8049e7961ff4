"""The backbone: all of the model that is not a routed expert, as eight verbs.

The forward pass (`hybrid.model`) is written once against these verbs. Two implementations:
`hybrid.gpu_attention` (torch, any device) and `hybrid.cpu_dense` (compiled kernels for a
machine without a GPU). The residual stream is theirs alone: the forward pass only hands it on.

    embed -> insert -> [ attend -> (dense | route -> shared -> combine) ] x layers -> logits
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Stream = Any  # the residual stream [tokens, hidden_size], in the implementation's own array type


@dataclass(frozen=True, slots=True)
class Routing:
    """What the router decided, on the host, for one layer and a block of tokens."""

    hidden: NDArray[np.float32]  # [tokens, hidden_size], the experts' input, until the next layer
    expert_ids: NDArray[np.int32]  # [tokens, num_experts_per_tok]
    weights: NDArray[np.float32]  # [tokens, num_experts_per_tok], normalised and scaled
    kept: Any = None  # `hidden` on the backbone's own device, where that is not the host


class Backbone(Protocol):
    """Weights, the latent KV cache and the mathematics around the routed experts.

    `start` is the position of the block's first token. Rows of the cache from `start` on are
    overwritten; rows before it are read. Nothing else remembers anything between calls. A verb may
    change the stream that it is given: what counts is the one that it returns.
    """

    kv_tokens: int  # positions the latent KV cache holds
    max_block: int  # tokens that one call of a verb takes

    def embed(self, token_ids: Sequence[int]) -> Stream:
        """Rows of the embedding table."""

    def insert(self, x: Stream, row: int, rows: NDArray[np.float32]) -> Stream:
        """x with `rows` in the place of its rows from `row` on: what a picture shows."""

    def attend(self, layer: int, x: Stream, start: int) -> Stream:
        """x + MLA(RMSNorm(x)); writes the block's latents into the cache."""

    def dense(self, layer: int, x: Stream) -> Stream:
        """x + SwiGLU(RMSNorm(x)) of a layer without experts."""

    def route(self, layer: int, x: Stream) -> Routing:
        """RMSNorm, router, top-k: ids and weights land on the host."""

    def shared(self, layer: int, routing: Routing) -> Stream:
        """Output of the shared expert; on a GPU this is only launched, not awaited."""

    def combine(self, x: Stream, shared: Stream, routed: Any) -> Stream:
        """x + (routed + shared), rounded once to the activation type.

        `routed` fp32 [tokens, hidden_size], an array or, where experts are summed there, a tensor
        of the backbone's own device.
        """

    def logits(self, x: Stream) -> NDArray[np.float32]:
        """Final norm and head of the given rows: [rows, vocab_size]."""

    def last(self, x: Stream) -> Stream:
        """The last row of a block, still as a block."""

    def stats(self) -> dict[str, int]:
        """Sums since loading of what is the implementation's own: waits and launches of a GPU."""
