"""`kimi-local trace`: which experts tokens choose, and what a cache would make of it.

    record OUT -p PROMPT    engine ──Recorder──> OUT, a line a token and layer
    replay FILE             FILE ──policies──> hit rates, promotions, bytes; a table, JSON, a plot

The file's form is in `hybrid/cache/trace_file.py`.
"""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli import sampling_options, settings
from cli.engine_loading import DIRECTORY, load_flags, loaded, one_shot_view
from cli.prompt_source import one_shot_prompt
from cli.trace_options import POLICIES, SLOTS, Capacity
from hybrid.errors import RequestError

if TYPE_CHECKING:
    from hybrid import Engine
    from hybrid.cache.recorder import Recorder

CANCELLED = 130
PLOT_FORMATS = (".svg", ".png")


@click.group("trace")
def command() -> None:
    """Record which experts a model chooses, and replay cache policies on it."""


@command.command("record")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("-m", "--model", type=DIRECTORY, help="Checkpoint. [default: $KIMI_LOCAL_MODEL]")
@click.option("-p", "--prompt", help='Answer this and record; "-" reads standard input.')
@click.option("--instant", is_flag=True, help="Answer without thinking first.")
@click.option("--system", help="System prompt.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object about the trace.")
@sampling_options.sampling_flags
@load_flags
def record(out: Path, prompt: str | None, as_json: bool, **flags: Any) -> int:
    """Answer a prompt and write every choice of an expert to OUT.

    A recording that was interrupted can be replayed as far as it goes.
    """
    from cli import one_shot
    from cli.conversation import Conversation, Message
    from hybrid.cache.recorder import Recorder

    text = one_shot_prompt(prompt)
    if text is None:
        raise click.UsageError("give a prompt with -p TEXT or pipe one in")
    if out.exists():  # before minutes of loading
        raise RequestError(f"{out} is there already; name another file", "out")
    here = settings.read()
    view = one_shot_view(here, as_json=as_json, plain=True)
    conversation = Conversation(thinking=not flags["instant"], system=flags["system"] or None)
    conversation.sampling |= sampling_options.given(flags)
    conversation.messages.append(Message("user", text))
    with loaded(here, flags, view) as engine, Recorder.of(engine.config, out) as recorder:
        with engine.record(recorder):
            code = one_shot.run(engine, conversation, view, as_json=False)
        facts = _facts(engine, recorder)
    if as_json:
        click.echo(json.dumps(facts))
    else:
        click.echo(
            f"wrote {facts['tokens']:,} tokens of {facts['layers']} layers, "
            f"{facts['bytes']:,} bytes; next: kimi-local trace replay {shlex.quote(str(out))}",
            err=True,
        )
    return code


def _facts(engine: "Engine", recorder: "Recorder") -> dict[str, Any]:
    layers = engine.config.text.moe_layers
    return {
        "file": str(recorder.path),
        "tokens": recorder.rows // layers,
        "layers": layers,
        "bytes": recorder.nbytes,
    }


@command.command("replay")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--slots",
    type=SLOTS,
    default="2.3%,11%,25%,39%",
    show_default=True,
    help="Experts that a layer may keep, or shares of all.",
)
@click.option(
    "--policy", "names", type=POLICIES, default="all", show_default=True, help="all or NAME[,NAME]"
)
@click.option(
    "--tier",
    type=click.Choice(["vram", "ram"]),
    default="vram",
    show_default=True,
    help="vram: promotions are bounded copies. ram: every miss is read from a file.",
)
@click.option("--record-bytes", type=click.IntRange(1, 2**40), help="Bytes of an expert.")
@click.option("--json", "as_json", is_flag=True, help="A list of objects instead of a table.")
@click.option("--plot", type=click.Path(path_type=Path), help="Also draw OUT.svg or OUT.png.")
def replay(
    file: Path,
    slots: list[Capacity],
    names: list[str],
    tier: str,
    record_bytes: int | None,
    as_json: bool,
    plot: Path | None,
) -> None:
    """Play cache policies over a trace and compare them with the best there could be.

    FILE is what `trace record` wrote, or lines {"tok": n, "layers": [[ids], ...]}. Hit rates and
    promotions are of decoded tokens; warm: of their second half.
    """
    from cli import trace_table
    from hybrid.cache.trace_file import read_trace

    if plot is not None:
        _check_plot(plot)
    trace = read_trace(file)
    for note in trace.notes:
        click.echo(f"{file}: {note}", err=True)
    rows = trace_table.play(trace, slots, names, tier, record_bytes)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        click.echo(trace_table.text(trace, rows, tier))
    if plot is not None:
        from cli import trace_plot

        trace_plot.draw(plot, rows, f"{file.name}: {trace.experts} experts, {trace.layers} layers")


def _check_plot(plot: Path) -> None:
    """Refuse what would only fail after all the work."""
    import importlib.util

    if plot.suffix.lower() not in PLOT_FORMATS:
        raise click.UsageError(f"--plot {plot}: the name must end in {' or '.join(PLOT_FORMATS)}")
    if importlib.util.find_spec("matplotlib") is None:
        raise click.UsageError("--plot needs matplotlib: pip install 'kimi-local[bench]'")
