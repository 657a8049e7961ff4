"""Machines and the shape of Kimi K2.5 as data that comes with the package.

`hybrid/machines/*.json` are descriptions as `Hardware.from_json` reads them, from published
specifications; `kimi_k25.json` is the published config.json.
"""

import difflib
import json
from functools import cache
from importlib.resources import files

from hybrid.config import ModelConfig
from hybrid.errors import ConfigError
from hybrid.hardware import Hardware

MODEL = "k2.5"  # the name that stands for the built-in shape


@cache
def builtin_config() -> ModelConfig:
    """Kimi K2.5 as published."""
    text = files("hybrid.placement").joinpath("kimi_k25.json").read_text("utf-8")
    return ModelConfig.from_dict(json.loads(text))


@cache
def machine_names() -> tuple[str, ...]:
    """Names of the machines that are described here, sorted."""
    folder = files("hybrid").joinpath("machines")
    found = (each.name for each in folder.iterdir())
    return tuple(sorted(name.removesuffix(".json") for name in found if name.endswith(".json")))


def builtin_machine(name: str) -> Hardware:
    """A machine by its name; raises ConfigError that lists the names."""
    if name not in machine_names():
        near = difflib.get_close_matches(name, machine_names(), 1, 0.5)
        meant = f"did you mean {near[0]}? There are" if near else "give a file, or one of"
        raise ConfigError(f"no machine is called {name!r}; {meant} {', '.join(machine_names())}")
    text = files("hybrid").joinpath("machines", f"{name}.json").read_text("utf-8")
    return Hardware.from_json(json.loads(text), f"machines/{name}.json")
