"""Models on the torch backbone whose experts cost nothing, so that only the backbone matters."""

from typing import Any

import numpy as np
import torch

from hybrid.accelerator.host import HostAccelerator
from hybrid.checkpoint import Checkpoint
from hybrid.config import ModelConfig
from hybrid.gpu_attention.backbone import TorchBackbone
from hybrid.gpu_attention.weights import WeightReader
from hybrid.model import Block, Model
from hybrid.progress import ignore


class CheapExperts:
    """hybrid.cache.Tiers' calls; an expert adds a vector of its own to half of the state."""

    def __init__(self, text, guesses: bool = False) -> None:
        shape = (text.n_routed_experts, text.hidden_size)
        self._table = np.random.default_rng(5).standard_normal(shape, np.float32)
        self._last = text.num_hidden_layers - 1
        self._guesses = guesses
        self.guessed: list[Any] = []

    def start(self, layer, routing, prompt):
        return layer, routing

    def finish(self, step, ahead):
        layer, routing = step
        if self._guesses and layer < self._last:
            self.guessed.append(ahead().copy())
        said = self._table[routing.expert_ids] + routing.hidden[:, None] / 2
        return (said * routing.weights[..., None]).sum(1, dtype=np.float32)


def cheap_model(
    model_dir, capture=None, accelerator=None, dtype=torch.float32, weights="bf16", guesses=False
) -> Model:
    config = ModelConfig.from_dir(model_dir)
    accelerator = accelerator or HostAccelerator()
    with Checkpoint.open(model_dir, config) as checkpoint:
        reader = WeightReader(checkpoint, accelerator.device, dtype, 1, ignore, weights)
        backbone = TorchBackbone(config.text, reader, 512, dtype, accelerator, capture)
    return Model(config.text, backbone, CheapExperts(config.text, guesses))


def logits(model: Model, ids: list[int], start: int, *, prompt: bool = False) -> np.ndarray:
    """Logits of one block of tokens."""
    return model.logits(*model.forward([Block(ids, start)], prompt=prompt))
