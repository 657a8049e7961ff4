"""`kimi-local prepare MODEL`: the routed experts as one file of records, written once."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli import settings
from cli.interrupt import Loading

if TYPE_CHECKING:
    from cli.turn import View
    from hybrid.cache.prepare import Prepared


@click.command("prepare")
@click.argument("model", metavar="MODEL", type=click.Path(path_type=Path))
@click.option(
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Where to write it.  [default: MODEL/experts.records]",
)
@click.option("--threads", metavar="N", type=int, help="Readers.  [default: the cores, up to 8]")
@click.option("--no-verify", is_flag=True, help="Do not read the records back.")
@click.option(
    "--force", is_flag=True, help="Write anew a record file that is damaged or of another model."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a sentence.")
def command(
    model: Path,
    output: Path | None,
    threads: int | None,
    no_verify: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Write the routed experts of a model to one file that is read without repacking.

    Worth it where experts do not fit into RAM. What is interrupted goes on where it stopped; a file
    that is there already is checked and, where it is damaged, mended.
    """
    from hybrid.cache.prepare import prepare

    view = _view()
    with Loading() as loading:
        try:
            done = prepare(
                model,
                output,
                threads=threads,
                verify=not no_verify,
                force=force,
                progress=loading.sink(view.progress),
            )
        finally:
            view.finish()
    click.echo(json.dumps(_report(done)) if as_json else _sentence(done))


def _view() -> "View":
    """Progress on stderr: a live line for a person, a line now and then for a plain terminal."""
    here = settings.read()
    if sys.stderr.isatty() and sys.stdout.isatty():
        from cli.ui import RichView

        return RichView(colour=here.colour, answers=False, one_shot=True)
    from cli.plain_view import PlainView

    return PlainView(colour=here.colour, answer=False)


def _report(done: "Prepared") -> dict[str, object]:
    return {
        "file": str(done.path),
        "bytes": done.contents.nbytes,
        "records": done.contents.records,
        "written": done.written,
        "mended": done.mended,
        "seconds": done.seconds,
        "gb_per_s": done.write_gb_s,
        "verified": done.verified,
    }


def _sentence(done: "Prepared") -> str:
    from cli.figures import duration

    size = f"{done.contents.records:,} records, {_bytes(done.contents.nbytes)}"
    state = "verified" if done.verified else "not verified"
    if done.mended:
        state += f", {done.mended:,} of them mended"
    if done.write_gb_s is None:
        return f"{done.path} holds all of the model's {size}; {state}"
    rate = f"{_bytes(done.write_gb_s * 1e9)}/s"
    return f"wrote {done.path}: {size}, at {rate}; {state}; {duration(done.seconds)} in all"


def _bytes(count: float) -> str:
    from cli.figures import byte_scale

    scale, name = byte_scale(count)
    return f"{count / scale:,.1f} {name}"
