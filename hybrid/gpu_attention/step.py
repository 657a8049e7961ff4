"""The memory of a block of tokens on its way through the layers: it stays where it is.

    host -> device   up        start, positions, cos, sin, embedding rows        once a block
    device           x         the residual stream, changed in place
                     slots     rows of the cache that are the block's
                     shared    what the shared expert says
    device -> host   decision  expert ids, weights and what the experts read     once a layer
    host -> device   routed    the sum of the routed experts                     once a layer

Whatever changes from one block to the next is in these arrays: nothing that runs on the device
depends on a number of the host's, so a run of it can be captured and replayed (graphs.py).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hybrid.accelerator.interface import Accelerator
from hybrid.config import TextConfig
from hybrid.gpu_attention.hand_off import Mirror
from hybrid.gpu_attention.mla import Place


@dataclass(frozen=True, slots=True)
class Decision:
    """What a router says, and the normalised state it says it of."""

    mirror: Mirror  # ids int32 and weights fp32 [tokens, k], hidden fp32 [tokens, hidden_size]
    hidden: Tensor  # [tokens, hidden_size] in the activation type, for the shared expert


@dataclass(slots=True, eq=False)
class Step:
    """Memory of one block."""

    tokens: int
    up: Mirror  # start int32 [1], positions int32 [tokens], cos and sin fp32, x [tokens, hidden]
    slots: Tensor  # int64 [tokens]
    decision: Decision
    shared: Tensor  # [tokens, hidden_size]
    routed: Mirror  # routed fp32 [tokens, hidden_size]
    logits: Mirror | None  # logits fp32 [tokens, vocab_size]; None where a block has too many
    aside: Decision | None = None  # of a router that is asked before its turn, once one was

    @property
    def x(self) -> Tensor:
        """The residual stream [tokens, hidden_size]."""
        return self.up.device["x"]

    def place(self, first: int | None) -> Place:
        """Where the block is; `first` where the host must know it (mla.py)."""
        up = self.up.device
        return Place(up["start"], self.slots, up["cos"], up["sin"], first)


def new_step(
    accelerator: Accelerator, text: TextConfig, tokens: int, dtype: torch.dtype, *, logits: bool
) -> Step:
    """Reserve a block's memory; `logits` too if all of its rows will go through the head."""
    hidden, device = text.hidden_size, accelerator.device
    pairs = (tokens, text.qk_rope_head_dim // 2)
    up = {
        "start": (torch.int32, (1,)),
        "positions": (torch.int32, (tokens,)),
        "cos": (torch.float32, pairs),
        "sin": (torch.float32, pairs),
        "x": (dtype, (tokens, hidden)),
    }
    return Step(
        tokens=tokens,
        up=Mirror.empty(accelerator, up),
        slots=torch.empty(tokens, dtype=torch.int64, device=device),
        decision=new_decision(accelerator, text, tokens, dtype),
        shared=torch.empty(tokens, hidden, dtype=dtype, device=device),
        routed=Mirror.empty(accelerator, {"routed": (torch.float32, (tokens, hidden))}),
        logits=new_logits(accelerator, text, tokens) if logits else None,
    )


def new_decision(
    accelerator: Accelerator, text: TextConfig, tokens: int, dtype: torch.dtype
) -> Decision:
    """Room for what a router says of some rows."""
    choice = (tokens, text.num_experts_per_tok)
    fields = {
        "ids": (torch.int32, choice),
        "weights": (torch.float32, choice),
        "hidden": (torch.float32, (tokens, text.hidden_size)),
    }
    hidden = torch.empty(tokens, text.hidden_size, dtype=dtype, device=accelerator.device)
    return Decision(Mirror.empty(accelerator, fields), hidden)


def new_logits(accelerator: Accelerator, text: TextConfig, rows: int) -> Mirror:
    """Room for logits of some rows."""
    return Mirror.empty(accelerator, {"logits": (torch.float32, (rows, text.vocab_size))})
