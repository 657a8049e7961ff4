"""A layer of K2.5 made of random numbers: weights, activations, routing; the same in any process.

Weights are in the checkpoint's form (int32 words of 8 nibbles, bf16 scales per 32 inputs). A few
distinct experts are enough: a cache knows addresses, not contents, so expert e gets a copy of
expert e % DISTINCT in memory of its own. Values suit every peer: nibbles mean -7 ... 7 (one of them
computes -8 wrongly), scales are exact in fp16, activations in bf16.
"""

from dataclasses import dataclass

import numpy as np

HIDDEN, INTERMEDIATE, TOP_K, GROUP = 7168, 2048, 8, 32
DISTINCT = 4
MATRICES = {  # name -> output rows, inputs
    "gate": (INTERMEDIATE, HIDDEN),
    "up": (INTERMEDIATE, HIDDEN),
    "down": (HIDDEN, INTERMEDIATE),
}
EXPERT_MACS = sum(rows * inputs for rows, inputs in MATRICES.values())
RECORD_BYTES = EXPERT_MACS // 2 + EXPERT_MACS // GROUP * 2  # nibbles and bf16 scales


@dataclass(frozen=True, slots=True)
class Int4Matrix:
    """A weight matrix as the checkpoint has it."""

    packed: np.ndarray  # int32 [out, in/8]
    scale: np.ndarray  # uint16, the bits of a bf16 [out, in/32]


def expert(index: int) -> dict[str, Int4Matrix]:
    """The tensors of one of the DISTINCT experts, by name."""
    rng = np.random.default_rng([index, 25])
    return {name: _matrix(rng, *shape) for name, shape in MATRICES.items()}


def _matrix(rng: np.random.Generator, rows: int, inputs: int) -> Int4Matrix:
    codes = rng.integers(1, 16, (rows, inputs), np.uint8)
    scale = rng.uniform(0.0005, 0.005, (rows, inputs // GROUP)).astype(np.float32)
    return Int4Matrix(packed_words(codes), (scale.view(np.uint32) >> 16).astype(np.uint16))


def packed_words(codes: np.ndarray) -> np.ndarray:
    """Codes 0 ... 15 [out, in] as int32 words [out, in/8], the first input in the lowest bits."""
    pairs = codes[:, 0::2] | codes[:, 1::2] << 4
    return np.ascontiguousarray(pairs).view(np.int32)


def codes_of(packed: np.ndarray) -> np.ndarray:
    """The inverse of `packed_words`."""
    pairs = packed.view(np.uint8)
    codes = np.empty((len(pairs), 2 * pairs.shape[1]), np.uint8)
    codes[:, 0::2], codes[:, 1::2] = pairs & 15, pairs >> 4
    return codes


def bf16_to_float32(bits: np.ndarray) -> np.ndarray:
    """The float32 values of bf16 bits."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def activations(tokens: int) -> np.ndarray:
    """Normal float32 [tokens, HIDDEN], each exact in bf16."""
    x = np.random.default_rng(7).standard_normal((tokens, HIDDEN), np.float32)
    return (x.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


@dataclass(frozen=True, slots=True)
class Routing:
    """Which experts a step's tokens use."""

    ids: np.ndarray  # int32 [tokens, TOP_K], distinct in a row
    weights: np.ndarray  # float32 [tokens, TOP_K]

    @property
    def distinct(self) -> int:
        """How many experts' weights the step must read."""
        return len(np.unique(self.ids))


def routing(rng: np.random.Generator, tokens: int, experts: int) -> Routing:
    """Uniform choice among the first `experts`; weights positive with sum 1."""
    order = rng.random((tokens, experts), np.float32).argpartition(TOP_K - 1, axis=1)
    weights = rng.uniform(0.5, 1.5, (tokens, TOP_K)).astype(np.float32)
    weights /= weights.sum(axis=1, keepdims=True)
    return Routing(order[:, :TOP_K].astype(np.int32), weights)
