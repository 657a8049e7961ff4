"""Which experts a case picked, layer by layer: what the heat-map draws."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hybrid.benchmark.cases import Case
from hybrid.config import TextConfig
from hybrid.model import Watcher


@dataclass(slots=True)
class Heat:
    """Picks by case, as "tg128 rotating": int64 [layers with experts, experts]."""

    picks: dict[str, NDArray[np.int64]] = field(default_factory=dict)

    def of(self, case: Case, text: TextConfig) -> Watcher:
        """A watcher for `engine.record` that counts for a case."""
        counts = np.zeros((text.moe_layers, text.n_routed_experts), np.int64)
        rows = {layer: at for at, layer in enumerate(_moe_layers(text))}
        self.picks[f"{case.label} {case.kind}"] = counts

        def watch(
            layer: int, _: int, ids: NDArray[np.int32], __: NDArray[np.float32], ___: bool
        ) -> None:
            counts[rows[layer]] += np.bincount(ids.ravel(), minlength=text.n_routed_experts)

        return watch


def _moe_layers(text: TextConfig) -> list[int]:
    return [layer for layer in range(text.num_hidden_layers) if text.is_moe(layer)]
