"""`kimi-local plan`: what goes where on a machine, how fast it will be, and what limits it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.byte_size import ByteSize

if TYPE_CHECKING:
    from hybrid.config import ModelConfig
    from hybrid.hardware import Hardware
    from hybrid.inventory import Inventory
    from hybrid.placement import Plan

CONTEXT = 32_768  # where none is asked for, as in hybrid/loader.py
MAX_DESCRIPTION = 1 << 20  # bytes of a hardware file
COLUMNS = "{:<14} {:>10} {:>10} {:>10}"
TIERS = ("vram", "ram", "nvme")


@click.command("plan")
@click.argument("place", metavar="[MODEL]", required=False)
@click.option("-m", "--model", metavar="k2.5|DIR", help="The model.  [default: k2.5, no weights]")
@click.option(
    "--hardware", metavar="FILE|NAME", help="Another machine, or `list`.  [default: this one]"
)
@click.option("--context", type=click.IntRange(min=1), help="Tokens the KV cache holds.")
@click.option("--users", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--no-vision", is_flag=True, help="Leave out what sees pictures and videos.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto")
@click.option(
    "--backbone-weights",
    type=click.Choice(["bf16", "int8", "auto"]),
    default="bf16",
    show_default=True,
    help="auto: bf16 where it fits, else int8.",
)
@click.option("--ram-budget", type=ByteSize(), help="Experts in RAM, as in 256GB.")
@click.option("--vram-budget", type=ByteSize(), help="Experts on GPUs, as in 64GB.")
@click.option("--threads", type=click.IntRange(1, 1024), help="CPU threads.")
@click.option("--calibrate", is_flag=True, help="Measure this machine first, and keep the rates.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
def command(
    place: str | None,
    model: str | None,
    hardware: str | None,
    context: int | None,
    users: int,
    no_vision: bool,
    device: str,
    backbone_weights: str,
    ram_budget: int | None,
    vram_budget: int | None,
    threads: int | None,
    calibrate: bool,
    as_json: bool,
) -> None:
    """Predict what fits on a machine and how fast it answers; needs no weights.

    Exit code 0 says that there is a plan, also where it says that the model does not fit.
    """
    from hybrid.placement import PlanOptions, machine_names, plan

    if hardware == "list":
        click.echo(json.dumps(machine_names()) if as_json else "\n".join(machine_names()))
        return
    if place and model and place != model:
        raise click.UsageError(f"the model is named twice: {place} and {model}")
    if calibrate and hardware:
        raise click.UsageError("--calibrate measures this machine; leave out --hardware")
    config, inventory, directory = _model(model or place)
    if calibrate:
        _calibrate(config, directory, threads)
    machine = _other(hardware) if hardware else _this(config, directory, threads)
    options = PlanOptions(
        context=context or min(CONTEXT, config.text.max_position_embeddings),
        users=users,
        vision=not no_vision,
        device=device,
        backbone_weights=backbone_weights,
        ram_budget=ram_budget,
        vram_budget=vram_budget,
        threads=threads,
    )
    found = plan(config, machine, options, inventory)
    click.echo(json.dumps(found.to_json()) if as_json else "\n".join(_lines(found, machine)))


def _model(name: str | None) -> "tuple[ModelConfig, Inventory | None, Path | None]":
    """The model's shape; the sizes of its files where they are there."""
    from hybrid.checkpoint import Checkpoint
    from hybrid.config import ModelConfig
    from hybrid.errors import CheckpointError
    from hybrid.inventory import take_inventory
    from hybrid.placement import MODEL, builtin_config

    if name is None or (name.lower() == MODEL and not Path(name).exists()):
        return builtin_config(), None, None
    directory = Path(name)
    config = ModelConfig.from_dir(directory)
    if not any(directory.glob("*.safetensors")):  # the shape alone will do
        return config, None, directory
    try:
        with Checkpoint.open(directory, config) as checkpoint:
            return config, take_inventory(config, checkpoint), directory
    except CheckpointError as error:
        raise CheckpointError(f"{error}; a plan needs the model's config.json only") from None


def _this(config: "ModelConfig", directory: Path | None, threads: int | None) -> "Hardware":
    """This machine, with the rates that were measured for the model's matrices."""
    from hybrid.hardware import ModelSizes, probe

    return probe(directory, threads=threads, sizes=ModelSizes.of(config.text))


def _calibrate(config: "ModelConfig", directory: Path | None, threads: int | None) -> None:
    from hybrid.calibration import calibrate
    from hybrid.hardware import ModelSizes

    def show(what: str) -> None:
        click.echo(f"measuring: {what}", err=True)

    calibrate(ModelSizes.of(config.text), threads=threads, model_dir=directory, sink=show)


def _other(name: str) -> "Hardware":
    """A machine by its name, or from a file."""
    from hybrid.hardware import Hardware
    from hybrid.placement import builtin_machine, machine_names

    if name in machine_names() or not Path(name).exists():
        return builtin_machine(name)
    return Hardware.from_json(_description(Path(name)), Path(name).name)


def _description(path: Path) -> object:
    """Parse a file that anybody may have written, up to a bound."""
    from hybrid.errors import ConfigError
    from hybrid.model_files import parse_json_object

    with path.open("rb") as file:
        data = file.read(MAX_DESCRIPTION + 1)
    if len(data) > MAX_DESCRIPTION:
        raise ConfigError(f"{path.name} has more than {MAX_DESCRIPTION} bytes; give a description")
    return parse_json_object(data, path.name, ConfigError)


def _lines(plan: "Plan", machine: "Hardware") -> Iterator[str]:
    """The table for people."""
    yield f"{machine.name}: {_outline(machine)}"
    yield f"rates       {_origin(plan)}"
    yield ""
    yield COLUMNS.format("", "VRAM", "RAM", "disk")
    largest = max(max(row.values()) for row in plan.bytes.values())
    for name, row in plan.bytes.items():
        if any(row.values()):
            sizes = (_size(row.get(tier, 0), largest) for tier in TIERS)
            yield COLUMNS.format(name.replace("_", " "), *sizes)
    slots = plan.expert_slots_per_layer
    yield COLUMNS.format("experts/layer", *(f"{slots[tier]:,}" for tier in TIERS))
    yield ""
    if plan.fits:
        yield from _speeds(plan)
    else:
        yield f"does not fit: {plan.bottleneck}"
    for line in plan.advice:
        yield f"-> {line}"


def _speeds(plan: "Plan") -> Iterator[str]:
    depths = ", ".join(f"{rate:.2f} after {int(n):,}" for n, rate in plan.decode_tok_s_at.items())
    yield f"decode      {plan.decode_tok_s:.2f} tokens/s" + (f"; {depths} tokens" if depths else "")
    if plan.expert_slots_per_layer["nvme"]:
        yield (
            f"            {100 * plan.hits.nvme:.1f} % of a token's experts come from the disk; "
            f"asked for at random, {plan.decode_tok_s_uniform:.2f} tokens/s"
        )
    prompts = ", ".join(f"{rate:,.1f} at {int(n):,}" for n, rate in plan.prefill_tok_s.items())
    yield f"prefill     {prompts} tokens/s"
    yield f"loading     {plan.load_s:,.0f} s"
    yield f"limited by  {plan.bottleneck}"
    settings = " ".join(f"{name}={value}" for name, value in plan.settings.items())
    yield f"load with   {settings}"


def _outline(machine: "Hardware") -> str:
    cpu, ram = machine.cpu, machine.ram
    parts = [cpu.name or "a CPU nobody described"]
    if cpu.cores:
        parts.append(f"{cpu.cores} cores")
    if ram.total_bytes:
        parts.append(f"{_size(ram.total_bytes, ram.total_bytes)} of RAM")
    parts += [gpu.name or "a GPU" for gpu in machine.gpus]
    return ", ".join(parts)


def _origin(plan: "Plan") -> str:
    if plan.measured and not plan.assumed:
        return "measured on this machine"
    if plan.measured:
        return f"measured, but for {', '.join(plan.assumed)}"
    return "assumed from what the parts promise; --calibrate measures this machine"


def _size(count: int, largest: int) -> str:
    """In the unit that suits the largest of those it stands beside."""
    from cli.figures import byte_scale

    if not count:
        return "-"
    scale, unit = byte_scale(largest)
    return f"{count / scale:,.1f} {unit}"
