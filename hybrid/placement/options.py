"""What a plan is asked for; the names are those of `hybrid.load` and of the command line."""

from dataclasses import dataclass

from hybrid.errors import ConfigError

CHOICES = {
    "device": ("auto", "cpu", "cuda"),
    "backbone_weights": ("bf16", "int8", "auto"),
    "routing": ("local", "uniform"),
}
LEAST = {"context": 1, "users": 1, "threads": 1, "ram_budget": 0, "vram_budget": 0}
OPTIONAL = ("threads", "ram_budget", "vram_budget")
MOST = 1 << 60


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """`None` means what the loader makes of it; "auto" is resolved by the plan."""

    context: int = 32_768  # tokens that the KV cache holds for each user
    users: int = 1
    vision: bool = True  # where the model has it
    device: str = "auto"
    backbone_weights: str = "bf16"  # "auto": bf16 where it fits, else int8
    ram_budget: int | None = None  # bytes of RAM for routed experts; None: what is free
    vram_budget: int | None = None  # bytes of the GPUs for them; None: what is free, no GPU: none
    threads: int | None = None  # None: a thread a core
    routing: str = "local"  # "local": as Kimi-Linear routes (hits.py); "uniform": at random

    def __post_init__(self) -> None:
        for name, least in LEAST.items():
            value = getattr(self, name)
            if value is None and name in OPTIONAL:
                continue
            if type(value) is not int or not least <= value <= MOST:
                raise ConfigError(f"{name} is {value!r}; give a whole number of at least {least}")
        for name, choices in CHOICES.items():
            if (value := getattr(self, name)) not in choices:
                raise ConfigError(f"{name} is {value!r}; choose {', '.join(choices)}")
