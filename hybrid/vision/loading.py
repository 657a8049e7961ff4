"""From a checkpoint to something that can look.

CUDA    the tower is put on the device at once, in bf16
CPU     its tensors are copied as stored; they become a tower when the first picture comes,
        because importing torch takes longer than loading a small model
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hybrid.checkpoint import Checkpoint, TensorInfo
from hybrid.config import ModelConfig
from hybrid.progress import Progress, ProgressSink, ignore
from hybrid.vision.features import Features, Rows
from hybrid.vision.media import Item
from hybrid.vision.media_config import MediaConfig

if TYPE_CHECKING:
    from hybrid.gpu_attention.weights import Tensors
    from hybrid.vision.tower import Tower

PREFIXES = ("vision_tower.", "mm_projector.")


def vision_names(checkpoint: Checkpoint) -> Iterator[str]:
    """The tensors of tower and projector."""
    return (name for name in checkpoint if name.startswith(PREFIXES))


def load_features(
    config: ModelConfig,
    media: MediaConfig,
    checkpoint: Checkpoint,
    device: str,
    threads: int,
    sink: ProgressSink = ignore,
) -> Features:
    """Load tower and projector of a model that has them; the checkpoint may be closed after it."""
    total = sum(checkpoint.info(name).nbytes for name in vision_names(checkpoint))
    plan = TowerPlan(config, media, device, threads, total)
    if device != "cpu":
        return Features(plan.build(checkpoint, sink), media)
    return Features(LateTower(_copied(checkpoint, total, sink), plan), media)


@dataclass(frozen=True, slots=True)
class TowerPlan:
    """All that a tower is built from but its tensors."""

    config: ModelConfig
    media: MediaConfig
    device: str
    threads: int
    total: int  # bytes of all tensors

    def build(self, tensors: "Tensors", sink: ProgressSink = ignore) -> "Tower":
        """Put the tensors on the device; imports torch."""
        import torch

        from hybrid.gpu_attention.weights import WeightReader
        from hybrid.vision.tower import Tower

        assert self.config.vision is not None
        device = torch.device(self.device)
        reader = WeightReader(tensors, device, torch.bfloat16, self.total, sink)
        compute = torch.float32 if self.device == "cpu" else torch.bfloat16
        hidden = self.config.text.hidden_size
        return Tower(self.config.vision, self.media, hidden, reader, compute, self.threads)


@dataclass(frozen=True, slots=True)
class Copied:
    """Tensors in memory under the interface of a checkpoint."""

    values: Mapping[str, NDArray[Any]]
    infos: Mapping[str, TensorInfo]

    def tensor(self, name: str) -> NDArray[Any]:
        """As stored; BF16 as uint16 bits."""
        return self.values[name]

    def info(self, name: str) -> TensorInfo:
        """Its type and shape."""
        return self.infos[name]


class LateTower:
    """A tower that is built when it is first asked. Weights are in memory before and after."""

    def __init__(self, copied: Copied, plan: TowerPlan) -> None:
        self._copied: Copied | None = copied
        self._plan = plan
        self._tower: Tower | None = None

    def features(
        self, items: Sequence[Item], poll: Callable[[], None] = lambda: None
    ) -> list[Rows]:
        """See `hybrid.vision.tower.Tower`."""
        if self._tower is None:
            assert self._copied is not None
            self._tower, self._copied = self._plan.build(self._copied), None
        return self._tower.features(items, poll)


def _copied(checkpoint: Checkpoint, total: int, sink: ProgressSink) -> Copied:
    infos = {name: checkpoint.info(name) for name in vision_names(checkpoint)}
    values, done = dict[str, NDArray[Any]](), 0
    for name, info in infos.items():
        values[name] = np.array(checkpoint.tensor(name))
        done += info.nbytes
        sink(Progress("weights", done, total, "bytes"))
    return Copied(values, infos)
