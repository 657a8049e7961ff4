"""The backbone on the CPU: see `hybrid.backbone.Backbone` for the verbs.

The residual stream is numpy float32 [tokens, hidden_size]; activations are float32 throughout,
weights stay bf16 in RAM or become int8 codes if asked, and the latent cache is bf16. Everything is
a copy: no file of the model is looked at after loading. A row's bits do not depend on the block it
comes in, on the chunking of its prompt or on the number of threads.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybrid import yarn
from hybrid.backbone import Routing
from hybrid.config import TextConfig
from hybrid.cpu_dense import layers, verbs
from hybrid.cpu_dense.kernels import warm_up
from hybrid.cpu_dense.layers import Verb
from hybrid.cpu_dense.rows import MAX_BLOCK
from hybrid.cpu_dense.scratch import Scratch, attention_bytes
from hybrid.cpu_dense.tiles import widened
from hybrid.cpu_dense.weights import Tensors, Weights
from hybrid.cpu_experts.arena import allocate
from hybrid.cpu_experts.pool import shared_pool
from hybrid.errors import KernelError
from hybrid.progress import ProgressSink, ignore

F32 = NDArray[np.float32]


class CpuBackbone:
    """All of the model but its routed experts."""

    max_block = MAX_BLOCK

    def __init__(
        self, text: TextConfig, tensors: Tensors, *, total: int, kv_tokens: int, threads: int,
        progress: ProgressSink = ignore, weights: str = "bf16",
    ) -> None:  # fmt: skip
        self.text = text
        self.kv_tokens = kv_tokens
        warm_up(progress)
        self._pool = shared_pool(threads)
        self._scratch = scratch = Scratch.for_model(text, threads)
        self.cache = _empty_cache(text, kv_tokens)  # [layers, kv_tokens, row]
        source = Weights(tensors, total, self._pool, progress, weights)
        table = (text.vocab_size, text.hidden_size)
        self._embedding = source.table("model.embed_tokens.weight", *table)
        self._attend: list[Verb] = []
        self._dense: dict[int, Verb] = {}
        self._route: dict[int, Verb] = {}
        self._shared: dict[int, Verb] = {}
        for layer in range(text.num_hidden_layers):
            cache = self.cache[layer]
            self._attend.append(layers.attend_verb(text, source, layer, cache, scratch))
            if not text.is_moe(layer):
                self._dense[layer] = layers.dense_verb(text, source, layer, scratch)
                continue
            self._route[layer] = layers.route_verb(text, source, layer, scratch)
            if text.n_shared_experts:
                self._shared[layer] = layers.shared_verb(text, source, layer, scratch)
        self._head = layers.head_verb(text, source, scratch)
        self._table_of = (-1, 0)

    @classmethod
    def load(
        cls,
        config: TextConfig,
        checkpoint: Any,
        *,
        kv_tokens: int,
        threads: int,
        progress: ProgressSink = ignore,
        weights: str = "bf16",
    ) -> "CpuBackbone":
        """Copy all weights but the routed experts; the checkpoint may be closed after that.

        `weights` is "bf16" or "int8" (codes.py): what the large matrices are kept as.
        """
        mine = (n for n in checkpoint if n.startswith(("model.", "lm_head.")))
        total = sum(checkpoint.info(name).nbytes for name in mine if ".mlp.experts." not in name)
        return cls(
            config, checkpoint, total=total, kv_tokens=kv_tokens, threads=threads,
            progress=progress, weights=weights,
        )  # fmt: skip

    def embed(self, token_ids: Sequence[int]) -> F32:
        """See Backbone."""
        if not len(token_ids) or min(token_ids) < 0 or max(token_ids) >= self.text.vocab_size:
            raise KernelError(f"token ids must be 0…{self.text.vocab_size - 1}, and at least one")
        rows = self._embedding[np.asarray(token_ids)]  # [tokens, hidden_size]
        return widened(rows) if rows.dtype == np.uint16 else rows.astype(np.float32)

    def insert(self, x: F32, row: int, rows: F32) -> F32:
        """See Backbone."""
        if row < 0 or row + len(rows) > len(x) or rows.shape[1:] != x.shape[1:]:
            raise KernelError(f"rows {list(rows.shape)} do not fit {list(x.shape)} at {row}")
        x[row : row + len(rows)] = rows
        return x

    def attend(self, layer: int, x: F32, start: int) -> F32:
        """See Backbone."""
        tokens = self._tokens(x)
        if start < 0 or start + tokens > self.kv_tokens:
            raise KernelError(
                f"positions {start}…{start + tokens - 1} do not fit the cache of {self.kv_tokens}"
            )
        self._rotate(start, tokens)
        out = np.empty_like(x)
        self._run(verbs.attend(), self._attend[layer], x, out, start)
        return out

    def dense(self, layer: int, x: F32) -> F32:
        """See Backbone."""
        self._tokens(x)
        out = np.empty_like(x)
        self._run(verbs.dense(), self._dense[layer], x, out)
        return out

    def route(self, layer: int, x: F32) -> Routing:
        """See Backbone."""
        shape = (self._tokens(x), self.text.num_experts_per_tok)
        hidden = np.empty_like(x)
        ids, weights = np.empty(shape, np.int32), np.empty(shape, np.float32)
        self._run(verbs.route(), self._route[layer], x, hidden, ids, weights)
        return Routing(hidden, ids, weights)

    def shared(self, layer: int, routing: Routing) -> F32 | None:
        """See Backbone. None where the model has no shared expert."""
        if layer not in self._shared:
            return None
        out = np.empty_like(routing.hidden)
        self._run(verbs.shared(), self._shared[layer], routing.hidden, out)
        return out

    def combine(self, x: F32, shared: F32 | None, routed: F32) -> F32:
        """See Backbone."""
        return x + (routed if shared is None else routed + shared)

    def logits(self, x: F32) -> F32:
        """See Backbone."""
        logits = np.empty((self._tokens(x), self.text.vocab_size), np.float32)
        self._run(verbs.head(), self._head, x, logits)
        return logits

    def last(self, x: F32) -> F32:
        """See Backbone."""
        return x[-1:]

    def stats(self) -> dict[str, int]:
        """See Backbone."""
        return {}

    def _run(self, compiled: Any, verb: Verb, *arrays: Any) -> None:
        with self._pool.lock:
            self._pool.start()
            compiled(verb.address, *arrays, self._pool.state)
            self._pool.check()

    def _tokens(self, x: F32) -> int:
        tokens, hidden = int(x.shape[0]), x.shape[1]
        if hidden != self.text.hidden_size or not 0 < tokens <= MAX_BLOCK:
            raise KernelError(
                f"a block is {list(x.shape)}; expected 1…{MAX_BLOCK} rows of "
                f"{self.text.hidden_size}"
            )
        return tokens

    def _rotate(self, start: int, tokens: int) -> None:
        """Tables of a block; every layer of a step asks for the same ones."""
        if self._table_of != (start, tokens):
            cos, sin = yarn.cos_sin(self.text, start, tokens)
            self._scratch.cos.memory[:tokens, : cos.shape[1]] = cos
            self._scratch.sin.memory[:tokens, : sin.shape[1]] = sin
            self._table_of = (start, tokens)


def _empty_cache(text: TextConfig, kv_tokens: int) -> NDArray[np.uint16]:
    """[layers, kv_tokens, row]: memory is touched only as far as it is used."""
    row = attention_bytes(text)[3] // 2
    shape = (text.num_hidden_layers, kv_tokens, row)
    purpose = f"a KV cache of {kv_tokens} tokens"
    return allocate(math.prod(shape) * 2, purpose, "lower kv_tokens").view(np.uint16).reshape(shape)
