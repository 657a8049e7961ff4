"""A checkpoint directory as weights of the training graph: what the runtime should compute with."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hybrid.checkpoint import Checkpoint
from hybrid.config import ModelConfig
from nano.model.parameters import Parameters, expert_shapes
from nano.model.rounding import dequantised


def parameters(directory: Path) -> Parameters:
    """Read all weights, the experts dequantised; raises CheckpointError or ConfigError."""
    config = ModelConfig.from_dir(directory)
    with Checkpoint.open(directory, config) as checkpoint:
        made = {
            name: _plain(checkpoint, name) for name in checkpoint if ".mlp.experts." not in name
        }
        for name, (count, _, _) in expert_shapes(config):
            stem, part = name.rsplit(".", 1)
            parts = ("down",) if part == "down" else ("gate", "up")
            made[name] = torch.stack(
                [
                    torch.cat([_int4(checkpoint, f"{stem}.{expert}.{each}_proj") for each in parts])
                    for expert in range(count)
                ]
            )
    return made


def _plain(checkpoint: Checkpoint, name: str) -> Tensor:
    values = checkpoint.tensor(name)
    return torch.from_numpy(_widened(values) if values.dtype == np.uint16 else values.copy())


def _int4(checkpoint: Checkpoint, stem: str) -> Tensor:
    words = checkpoint.tensor(f"{stem}.weight_packed").view(np.uint32)  # [out, in / 8]
    nibbles = words[..., None] >> np.arange(0, 32, 4, dtype=np.uint32) & 15
    codes = nibbles.reshape(len(words), -1).astype(np.int8) - 8  # [out, in]
    scale = _widened(checkpoint.tensor(f"{stem}.weight_scale"))
    return dequantised(torch.from_numpy(codes), torch.from_numpy(scale))


def _widened(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    return (bits.astype(np.uint32) << 16).view(np.float32)
