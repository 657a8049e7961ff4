"""`kimi-local doctor`: is this machine fit for the model, and if not, what mends it."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli import settings
from cli.terminal_text import one_line
from hybrid.errors import ConfigError

if TYPE_CHECKING:
    from hybrid.doctor import Check

WORDS = {True: "ok", False: "FAIL", None: "-"}
COLOURS = {True: "green", False: "red", None: None}
FAILED = 1


@click.command("doctor")
@click.option(
    "-m",
    "--model",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Also whether this model fits.  [default: $KIMI_LOCAL_MODEL]",
)
@click.option("--deep", is_flag=True, help="Measure memory, kernels and disk: some 20 seconds.")
@click.option("--last", is_flag=True, help="Compare the last answers with the plan, and say why.")
@click.option(
    "--gpu-selftest", is_flag=True, help="Hold every kernel of the GPUs against the CPU's."
)
@click.option("--json", "as_json", is_flag=True, help="A JSON list instead of a table.")
def command(model: Path | None, deep: bool, last: bool, gpu_selftest: bool, as_json: bool) -> int:
    """Check this machine; every failure comes with the command that mends it.

    Ends with 1 if a check failed. What --deep measures is kept and used by later plans.
    """
    if last:
        if model or deep or gpu_selftest:
            raise click.UsageError("--last looks at answers; leave out all but --json")
        return _last(as_json)
    here = settings.read()
    if gpu_selftest:
        if model or deep:
            raise click.UsageError("--gpu-selftest looks at GPUs; leave out --model and --deep")
        from hybrid.doctor.selftest import examine_cards

        checks = examine_cards(_progress())
    else:
        from hybrid.doctor import examine

        checks = examine(model or here.model_dir, deep=deep, sink=_progress())
    if as_json:
        click.echo(json.dumps([check.to_json() for check in checks]))
    else:
        _table(checks, here.colour)
    return FAILED if any(check.ok is False for check in checks) else 0


def _last(as_json: bool) -> int:
    from hybrid.doctor import explain
    from hybrid.last_run import recall

    last = recall()
    if last is None:
        raise ConfigError("no answer has been recorded here; run kimi-local chat first")
    lines = [one_line(line) for line in explain(last)]
    click.echo(json.dumps({"lines": lines, **last}) if as_json else "\n".join(lines))
    return 0


def _progress() -> Callable[[str], None]:
    """One changing line on stderr where a person sees it."""
    if not sys.stderr.isatty():
        return lambda _: None
    return lambda step: click.echo(f"\r\x1b[K{step} ...", err=True, nl=False)


def _table(checks: "list[Check]", colour: bool) -> None:
    if sys.stderr.isatty():
        click.echo("\r\x1b[K", err=True, nl=False)
    width = max(len(check.name) for check in checks)
    for check in checks:
        word = click.style(f"{WORDS[check.ok]:4}", fg=COLOURS[check.ok])
        line = f"{word}  {check.name:{width}}  {one_line(check.found)}"
        click.echo(line, color=None if colour else False)
        if check.fix:
            click.echo(f"      {'':{width}}  -> {one_line(check.fix)}")
    failed = sum(check.ok is False for check in checks)
    click.echo(f"{failed} of {len(checks)} checks failed" if failed else "nothing is wrong")
