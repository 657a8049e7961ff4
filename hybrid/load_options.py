"""How a model is to be loaded: every option, checked, with what it means to leave it out."""

import numbers
from dataclasses import dataclass
from pathlib import Path

from hybrid.cache.policy import DEFAULT, POLICIES
from hybrid.cpu_experts.layer import MAX_THREADS
from hybrid.errors import ConfigError

DEFAULT_KV_TOKENS = 32_768


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """How a model is to be loaded. `None` and "auto" are resolved here and logged in the stats."""

    device: str = "auto"
    threads: int | None = None
    activation: str = "auto"
    backbone_weights: str = "bf16"
    ram_budget: int | None = None  # bytes of RAM for routed experts; None: what is free
    vram_budget: int | None = None  # bytes of cards for routed experts; None: what is free there
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
