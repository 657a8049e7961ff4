"""From a model directory to a model that can run: what goes where, in which order.

    config.json -> headers checked -> memory checked -> kernels compiled and self-checked
    -> backbone read onto the device -> routed experts repacked into one arena in host RAM -> tower

Every refusal comes before the first large allocation.
"""

import numbers
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from hybrid.backbone import Backbone
from hybrid.checkpoint import Checkpoint
from hybrid.config import ModelConfig, TextConfig
from hybrid.cpu_experts import ExpertLayer, auto_mode, dispatch, selfcheck, shards
from hybrid.cpu_experts.cores import available_cores
from hybrid.cpu_experts.layer import MAX_THREADS, Int4
from hybrid.cpu_experts.pool import shared_pool
from hybrid.cpu_experts.record import RecordShape
from hybrid.errors import ConfigError, PlacementError
from hybrid.memory import free_host_bytes
from hybrid.model import Model
from hybrid.progress import Progress, ProgressSink, ignore
from hybrid.vision.loading import load_features, vision_names
from hybrid.vision.media_config import MediaConfig

DEFAULT_KV_TOKENS = 32_768
KV_BYTES = 2  # bf16


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """How a model is to be loaded. `None` and "auto" are resolved here and logged in the stats."""

    device: str = "auto"
    threads: int | None = None
    activation: str = "auto"
    backbone_weights: str = "bf16"
    ram_budget: int | None = None  # bytes
    vram_budget: int | None = None  # bytes
    kv_tokens: int | None = None
    isa: str | None = None
    vision: bool = True  # where the model has it

    def __post_init__(self) -> None:
        for name in ("threads", "ram_budget", "vram_budget", "kv_tokens"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, _whole(name, value))
        if self.threads is not None and self.threads > MAX_THREADS:
            raise ConfigError(f"threads is {self.threads}; give at most {MAX_THREADS}")
        if self.device not in ("auto", "cpu", "cuda"):
            raise ConfigError(f"device is {self.device!r}; choose auto, cpu or cuda")
        if not isinstance(self.vision, bool):
            raise ConfigError(f"vision is {self.vision!r}; give True or False")
        if self.backbone_weights not in ("bf16", "int8"):
            raise ConfigError(f"backbone_weights is {self.backbone_weights!r}; choose bf16 or int8")


def _whole(name: str, value: object) -> int:
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{name} is {value!r}; give a whole number of at least 1")
    return int(value)


def load_model(
    model_dir: Path, config: ModelConfig, options: LoadOptions, sink: ProgressSink = ignore
) -> tuple[Model, LoadOptions]:
    """Load everything that computes; returns it with the options as they were resolved."""
    text = config.text
    options = replace(_resolve(text, options), vision=options.vision and config.vision is not None)
    assert options.kv_tokens is not None
    media = (
        MediaConfig.from_dir(model_dir, config.vision) if options.vision and config.vision else None
    )
    with Checkpoint.open(model_dir, config) as checkpoint:
        _require_memory(text, checkpoint, options)
        dispatch.warm_up(options.isa, options.activation, progress=sink)
        selfcheck.verify(options.isa, options.activation)
        backbone = _load_backbone(text, checkpoint, options, sink)
        experts = _load_experts(text, checkpoint, options, sink)
        assert options.threads is not None
        vision = (
            load_features(config, media, checkpoint, options.device, options.threads, sink)
            if media
            else None
        )
    return Model(text, backbone, experts, vision), options


def _resolve(text: TextConfig, options: LoadOptions) -> LoadOptions:
    """Replace every "auto" by what it means on this machine."""
    kv_tokens = options.kv_tokens or min(DEFAULT_KV_TOKENS, text.max_position_embeddings)
    if kv_tokens > text.max_position_embeddings:
        raise ConfigError(
            f"kv_tokens is {kv_tokens}; this model allows at most {text.max_position_embeddings}"
        )
    threads = options.threads or available_cores()
    isa, device = dispatch.select(options.isa), _resolve_device(options.device)
    if device == "cuda" and options.backbone_weights != "bf16":
        raise ConfigError(
            f"backbone_weights is {options.backbone_weights!r}, which only the CPU has; "
            "use bf16 on a GPU"
        )
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


def _require_memory(text: TextConfig, checkpoint: Checkpoint, options: LoadOptions) -> None:
    """Refuse what cannot fit before anything is allocated."""
    assert options.kv_tokens is not None
    experts = text.moe_layers * text.n_routed_experts * _record_bytes(text)
    dense = sum(_backbone_bytes(checkpoint, name, options) for name in _backbone_names(checkpoint))
    if options.vision:
        dense += sum(checkpoint.info(name).nbytes for name in vision_names(checkpoint))
    latent = text.kv_lora_rank + text.qk_rope_head_dim
    cache = text.num_hidden_layers * options.kv_tokens * latent * KV_BYTES
    on_device = dense + cache
    if options.device == "cuda":
        _require("device", "vram_budget", on_device, _free_device_bytes(), options.vram_budget)
        on_device = 0
    _require("host", "ram_budget", experts + on_device, free_host_bytes(), options.ram_budget)


def _backbone_bytes(checkpoint: Checkpoint, name: str, options: LoadOptions) -> int:
    """Memory of one tensor once it is loaded."""
    info = checkpoint.info(name)
    coded = len(info.shape) == 2 and not name.endswith(("embed_tokens.weight", "mlp.gate.weight"))
    if options.backbone_weights == "int8" and coded:
        return info.nbytes * 17 // 32  # a byte a weight, and two for every 32
    return info.nbytes


def _require(where: str, budget_name: str, needed: int, free: int, budget: int | None) -> None:
    limit, name = (free, "free") if budget is None or free < budget else (budget, budget_name)
    if needed > limit:
        raise PlacementError(
            f"the model needs {needed / 1e9:,.3f} GB of {where} memory but {name} is "
            f"{limit / 1e9:,.3f} GB; lower kv_tokens, or use a machine with more"
        )


def _free_device_bytes() -> int:
    import torch

    return torch.cuda.mem_get_info()[0]


def _record_bytes(text: TextConfig) -> int:
    return RecordShape(text.hidden_size, text.moe_intermediate_size).nbytes


def _backbone_names(checkpoint: Checkpoint) -> Iterator[str]:
    """Text tensors that are not routed experts."""
    return (
        name
        for name in checkpoint
        if name.startswith(("model.", "lm_head.")) and ".mlp.experts." not in name
    )


def _load_backbone(
    text: TextConfig, checkpoint: Checkpoint, options: LoadOptions, sink: ProgressSink
) -> Backbone:
    """Compiled kernels on a machine without a GPU, torch on one with it."""
    assert options.kv_tokens is not None
    assert options.threads is not None
    if options.device == "cpu":
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
    from hybrid.gpu_attention.weights import WeightReader

    # torch's threads go on spinning after an operation and would take cores from the experts'
    torch.set_num_threads(1)
    total = sum(checkpoint.info(name).nbytes for name in _backbone_names(checkpoint))
    reader = WeightReader(checkpoint, torch.device("cuda"), torch.bfloat16, total, sink)
    return TorchBackbone(text, reader, options.kv_tokens, torch.bfloat16)


def _load_experts(
    text: TextConfig, checkpoint: Checkpoint, options: LoadOptions, sink: ProgressSink
) -> Sequence[ExpertLayer | None]:
    """Repack every routed expert from the mapped shards, several at once."""
    moe = [layer for layer in range(text.num_hidden_layers) if text.is_moe(layer)]
    layers: list[ExpertLayer | None] = [None] * text.num_hidden_layers
    if not moe:
        return layers
    assert options.threads is not None
    shape = RecordShape(text.hidden_size, text.moe_intermediate_size)
    total = len(moe) * text.n_routed_experts
    memory = shards.allocate(shape, total, shared_pool(options.threads).shares)
    for layer, own in zip(moe, shards.layers_of(memory, text.n_routed_experts), strict=True):
        layers[layer] = ExpertLayer(
            text.n_routed_experts,
            text.hidden_size,
            text.moe_intermediate_size,
            isa=options.isa,
            threads=options.threads,
            activation=options.activation,
            shards=own,
        )

    def fill(place: tuple[int, int]) -> None:
        layer, expert = place
        target = layers[layer]
        assert target is not None
        gate, up, down = _packed(checkpoint, layer, expert)
        target.set_expert(expert, gate=gate, up=up, down=down)

    places = [(layer, expert) for layer in moe for expert in range(text.n_routed_experts)]
    pool = ThreadPoolExecutor(options.threads)
    try:
        for done, _ in enumerate(pool.map(fill, places), 1):
            sink(Progress("experts", done * shape.nbytes, total * shape.nbytes, "bytes"))
    finally:  # an interrupt must not wait for the thousands that are queued
        pool.shutdown(cancel_futures=True)
    return layers


def _packed(checkpoint: Checkpoint, layer: int, expert: int) -> tuple[Int4, Int4, Int4]:
    """Codes and scales of gate, up and down, as they lie in the shards."""
    prefix = f"model.layers.{layer}.mlp.experts.{expert}"

    def read(name: str) -> Int4:
        base = f"{prefix}.{name}_proj.weight"
        return checkpoint.tensor(f"{base}_packed"), checkpoint.tensor(f"{base}_scale")

    return read("gate"), read("up"), read("down")
