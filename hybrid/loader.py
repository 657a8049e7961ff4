"""From a model directory to a model that can run: what goes where, in which order.

    config.json -> headers checked -> memory checked -> kernels compiled and self-checked
    -> backbone read onto the device -> as many routed experts as there is room for -> tower

Every refusal comes before the first large allocation. Too little RAM for the experts is no reason
for one: what does not fit stays in the file (hybrid/cache).
"""

import logging
import numbers
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from hybrid.backbone import Backbone
from hybrid.cache.capacity import Capacity, within
from hybrid.cache.loading import CacheOptions, load_tiers
from hybrid.cache.policy import DEFAULT, POLICIES
from hybrid.cache.source import slot_bytes
from hybrid.checkpoint import Checkpoint
from hybrid.config import ModelConfig, TextConfig
from hybrid.cpu_experts import auto_mode, dispatch, selfcheck
from hybrid.cpu_experts.cores import available_cores
from hybrid.cpu_experts.layer import MAX_THREADS
from hybrid.cpu_experts.record import RecordShape
from hybrid.errors import ConfigError, PlacementError
from hybrid.memory import free_host_bytes
from hybrid.model import Model
from hybrid.progress import ProgressSink, ignore
from hybrid.vision.loading import load_features, vision_names
from hybrid.vision.media_config import MediaConfig

DEFAULT_KV_TOKENS = 32_768
KV_BYTES = 2  # bf16

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """How a model is to be loaded. `None` and "auto" are resolved here and logged in the stats."""

    device: str = "auto"
    threads: int | None = None
    activation: str = "auto"
    backbone_weights: str = "bf16"
    ram_budget: int | None = None  # bytes of RAM for routed experts; None: what is free
    vram_budget: int | None = None  # bytes of the device for routed experts; None: none
    kv_tokens: int | None = None
    isa: str | None = None
    vision: bool = True  # where the model has it
    records: Path | None = None  # the file that `kimi-local prepare` wrote, if elsewhere
    cache_policy: str = DEFAULT.name
    warm_start: bool = True  # begin with the experts that the last run wanted most
    prefetch: bool = True  # from the file, by what the next layer's router will probably say

    def __post_init__(self) -> None:
        least = {"threads": 1, "ram_budget": 0, "vram_budget": 0, "kv_tokens": 1}
        for name, limit in least.items():
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, _whole(name, value, limit))
        if self.threads is not None and self.threads > MAX_THREADS:
            raise ConfigError(f"threads is {self.threads}; give at most {MAX_THREADS}")
        if self.device not in ("auto", "cpu", "cuda"):
            raise ConfigError(f"device is {self.device!r}; choose auto, cpu or cuda")
        for name in ("vision", "prefetch", "warm_start"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} is {getattr(self, name)!r}; give True or False")
        if self.cache_policy not in POLICIES:
            raise ConfigError(
                f"cache_policy is {self.cache_policy!r}; choose one of {', '.join(POLICIES)}"
            )
        if self.backbone_weights not in ("bf16", "int8"):
            raise ConfigError(f"backbone_weights is {self.backbone_weights!r}; choose bf16 or int8")


def _whole(name: str, value: object, least: int) -> int:
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{name} is {value!r}; give a whole number of at least {least}")
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
        size = _share_memory(text, checkpoint, options)
        dispatch.warm_up(options.isa, options.activation, progress=sink)
        selfcheck.verify(options.isa, options.activation)
        backbone = _load_backbone(text, checkpoint, options, sink)
        assert options.threads is not None
        cache = CacheOptions(
            capacity=size,
            policy=POLICIES[options.cache_policy],
            prefetch=options.prefetch,
            warm_start=options.warm_start,
            records=options.records,
            isa=options.isa,
            threads=options.threads,
            activation=options.activation,
        )
        experts = load_tiers(model_dir, text, checkpoint, cache, sink)
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


def _share_memory(text: TextConfig, checkpoint: Checkpoint, options: LoadOptions) -> Capacity:
    """What the experts get, beside what must fit; refuses before anything is allocated."""
    assert options.kv_tokens is not None
    sizes = {
        name: _backbone_bytes(checkpoint, name, options) for name in _backbone_names(checkpoint)
    }
    dense = sum(sizes.values())
    if options.vision:
        dense += sum(checkpoint.info(name).nbytes for name in vision_names(checkpoint))
    latent = text.kv_lora_rank + text.qk_rope_head_dim
    cache = text.num_hidden_layers * options.kv_tokens * latent * KV_BYTES
    on_device = dense + cache
    if options.device == "cuda":
        on_host = sizes["model.embed_tokens.weight"]  # its rows are looked up there
        _require("device", on_device - on_host, _free_device_bytes())
    else:
        on_host = on_device
    free = free_host_bytes()
    _require("host", on_host, free)
    return _share_experts(text, options, free - on_host)


def _share_experts(text: TextConfig, options: LoadOptions, free: int) -> Capacity:
    """Slots for the experts, with `free` bytes of RAM beside everything else."""
    record, records = _record_bytes(text), text.moe_layers * text.n_routed_experts
    size, vram, ram = slot_bytes(record), options.vram_budget or 0, options.ram_budget
    if vram and options.device == "cuda":
        log.warning(
            "vram_budget is %d, but experts run on CUDA devices not yet: RAM has them", vram
        )
        vram = 0
    share = within(free, records, size, vram, ram)
    needed = (share.ram + share.device) * size
    if needed > free:
        raise PlacementError(
            f"the experts would take {needed / 1e9:,.3f} GB of RAM but the rest leaves only "
            f"{max(0, free) / 1e9:,.3f} GB; lower ram_budget and vram_budget, or kv_tokens"
        )
    return share


def _backbone_bytes(checkpoint: Checkpoint, name: str, options: LoadOptions) -> int:
    """Memory of one tensor once it is loaded."""
    info = checkpoint.info(name)
    coded = len(info.shape) == 2 and not name.endswith(("embed_tokens.weight", "mlp.gate.weight"))
    if options.backbone_weights == "int8" and coded:
        return info.nbytes * 17 // 32  # a byte a weight, and two for every 32
    return info.nbytes


def _require(where: str, needed: int, free: int) -> None:
    if needed > free:
        raise PlacementError(
            f"without its routed experts the model needs {needed / 1e9:,.3f} GB of {where} memory "
            f"but {free / 1e9:,.3f} GB are free; lower kv_tokens, or use a machine with more"
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
