"""The expert kernel on more experts than the caches hold: one token, and as many as prefill gives.

decode   one token after another, each with other experts: bytes of records a second
prefill  TOKENS_EACH tokens for each of a few experts, as PASS_TOKENS make of 384 and top-8
"""

import time

import numpy as np
from numpy.typing import NDArray

from hybrid.cpu_experts import ExpertLayer
from hybrid.cpu_experts.pool import shared_pool
from hybrid.cpu_experts.record import RecordShape
from hybrid.errors import PlacementError
from hybrid.hardware.kept_rates import RatesOf

TOKENS_EACH = 43  # of an expert in a pass: 2048 tokens x 8 / 384
LEAST_PROMPT = 8  # experts; two a thread where that is more
LEAST_BYTES = 1 << 30  # of records, so that a cache holds no part worth mentioning
CACHES = 3  # times the last level: read in turn, records are gone before their turn comes again
SHARE = 0.25  # of what is free
MOST = 1 << 14  # experts: those of a tiny model never fill any memory
FEWEST = 2  # tokens' worth of experts


class ExpertRates:
    """A layer of made-up experts, timed on the pool that a model would use."""

    def __init__(self, what: RatesOf, free_bytes: int, cache_bytes: int) -> None:
        """Take memory within `free_bytes`; PlacementError if that is too little to say anything."""
        sizes = what.sizes
        self.picks = sizes.num_experts_per_tok
        shape = RecordShape(sizes.hidden_size, sizes.moe_intermediate_size)
        wanted = max(LEAST_BYTES, CACHES * cache_bytes)
        fit = min(wanted, int(free_bytes * SHARE)) // shape.nbytes
        count = min(fit, MOST) // self.picks * self.picks
        if count < FEWEST * self.picks:
            raise PlacementError(
                f"{free_bytes / 1e9:.1f} GB of RAM are free, too little to measure the experts; "
                f"free {FEWEST * self.picks * shape.nbytes / SHARE / 1e9:.1f} GB"
            )
        self.layer = ExpertLayer(
            count,
            shape.hidden,
            shape.intermediate,
            what.isa,
            what.threads,
            what.activation,
            pool=shared_pool(what.threads),
        )
        self._fill(np.random.default_rng(0))
        self._next = 0

    def _fill(self, rng: np.random.Generator) -> None:
        """One random expert, copied to all: a cache knows addresses, not contents."""
        hidden, intermediate = self.layer.shape.hidden, self.layer.shape.intermediate
        self.layer.set_expert(
            0,
            gate=_matrix(rng, intermediate, hidden),
            up=_matrix(rng, intermediate, hidden),
            down=_matrix(rng, hidden, intermediate),
        )
        for shard in self.layer.shards:
            shard.records[1:] = shard.records[0]
        self.layer.where[:] = np.arange(self.layer.n_experts)
        self._x = rng.standard_normal((1, hidden)).astype(np.float32)
        self._weights = np.full((1, self.picks), 1 / self.picks, np.float32)

    @property
    def memories(self) -> list[NDArray[np.uint8]]:
        """What each node has of the records."""
        return [shard.records.reshape(-1) for shard in self.layer.shards]

    def token(self) -> int:
        """One step with the next experts; returns the bytes of their records."""
        ids = np.arange(self._next, self._next + self.picks, dtype=np.int32)[None]
        self._next = (self._next + self.picks) % self.layer.n_experts
        self.layer.forward(self._x, ids, self._weights)
        return self.picks * self.layer.record_bytes

    def tokens(self) -> tuple[int, float]:
        """Bytes and seconds of one pass over all records, token by token."""
        steps, began = self.layer.n_experts // self.picks, time.perf_counter()
        nbytes = sum(self.token() for _ in range(steps))
        return nbytes, time.perf_counter() - began

    def prompt(self) -> tuple[int, float]:
        """Floating-point operations and seconds of a part of a prompt."""
        experts = min(max(LEAST_PROMPT, 2 * self.layer.threads), self.layer.n_experts)
        experts = max(experts, self.picks)  # distinct in a row
        rows = experts * TOKENS_EACH // self.picks
        picked = np.arange(rows * self.picks, dtype=np.int32) % experts
        ids = picked.reshape(rows, self.picks)
        x = np.repeat(self._x, rows, axis=0)  # [rows, hidden]
        weights = np.repeat(self._weights, rows, axis=0)
        shape = self.layer.shape
        began = time.perf_counter()
        self.layer.forward(x, ids, weights)
        seconds = time.perf_counter() - began
        return 2 * 3 * shape.hidden * shape.intermediate * ids.size, seconds


def _matrix(
    rng: np.random.Generator, rows: int, columns: int
) -> tuple[NDArray[np.int32], NDArray[np.uint16]]:
    """Random nibbles, and scales that keep activations near 1."""
    packed = rng.integers(-(2**31), 2**31, (rows, columns // 8), dtype=np.int32)
    scale = np.full((rows, columns // 32), 0.01, np.float32)
    return packed, (scale.view(np.uint32) >> 16).astype(np.uint16)
