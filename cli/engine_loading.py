"""The flags that load a model, and the engine they ask for with its progress on the screen."""

import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click

import hybrid
from cli.byte_size import ByteSize
from cli.interrupt import Loading
from cli.settings import Settings

if TYPE_CHECKING:
    from cli.turn import View

DIRECTORY = click.Path(path_type=Path, exists=True, file_okay=False)
FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
_NOTICE = "kimi-nano, a very small model that comes with the program; --model DIR names a real one"


def load_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what every command that loads a model takes."""
    for flag in (
        click.option("--context", type=click.IntRange(min=1), help="Tokens the KV cache holds."),
        click.option("--no-prefetch", is_flag=True, help="Read no expert before it is routed to."),
        click.option(
            "--cache-policy",
            type=click.Choice(["decayed-lfu", "lru", "lfu", "static"]),
            default="decayed-lfu",
            help="Which experts stay in memory.",
        ),
        click.option("--records", type=FILE, help="What `kimi-local prepare` wrote elsewhere."),
        click.option(
            "--vram-budget",
            type=ByteSize(),
            help="Experts on GPUs, as in 64GB. [default: all that is free]",
        ),
        click.option(
            "--ram-budget",
            type=ByteSize(),
            help="Experts in RAM, as in 256GB; others are read. [default: all that is free]",
        ),
        click.option("--isa", help="Instruction set of the CPU kernels. [default: the best]"),
        click.option(
            "--activation",
            type=click.Choice(["auto", "int8", "int16", "bf16"]),
            default="auto",
            help="Activations of the routed experts.",
        ),
        click.option(
            "--backbone-weights",
            type=click.Choice(["bf16", "int8"]),
            default="bf16",
            help="Attention, shared experts and head; int8 halves their bytes.",
        ),
        click.option("--no-vision", is_flag=True, help="Leave out what sees pictures and videos."),
        click.option("--threads", type=click.IntRange(1, 1024), help="CPU threads."),
        click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto"),
    ):
        command = flag(command)
    return command


def load_defaults() -> dict[str, Any]:
    """The flags of `load_flags`, none of them given."""
    bare = click.Command("load")
    load_flags(bare)
    return bare.make_context("load", []).params


@contextmanager
def loaded(here: Settings, flags: dict[str, Any], view: "View") -> "Iterator[hybrid.Engine]":
    """The engine, closed in the end; a signal that comes while it loads is not lost."""
    from cli.figures import duration

    began = perf_counter()
    with Loading() as loading:
        model = chosen_model(here, flags, view)
        engine = _load(model, flags, view, loading)
    with closing(engine):
        loading.check()
        spent = duration(perf_counter() - began)
        view.say(
            f"{model.name} · loaded in {spent} · experts {engine.options.isa} "
            f"{engine.options.activation}{_placed(engine)} · context {engine.kv_tokens:,} tokens",
            "dim",
        )
        yield engine


def _placed(engine: "hybrid.Engine") -> str:
    """Where the experts are, if not all in RAM."""
    from cli.figures import percent

    tiers = engine.stats()["tiers"]
    records = {tier: tiers[tier]["records"] for tier in ("vram", "ram", "nvme")}
    total = sum(records.values())
    names = {"vram": "on the device", "ram": "in RAM", "nvme": "on disk"}
    if total == records["ram"]:
        return ""
    shares = (f"{percent(n, total)} {names[tier]}" for tier, n in records.items() if n)
    return f", {', '.join(shares)}"


def chosen_model(here: Settings, flags: dict[str, Any], view: "View") -> Path:
    """What --model names, or else the environment, or else kimi-nano; `view` tells of the last."""
    named: Path | None = flags["model"] or here.model_dir
    if named is not None:
        return named
    view.say(_NOTICE, "dim")
    return hybrid.KIMI_NANO


def _load(model: Path, flags: dict[str, Any], view: "View", loading: Loading) -> "hybrid.Engine":
    """Load with the progress on the screen."""
    view.waiting(f"loading {model.name}")
    try:
        return hybrid.load(
            model,
            device=flags["device"],
            threads=flags["threads"],
            activation=flags["activation"],
            backbone_weights=flags["backbone_weights"],
            isa=flags["isa"],
            kv_tokens=flags["context"],
            vision=not flags["no_vision"],
            ram_budget=flags["ram_budget"],
            vram_budget=flags["vram_budget"],
            records=flags["records"],
            cache_policy=flags["cache_policy"],
            prefetch=not flags["no_prefetch"],
            warm_start=flags.get("warm_start", True),
            progress=loading.sink(view.progress),
        )
    finally:
        view.finish()


def one_shot_view(here: Settings, *, as_json: bool, plain: bool) -> "View":
    """Rich where a person sees both streams; plain for pipes, files and --plain."""
    if not plain and sys.stderr.isatty() and (as_json or sys.stdout.isatty()):
        from cli.ui import RichView

        return RichView(colour=here.colour, answers=not as_json, one_shot=True)
    from cli.plain_view import PlainView

    return PlainView(colour=here.colour, answer=not as_json)
