"""`kimi-local inspect DIR`: what is in a checkpoint, read from its headers only."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from hybrid.checkpoint import Checkpoint
from hybrid.config import ModelConfig, TextConfig
from hybrid.inventory import Inventory, take_inventory

VISION = ("vision", "projector")  # what --no-vision leaves out
COLUMNS = "{:<10}  {:<6} {:>8}  {:>12}  {:>10}  {:>14}"


@click.command("inspect")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
@click.option("--no-vision", is_flag=True, help="Sums as chat --no-vision would load it.")
def command(directory: Path, as_json: bool, no_vision: bool) -> None:
    """Show what is in a checkpoint: sizes by component and tier.

    Every header is checked against config.json, so a directory that passes here will load.
    """
    config = ModelConfig.from_dir(directory)
    with Checkpoint.open(directory, config) as checkpoint:
        inventory = take_inventory(config, checkpoint)
        report = _report(config, checkpoint, inventory, left_out=VISION if no_vision else ())
    click.echo(json.dumps(report, indent=2) if as_json else _table(report, config, inventory))


def _report(
    config: ModelConfig, checkpoint: Checkpoint, inventory: Inventory, *, left_out: Sequence[str]
) -> dict[str, Any]:
    """What --json prints; components that are `left_out` have no tier."""
    text, quantization = config.text, config.quantization
    left_behind = [size for size in inventory.components if size.name in left_out]
    return {
        "architecture": config.architecture,
        "layers": {"dense": text.first_k_dense_replace, "moe": text.moe_layers},
        "experts": {"per_layer": text.n_routed_experts, "per_token": text.num_experts_per_tok},
        "quantization": quantization
        and {"num_bits": quantization.num_bits, "group_size": quantization.group_size},
        "vision": config.vision is not None,
        "prefix": checkpoint.prefix,
        "shards": len(checkpoint.files),
        "tensors": inventory.tensors,
        "ignored": list(checkpoint.ignored),
        "bytes": inventory.bytes,
        "parameters": inventory.parameters,
        "parameters_per_token": inventory.token_parameters,
        "kv_bytes_per_token": inventory.kv_token_bytes,
        "max_position_embeddings": text.max_position_embeddings,
        "tiers": {
            tier: {
                "bytes": inventory.tier_bytes(tier)
                - sum(c.loaded_bytes for c in left_behind if c.tier == tier),
                "bytes_per_token": inventory.tier_token_bytes(tier),
            }
            for tier in ("device", "RAM")
        },
        "left_out_bytes": sum(size.bytes for size in left_behind),
        "components": [
            {
                "name": size.name,
                "tier": None if size in left_behind else size.tier,
                "tensors": size.tensors,
                "parameters": size.parameters,
                "bytes": size.bytes,
                "bytes_per_token": size.token_bytes,
            }
            for size in inventory.components
        ],
    }


def _table(report: dict[str, Any], config: ModelConfig, inventory: Inventory) -> str:
    lines = [f"{config.architecture}: {_layers(config.text)}", ""]
    lines.append(COLUMNS.format("component", "tier", "tensors", "parameters", "size", "per token"))
    for c in report["components"]:
        sizes = (_count(c["parameters"]), _size(c["bytes"]), _size(c["bytes_per_token"]))
        lines.append(COLUMNS.format(c["name"], c["tier"] or "-", f"{c['tensors']:,}", *sizes))
    lines.append("")
    for tier, sums in report["tiers"].items():
        each = _size(sums["bytes_per_token"])
        lines.append(f"{tier:<10}  {_size(sums['bytes'])}, of which a token reads {each}")
    if report["left_out_bytes"]:
        lines.append(f"left out    {_size(report['left_out_bytes'])}: {' and '.join(VISION)}")
    kv, context = inventory.kv_token_bytes, config.text.max_position_embeddings
    lines += [
        f"KV cache    {kv:,} B per token, {_size(kv * context)} at {context:,} tokens",
        f"weights     {_weights(config)}; {_count(inventory.parameters)} parameters, "
        f"{_count(inventory.token_parameters)} per token",
        f"files       {report['shards']} shards, {report['tensors']:,} tensors, "
        f"{_size(inventory.bytes)}; {_ignored(report['ignored'])}",
    ]
    return "\n".join(lines)


def _layers(text: TextConfig) -> str:
    dense = f"{text.num_hidden_layers} layers, {text.first_k_dense_replace} dense"
    if not text.moe_layers:
        return dense
    return (
        f"{dense} and {text.moe_layers} with {text.n_routed_experts} experts, "
        f"{text.num_experts_per_tok} per token"
    )


def _weights(config: ModelConfig) -> str:
    if config.quantization is None:
        return "no experts"
    return f"experts INT4 in groups of {config.quantization.group_size}"


def _ignored(names: list[str]) -> str:
    """Count what the model does not need, with one example: foreign text, so as ASCII."""
    return f"{len(names)} more ignored ({names[0]!a}, ...)" if names else "none ignored"


def _size(nbytes: int) -> str:
    return _scaled(nbytes, ("B", "kB", "MB", "GB", "TB"))


def _count(number: int) -> str:
    return _scaled(number, ("", "k", "M", "B", "T"))


def _scaled(number: float, units: tuple[str, ...]) -> str:
    step = 0
    while number >= 999.995 and step < len(units) - 1:
        number, step = number / 1000, step + 1
    return f"{number:.2f} {units[step]}" if step else f"{number} {units[0]}".rstrip()
