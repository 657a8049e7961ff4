"""The start-up check: the selected kernel must give the portable one's bits before it is used."""

import numpy as np
from numpy.typing import NDArray

from hybrid.cpu_experts.dispatch import select
from hybrid.cpu_experts.layer import ExpertLayer
from hybrid.errors import KernelError

HIDDEN, INTERMEDIATE = 96, 64  # DOWN has six row blocks: four together, two alone
COUNTS = 1, 2, 3, 4, 5, 17, 64, 65  # tokens of each expert: every shape of a kernel, two calls


def verify(isa: str | None = None, activation: str = "auto") -> None:
    """Raise KernelError unless `isa` and the portable kernel agree bit for bit on a small layer."""
    name = select(isa)
    want = _outputs("portable", activation)
    got = _outputs(name, activation)
    wrong = int(np.count_nonzero(got.view(np.uint32) != want.view(np.uint32)))
    if wrong:
        raise KernelError(
            f"the {name} kernel differs from the portable one in {wrong} of {want.size} outputs; "
            "use isa='portable' and report this CPU"
        )


def _outputs(isa: str, activation: str) -> NDArray[np.float32]:
    experts, tokens = len(COUNTS), max(COUNTS)
    layer = ExpertLayer(experts, HIDDEN, INTERMEDIATE, isa=isa, threads=1, activation=activation)
    rng = np.random.default_rng(0)
    for e in range(experts):
        gate, up = _matrix(rng, INTERMEDIATE, HIDDEN), _matrix(rng, INTERMEDIATE, HIDDEN)
        layer.set_expert(e, gate=gate, up=up, down=_matrix(rng, HIDDEN, INTERMEDIATE))
    x = rng.uniform(-3, 3, (tokens, HIDDEN)).astype(np.float32)
    asks = np.arange(tokens)[:, None] < np.array(COUNTS)  # [tokens, experts]
    ids = np.where(asks, np.arange(experts), -1).astype(np.int32)
    weights = rng.uniform(0.1, 1, ids.shape).astype(np.float32)
    return layer.forward(x, ids, weights)


def _matrix(
    rng: np.random.Generator, rows: int, columns: int
) -> tuple[NDArray[np.int32], NDArray[np.uint16]]:
    packed = rng.integers(-(2**31), 2**31, (rows, columns // 8), dtype=np.int32)
    scale = rng.uniform(0.01, 0.1, (rows, columns // 32)).astype(np.float32)
    return packed, (scale.view(np.uint32) >> 16).astype(np.uint16)
