"""The graph's weights as the tensors of a checkpoint: stacks taken apart, INT4 packed, bf16 bits.

    model.layers.1.mlp.experts.gate_up[e]  ->  model.layers.1.mlp.experts.{e}.gate_proj
                                                   .weight_packed .weight_scale .weight_shape
                                               and the same of up_proj

The codes are those of model/rounding.py. A weight that is not bf16 already is a mistake of ours.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hybrid.checkpoint.expected import ExpectedTensor, expected_tensors
from hybrid.config import ModelConfig
from hybrid.errors import CheckpointError
from hybrid.tiny.weights import bf16
from nano.model.parameters import BIAS, Parameters
from nano.model.rounding import codes

Stored = NDArray[np.generic]  # as in the file: BF16 are uint16 bits


def tensors(
    config: ModelConfig, master: Parameters, seen: Parameters
) -> Iterator[tuple[ExpectedTensor, Stored]]:
    """Yield every tensor in the published order with what the file holds of it.

    `seen` are the rounded weights; experts are coded from their masters, as the graph's were.
    Raises CheckpointError where a rounded weight is no bf16 number.
    """
    packed: dict[str, Stored] = {}
    for want in expected_tensors(config):
        if ".mlp.experts." in want.name:
            stem, part = want.name.rsplit(".", 1)
            if part == "weight_packed":
                packed = _expert(config, master, stem)
            yield want, packed[part]
        else:
            yield want, _plain(want.name, seen[want.name])


def packed_words(code: Tensor) -> NDArray[np.int32]:
    """Eight codes of a row in a word, the first in the lowest nibble, plus 8 each (spec §2.4)."""
    nibbles = (code.numpy().astype(np.uint32) + 8) & 15  # [out, in]
    shifts = np.arange(0, 32, 4, dtype=np.uint32)
    words: NDArray[np.uint32] = (nibbles.reshape(len(nibbles), -1, 8) << shifts).sum(
        -1, dtype=np.uint32
    )
    return words.view(np.int32)


def _expert(config: ModelConfig, master: Parameters, stem: str) -> dict[str, Stored]:
    """The three tensors of one projection, e.g. of model.layers.1.mlp.experts.7.up_proj."""
    prefix, number, projection = stem.rsplit(".", 2)
    inner = config.text.moe_intermediate_size
    if projection == "down_proj":
        matrix = master[f"{prefix}.down"][int(number)]
    else:
        both = master[f"{prefix}.gate_up"][int(number)]
        matrix = both[:inner] if projection == "gate_proj" else both[inner:]
    code, scale = codes(matrix)
    return {
        "weight_packed": packed_words(code),
        "weight_scale": bf16(scale.numpy()),
        "weight_shape": np.array(matrix.shape, np.int32),
    }


def _plain(name: str, values: Tensor) -> Stored:
    array: NDArray[np.float32] = values.detach().numpy()
    if name.endswith(BIAS):
        return array.copy()
    bits = bf16(array)
    if not torch.equal(torch.from_numpy((bits.astype(np.uint32) << 16).view(np.float32)), values):
        raise CheckpointError(f"{name} is not in bf16; export the rounded weights")
    return bits
