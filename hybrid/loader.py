"""From a model directory to a model that can run: what goes where, in which order.

    config.json -> headers checked -> memory checked -> kernels compiled and self-checked
    -> backbone read onto the device -> as many routed experts as there is room for -> tower

Every refusal comes before the first large allocation. Too little memory for the experts is no
reason for one (hybrid/reservation.py).
"""

import logging
import sys
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hybrid.backbone import Backbone
from hybrid.cache.loading import CacheOptions, load_tiers
from hybrid.cache.policy import POLICIES
from hybrid.cache.split import Costs
from hybrid.checkpoint import Checkpoint
from hybrid.config import ModelConfig, TextConfig
from hybrid.cpu_experts import auto_mode, dispatch, selfcheck
from hybrid.cpu_experts.cores import available_cores
from hybrid.errors import ConfigError, PlacementError
from hybrid.hardware import Hardware, ModelSizes, probe
from hybrid.load_options import DEFAULT_KV_TOKENS, LoadOptions
from hybrid.model import Model
from hybrid.placement.streaming import streaming_costs
from hybrid.progress import ProgressSink, ignore
from hybrid.reservation import CardTooSmallError, Reservation, backbone_names, reserve
from hybrid.vision.loading import load_features
from hybrid.vision.media_config import MediaConfig

if TYPE_CHECKING:  # it brings torch, which a machine without a GPU need not wait for
    from hybrid.accelerator.interface import Accelerator

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a model goes: options as resolved, cards in use order, memory reserved."""

    options: LoadOptions
    cards: "tuple[Accelerator, ...]"
    reserved: Reservation


def load_model(
    model_dir: Path, config: ModelConfig, options: LoadOptions, sink: ProgressSink = ignore
) -> tuple[Model, LoadOptions]:
    """Load everything that computes; returns it with the options as they were resolved."""
    text = config.text
    asked = replace(options, vision=options.vision and config.vision is not None)
    media = (
        MediaConfig.from_dir(model_dir, config.vision) if asked.vision and config.vision else None
    )
    with ExitStack() as undo, Checkpoint.open(model_dir, config) as checkpoint:
        placed = _place(text, checkpoint, asked, undo)
        options = placed.options
        assert options.threads is not None
        dispatch.warm_up(options.isa, options.activation, progress=sink)
        selfcheck.verify(options.isa, options.activation)
        backbone = _load_backbone(text, checkpoint, placed, sink)
        cache = _cache_options(config, placed)
        experts = load_tiers(model_dir, text, checkpoint, cache, sink)
        undo.callback(experts.close)
        device = str(placed.cards[0].device) if placed.cards else "cpu"
        vision = (
            load_features(config, media, checkpoint, device, options.threads, sink)
            if media
            else None
        )
        undo.pop_all()
    return Model(text, backbone, experts, vision, placed.cards), options


def _place(
    text: TextConfig, checkpoint: Checkpoint, options: LoadOptions, undo: ExitStack
) -> Placed:
    """Resolve every option; where "auto" finds a card that is too small, the CPU has it all."""
    resolved = _resolve(text, options)
    if resolved.device == "cuda":
        cards, free = _cards()
        for card in cards:
            undo.callback(card.close)
        try:
            return Placed(resolved, cards, reserve(text, checkpoint, resolved, free))
        except CardTooSmallError as error:
            if options.device != "auto":
                raise
            log.warning("the CPU computes everything: %s", error)
            resolved = replace(resolved, device="cpu")
    return Placed(resolved, (), reserve(text, checkpoint, resolved))


def _cards() -> "tuple[tuple[Accelerator, ...], list[int]]":
    """The cards, the one that gets the backbone first, and what is free on each."""
    from hybrid.accelerator.cards import free_bytes, open_cards

    cards = tuple(open_cards())
    return cards, [free_bytes(card) for card in cards]


def _resolve(text: TextConfig, options: LoadOptions) -> LoadOptions:
    """Replace every "auto" by what it means on this machine."""
    kv_tokens = options.kv_tokens or min(DEFAULT_KV_TOKENS, text.max_position_embeddings)
    if kv_tokens > text.max_position_embeddings:
        raise ConfigError(
            f"kv_tokens is {kv_tokens}; this model allows at most {text.max_position_embeddings}"
        )
    threads = options.threads or available_cores()
    isa, device = dispatch.select(options.isa), _resolve_device(options.device)
    return replace(
        options,
        device=device,
        threads=threads,
        activation=auto_mode.resolve(options.activation, isa, threads),
        isa=isa,
        kv_tokens=kv_tokens,
    )


def _resolve_device(device: str) -> str:
    if device == "cpu" or (device == "auto" and not _may_have_gpu()):
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if device == "cuda":
        raise PlacementError(
            "device is 'cuda' but torch sees no CUDA device; check nvidia-smi and that torch is a "
            "CUDA build, or load with device='cpu'"
        )
    return "cpu"


def _may_have_gpu() -> bool:
    """Spare a machine that cannot have a GPU the seconds that importing torch takes."""
    nodes = ("/dev/nvidiactl", "/dev/nvhost-ctrl", "/dev/dxg")  # driver, Jetson, Windows' Linux
    return sys.platform != "linux" or any(Path(node).exists() for node in nodes)


def _cache_options(config: ModelConfig, placed: Placed) -> CacheOptions:
    options, room = placed.options, placed.reserved.cards
    assert options.threads is not None
    return CacheOptions(
        capacity=placed.reserved.experts,
        policy=POLICIES[options.cache_policy],
        prefetch=options.prefetch,
        warm_start=options.warm_start,
        records=options.records,
        isa=options.isa,
        threads=options.threads,
        activation=options.activation,
        cards=[placed.cards[card] for card in room.cards],
        card_memory=room.memory,
        streaming=_streaming(config, placed) if room.cards else None,
    )


def _streaming(config: ModelConfig, placed: Placed) -> Costs | None:
    """What the split of a prompt between CPU and cards counts with."""
    machine = this_machine(config, placed.options)
    numbers = [placed.cards[card].device.index or 0 for card in placed.reserved.cards.cards]
    if max(numbers) >= len(machine.gpus):
        log.warning("prompts stay off the cards: nobody describes card %d", max(numbers))
        return None
    return streaming_costs(config, machine, cards=numbers, threads=placed.options.threads)


def this_machine(config: ModelConfig, options: LoadOptions) -> Hardware:
    """This machine with the rates that were measured for the model and these options."""
    return probe(
        threads=options.threads,
        isa=options.isa,
        activation=options.activation,
        sizes=ModelSizes.of(config.text),
    )


def _load_backbone(
    text: TextConfig, checkpoint: Checkpoint, placed: Placed, sink: ProgressSink
) -> Backbone:
    """Compiled kernels on a machine without a GPU, torch on one with it."""
    options = placed.options
    assert options.kv_tokens is not None
    assert options.threads is not None
    if not placed.cards:
        from hybrid.cpu_dense.backbone import CpuBackbone

        return CpuBackbone.load(
            text,
            checkpoint,
            kv_tokens=options.kv_tokens,
            threads=options.threads,
            weights=options.backbone_weights,
            progress=sink,
        )
    import torch

    from hybrid.gpu_attention.backbone import TorchBackbone
    from hybrid.gpu_attention.graphs import CudaCapture
    from hybrid.gpu_attention.weights import WeightReader

    # torch's threads go on spinning after an operation and would take cores from the experts'
    torch.set_num_threads(1)
    first, dtype = placed.cards[0], torch.bfloat16
    total = sum(checkpoint.info(name).nbytes for name in backbone_names(checkpoint))
    reader = WeightReader(checkpoint, first.device, dtype, total, sink, options.backbone_weights)
    capture = CudaCapture(first.device) if first.device.type == "cuda" else None
    return TorchBackbone(text, reader, options.kv_tokens, dtype, first, capture)
