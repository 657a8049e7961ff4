"""What every number of a benchmark depends on: the first line of its file.

    {"bench": 1, "hardware": {...}, "environment": {...}, "model": {...}, "options": {...},
     "asked": {"seed", "feed"}}

No host name, no user, no path: such a file is made to be shown to others.
"""

import platform
import subprocess
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

import hybrid
from hybrid.benchmark.sample import Asked
from hybrid.config import ModelConfig
from hybrid.hardware import Hardware
from hybrid.inventory import take_inventory

FORMAT = 1
_PACKAGES = ("kimi-local", "numpy", "numba", "llvmlite", "torch")
_GIT_S = 10.0  # it may sit on a network


def file_head(
    name: str, config: ModelConfig, options: dict[str, Any], asked: Asked, machine: Hardware
) -> dict[str, Any]:
    """The first line; `options` are those of `engine.stats()`, `name` is the model's directory."""
    return {
        "bench": FORMAT,
        "hardware": machine.to_json(),
        "environment": environment(machine),
        "model": model(name, config),
        "options": options | {"records": options.get("records") and "given"},
        "asked": asdict(asked),
    }


def environment(machine: Hardware) -> dict[str, Any]:
    """Software, commit and load."""
    return {
        "cpu": machine.cpu.name,
        "commit": commit(Path(hybrid.__file__).parents[1]),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "load_average": round(psutil.getloadavg()[0], 2),
        **{package: _version(package) for package in _PACKAGES},
    }


def model(name: str, config: ModelConfig) -> dict[str, Any]:
    """Which model, and how large as published."""
    inventory, text = take_inventory(config), config.text
    return {
        "name": name,
        "architecture": config.architecture,
        "bytes": inventory.bytes,
        "parameters": inventory.parameters,
        "parameters_per_token": inventory.token_parameters,
        "layers": text.num_hidden_layers,
        "moe_layers": text.moe_layers,
        "experts": text.n_routed_experts,
        "experts_per_token": text.num_experts_per_tok,
        "hidden_size": text.hidden_size,
        "moe_intermediate_size": text.moe_intermediate_size,
    }


def commit(root: Path) -> str | None:
    """Of a source tree; None where this runs as an installed package, or git is not there."""
    if not (root / ".git").exists():
        return None
    try:
        told = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty"],
            capture_output=True,
            text=True,
            check=True,
            timeout=_GIT_S,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return told.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
