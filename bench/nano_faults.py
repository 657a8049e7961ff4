"""A dozen faults that runtimes of this family really have (spec §7), planted one at a time.

A fault that lies in how stored bytes are read is planted in a copy of the checkpoint: swapping the
nibbles of a file and reading it rightly is reading it with swapped nibbles. Faults in what is
computed are patches that end with their `with` block.

    edit     (config.json, tensors) -> changed in place, in a copy
    patch    a context manager around load and generation
"""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from hybrid.backbone import Routing
from hybrid.checkpoint import Checkpoint
from hybrid.checkpoint.shards import INDEX
from hybrid.config import ModelConfig
from hybrid.cpu_dense.backbone import CpuBackbone
from hybrid.tiny.shards import write_shards
from hybrid.tiny.weights import bf16
from hybrid.vision import image as vision_image
from hybrid.vision import positions, projector, video

Tensors = dict[str, NDArray[Any]]
Edit = Callable[[dict[str, Any], Tensors], None]


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault; `directory` makes the model that has it of one that has not."""

    name: str
    edit: Edit | None = None
    shows_in: str = ""  # a family of conversations that kimi-nano then gets wrong; "" for none yet
    patch: Callable[[Path], AbstractContextManager[Any]] = lambda _: nullcontext()

    def directory(self, model_dir: Path, room: Path) -> Path:
        """The model as this fault reads it: a copy in `room`, or the model itself."""
        if self.edit is None:
            return model_dir
        copy = room / self.name.replace(" ", "-").replace("/", "-")
        shutil.copytree(model_dir, copy)
        raw = json.loads((copy / "config.json").read_text())
        tensors = _read(copy)
        self.edit(raw, tensors)
        (copy / "config.json").write_text(json.dumps(raw))
        for file in (*copy.glob("*.safetensors"), copy / INDEX):
            file.unlink(missing_ok=True)
        dtypes = {"uint16": "BF16", "float32": "F32", "int32": "I32"}
        write_shards(copy, [{n: (dtypes[str(a.dtype)], a) for n, a in tensors.items()}], 1)
        return copy


def _read(directory: Path) -> Tensors:
    with Checkpoint.open(directory, ModelConfig.from_dir(directory)) as checkpoint:
        return {
            name if name.startswith(("vision", "mm_")) else f"language_model.{name}":
                checkpoint.tensor(name).copy() for name in checkpoint
        }  # fmt: skip


def _each(tensors: Tensors, ending: str, change: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
    found = [name for name in tensors if name.endswith(ending)]
    if not found:
        raise KeyError(ending)
    for name in found:
        tensors[name] = np.ascontiguousarray(change(tensors[name]))


def _swapped_nibbles(_: dict[str, Any], tensors: Tensors) -> None:
    def swap(words: NDArray[Any]) -> NDArray[Any]:
        octets = words.view(np.uint8)
        return (octets >> 4 | octets << 4).view(np.int32)

    _each(tensors, "weight_packed", swap)


def _twos_complement(_: dict[str, Any], tensors: Tensors) -> None:
    _each(tensors, "weight_packed", lambda words: words ^ np.uint32(0x88888888).view(np.int32))


def _shifted_scales(_: dict[str, Any], tensors: Tensors) -> None:
    _each(tensors, "weight_scale", lambda scale: np.roll(scale, 1, axis=1))


def _half_split_rope(raw: dict[str, Any], tensors: Tensors) -> None:
    """Turning pairs (i, i + d/2) is turning adjacent pairs of rows in another order."""
    text = raw["text_config"]
    rope, nope = text["qk_rope_head_dim"], text["qk_nope_head_dim"]
    order = np.arange(rope).reshape(2, -1).T.ravel()  # 0, d/2, 1, d/2 + 1, ...

    def query(rows: NDArray[Any]) -> NDArray[Any]:
        heads = rows.reshape(text["num_attention_heads"], nope + rope, -1).copy()
        heads[:, nope:] = heads[:, nope:][:, order]
        return heads.reshape(rows.shape)

    def key(rows: NDArray[Any]) -> NDArray[Any]:
        rank = text["kv_lora_rank"]
        return np.concatenate((rows[:rank], rows[rank:][order]))

    # q in halves and k in pairs would be a smaller mistake; runtimes make the same one in both
    _each(tensors, "q_b_proj.weight", query)
    _each(tensors, "kv_a_proj_with_mqa.weight", key)


def _no_mscale(raw: dict[str, Any], _: Tensors) -> None:
    raw["text_config"]["rope_scaling"] |= {"mscale": 1e-3, "mscale_all_dim": 1e-3}


def _no_yarn(raw: dict[str, Any], _: Tensors) -> None:
    """Frequencies as if the context had never been stretched; the softmax scale stays right."""
    rope = raw["text_config"]["rope_scaling"]
    m = 0.1 * np.log(rope["factor"]) + 1
    mscale = float((m - 1) / (0.1 * np.log(1.0001)))
    rope |= {"factor": 1.0001, "mscale": min(mscale, 99.0), "mscale_all_dim": min(mscale, 99.0)}


def _no_scaling(raw: dict[str, Any], _: Tensors) -> None:
    raw["text_config"]["routed_scaling_factor"] = 1.0


def _no_normalising(raw: dict[str, Any], _: Tensors) -> None:
    raw["text_config"]["norm_topk_prob"] = False


def _scaled_shared(raw: dict[str, Any], tensors: Tensors) -> None:
    factor = raw["text_config"]["routed_scaling_factor"]
    _each(tensors, "shared_experts.down_proj.weight", lambda bits: bf16(_widened(bits) * factor))


def _bgr(_: dict[str, Any], tensors: Tensors) -> None:
    _each(tensors, "patch_embed.proj.weight", lambda weight: weight[:, ::-1])


def _gate_and_up_swapped(_: dict[str, Any], tensors: Tensors) -> None:
    for name in [n for n in tensors if ".experts." in n and ".gate_proj." in n]:
        other = name.replace("gate_proj", "up_proj")
        tensors[name], tensors[other] = tensors[other], tensors[name]


@contextmanager
def _bias_in_weights(model_dir: Path) -> Iterator[None]:
    """The router weighs with the biased scores that only should choose."""
    config = ModelConfig.from_dir(model_dir)
    text, right = config.text, CpuBackbone.route
    with Checkpoint.open(model_dir, config) as checkpoint:
        gates = {
            layer: [
                checkpoint.tensor(f"model.layers.{layer}.mlp.gate.{part}").copy()
                for part in ("weight", "e_score_correction_bias")
            ]
            for layer in range(text.first_k_dense_replace, text.num_hidden_layers)
        }

    def wrong(self: CpuBackbone, layer: int, x: Any) -> Routing:
        routing = right(self, layer, x)
        gate, bias = gates[layer]
        scores = 1 / (1 + np.exp(-routing.hidden @ _widened(gate).T)) + bias
        chosen = np.take_along_axis(scores, routing.expert_ids, 1)
        weights = chosen / chosen.sum(1, keepdims=True) * text.routed_scaling_factor
        return Routing(routing.hidden, routing.expert_ids, weights.astype(np.float32))

    with mock.patch.object(CpuBackbone, "route", wrong):
        yield


def _shifted_patches(_: Path) -> AbstractContextManager[Any]:
    return _patched_patches(lambda rows, fitted: np.roll(rows, 1, axis=0))


def _block_order(_: Path) -> AbstractContextManager[Any]:
    """Patches in blocks of 2 x 2 where the tower wants raster order."""

    def blocks(rows: NDArray[Any], fitted: Any) -> NDArray[Any]:
        grid = rows.reshape(fitted.grid_h // 2, 2, fitted.grid_w // 2, 2, -1)
        return np.ascontiguousarray(grid.transpose(0, 2, 1, 3, 4)).reshape(rows.shape)

    return _patched_patches(blocks)


@contextmanager
def _patched_patches(change: Callable[[NDArray[Any], Any], NDArray[Any]]) -> Iterator[None]:
    right = vision_image.patches

    def wrong(picture: Any, fitted: Any, config: Any) -> NDArray[Any]:
        return change(right(picture, fitted, config), fitted)

    with (
        mock.patch.object(vision_image, "patches", wrong),
        mock.patch.object(video, "patches", wrong),
    ):
        yield


def _rows_for_columns(_: Path) -> AbstractContextManager[Any]:
    """The tower's rotary turns by the row where it should by the column."""
    right = positions.rotary

    def wrong(h: int, w: int, head_dim: int) -> torch.Tensor:
        turns = right(h, w, head_dim).unflatten(-1, (-1, 2))
        return turns.flip(-1).flatten(-2)

    return mock.patch.object(positions, "rotary", wrong)


def _antialiased(_: Path) -> AbstractContextManager[Any]:
    """The table of positions shrunk as a picture would be."""
    right = functional.interpolate

    def wrong(*args: Any, **options: Any) -> torch.Tensor:
        return right(*args, **options, antialias=True)

    return mock.patch.object(positions.functional, "interpolate", wrong)


def _no_waves(_: Path) -> AbstractContextManager[Any]:
    return mock.patch.object(positions, "temporal", lambda t, size: torch.zeros(t, size))


def _silu_vision(_: Path) -> AbstractContextManager[Any]:
    return mock.patch.object(projector.functional, "gelu", lambda x, **_: functional.silu(x))


def _widened(bits: NDArray[Any]) -> NDArray[np.float32]:
    return (bits.astype(np.uint32) << 16).view(np.float32)


FAULTS = (
    Fault("swapped nibbles", _swapped_nibbles, "large sums"),
    Fault("two's complement nibbles", _twos_complement, "large sums"),
    Fault("scales shifted by a group", _shifted_scales),
    Fault("gate and up swapped", _gate_and_up_swapped, "large sums"),
    Fault("half-split rope", _half_split_rope, "large sums"),
    Fault("softmax scale without m squared", _no_mscale),
    Fault("rope without yarn", _no_yarn, "large sums"),
    Fault("no routed scaling factor", _no_scaling, "large sums"),
    Fault("routing weights not normalised", _no_normalising, "comparison"),
    Fault("shared expert scaled", _scaled_shared),
    Fault("bias in routing weights", shows_in="large sums", patch=_bias_in_weights),
    Fault("blue before red", _bgr, "clip"),
    Fault("picture shifted by a patch", shows_in="picture", patch=_shifted_patches),
    Fault("patches in block order", shows_in="picture", patch=_block_order),
    Fault("row and column swapped in the tower", patch=_rows_for_columns),
    Fault("antialiased position table", patch=_antialiased),
    Fault("no frame waves", shows_in="clip", patch=_no_waves),
    Fault("silu for gelu in vision", patch=_silu_vision),
)
