"""A small model from file to logits on the cards: as right as torch on a CPU, and the same bits
wherever its experts lie.

    exact     the backbone in float64 on the CPU
    plain     the backbone in bf16 on the CPU, torch's own operations
    cards     as loaded: kernels, graphs, hand-offs, experts on the cards

Cards and plain round at the same places, so that neither should be much farther from exact than
the other. A wrong kernel is farther by orders of magnitude.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hybrid.accelerator.host import HostAccelerator
from hybrid.cache.source import slot_bytes
from hybrid.checkpoint import Checkpoint
from hybrid.config import ModelConfig
from hybrid.cpu_experts.record import RecordShape
from hybrid.doctor.check import Check, bad, good
from hybrid.gpu_attention.backbone import TorchBackbone
from hybrid.gpu_attention.weights import WeightReader
from hybrid.load_options import LoadOptions
from hybrid.loader import load_model
from hybrid.model import Model
from hybrid.progress import ignore
from hybrid.reservation import backbone_names
from hybrid.timeline import Timeline
from hybrid.tiny import TinyShape, write_tiny
from hybrid.vision.prompt import Prompt

REPORT = "use --device cpu, and report card, driver and torch"
SHAPE = TinyShape(
    hidden_size=512,
    num_hidden_layers=4,
    num_attention_heads=16,
    q_lora_rank=256,
    kv_lora_rank=512,
    qk_nope_head_dim=128,
    qk_rope_head_dim=64,
    v_head_dim=128,
    intermediate_size=1024,
    moe_intermediate_size=256,
    n_routed_experts=8,
    num_experts_per_tok=8,  # all: a near tie, decided otherwise, would hide everything else
)
PROMPT = tuple(range(300, 380))
STEPS = tuple(range(400, 412))  # tokens one by one: the third has graphs
KV_TOKENS = 256
LEAST = 2.0  # times as far from exact as plain bf16 may the cards be
Logits = NDArray[np.float32]


def check_whole(device: str, shape: TinyShape = SHAPE) -> list[Check]:
    """Load a small model on `device` and ask it the same in several ways."""
    with tempfile.TemporaryDirectory() as folder:
        model_dir = write_tiny(Path(folder) / "model", shape, vision=False)
        record = slot_bytes(RecordShape(shape.hidden_size, shape.moe_intermediate_size).nbytes)
        some = shape.n_routed_experts * record
        none = _said(model_dir, device, 0)
        half, all_there = _said(model_dir, device, some), _said(model_dir, device, None)
        exact, plain = (_plain(model_dir, dtype) for dtype in (torch.float64, torch.bfloat16))
    return [_closeness(none, plain, exact), _placement(none, {"some": half, "all": all_there})]


def _closeness(got: Logits, plain: Logits, exact: Logits) -> Check:
    name = "a model on the cards"
    far, usual = (float(np.sqrt(np.mean((one - exact) ** 2))) for one in (got, plain))
    spread = float(np.std(exact))
    found = f"logits {far / spread:.2%} from exact; plain bf16 is {usual / spread:.2%} from it"
    if not far <= LEAST * usual:
        return bad(name, found, REPORT)
    return good(name, found)


def _placement(want: Logits, others: dict[str, Logits]) -> Check:
    """The bits do not depend on how many experts the cards hold."""
    name = "experts anywhere"
    for place, got in others.items():
        wrong = int(np.count_nonzero(got.view(np.uint32) != want.view(np.uint32)))
        if wrong:
            found = f"{wrong} of {want.size} logits change with {place} of the experts on the cards"
            return bad(name, found, "use --vram-budget 0, and report card, driver and torch")
    return good(name, "the same bits with none, some and all of them on the cards")


def _said(model_dir: Path, device: str, vram_budget: int | None) -> Logits:
    """Logits of the prompt's last token and of each step."""
    with _loaded(model_dir, device, vram_budget) as model:
        return _steps(model)


def _steps(model: Model) -> Logits:
    timeline = Timeline(model)
    logits, _ = timeline.prefill(Prompt(list(PROMPT)))
    return np.stack([logits, *map(timeline.step, STEPS)])


def _plain(model_dir: Path, dtype: torch.dtype) -> Logits:
    """The same with the backbone in torch on the CPU, experts as always."""
    with _loaded(model_dir, "cpu") as model, _on_cpu(model_dir, dtype) as backbone:
        model.backbone = backbone
        return _steps(model)


@contextmanager
def _loaded(model_dir: Path, device: str, vram_budget: int | None = None) -> Iterator[Model]:
    options = LoadOptions(
        device=device,
        kv_tokens=KV_TOKENS,
        vram_budget=vram_budget,
        activation="int8",
        warm_start=False,
    )
    model, _ = load_model(model_dir, ModelConfig.from_dir(model_dir), options)
    try:
        yield model
    finally:
        model.close()


@contextmanager
def _on_cpu(model_dir: Path, dtype: torch.dtype) -> Iterator[TorchBackbone]:
    config, host = ModelConfig.from_dir(model_dir), HostAccelerator()
    with Checkpoint.open(model_dir, config) as checkpoint:
        total = sum(checkpoint.info(name).nbytes for name in backbone_names(checkpoint))
        reader = WeightReader(checkpoint, host.device, dtype, total, ignore)
        backbone = TorchBackbone(config.text, reader, KV_TOKENS, dtype, host)
    try:
        yield backbone
    finally:
        host.close()
