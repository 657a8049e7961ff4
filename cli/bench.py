"""`kimi-local bench`: tokens per second in llama-bench's terms, and what the tiers did for them.

    bench -p 512 -n 128 -d 0,4096     hybrid.benchmark ──rows──> Markdown, CSV, JSON lines, plots
    bench compare A B                 two files of JSON lines: more than noise, or not?

Exit codes are those of every command; `compare` ends with 1 where the outputs differ, because then
the numbers are of two computations.
"""

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli import settings
from cli.engine_loading import DIRECTORY, chosen_model, load_flags, one_shot_view

if TYPE_CHECKING:
    from hybrid.benchmark import Case, Kind

DIFFERENT = 1
KINDS: tuple["Kind", ...] = ("rotating", "warm", "cold")
MOST_TOKENS = 1 << 20
MOST_LENGTHS = 64
DEFAULT_CONTEXT = 32_768  # what hybrid.load takes unasked, or less where the model has less


class _Lengths(click.ParamType[list[int]]):
    name = "N,..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[int]:
        """Numbers of tokens in the order given."""
        if isinstance(value, list):
            return value
        words = str(value).split(",")
        if len(words) > MOST_LENGTHS:
            self.fail(f"{len(words)} lengths; at most {MOST_LENGTHS}", param, ctx)
        return [self._one(word.strip(), param, ctx) for word in words]

    def _one(self, word: str, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if not (
            word.isascii() and word.isdecimal() and len(word) < 10 and int(word) <= MOST_TOKENS
        ):
            self.fail(f"{word!r} must be a whole number up to {MOST_TOKENS:,}", param, ctx)
        return int(word)


LENGTHS = _Lengths()


@click.group("bench", invoke_without_command=True)
@click.option("-m", "--model", type=DIRECTORY, help="Checkpoint. [default: $KIMI_LOCAL_MODEL]")
@click.option(
    "-p", "--n-prompt", "prompts", type=LENGTHS, default="512", help="Prompts. [default: 512]"
)
@click.option(
    "-n", "--n-gen", "generated", type=LENGTHS, default="128", help="Generated. [default: 128]"
)
@click.option(
    "-d",
    "--n-depth",
    "depths",
    type=LENGTHS,
    default="0",
    help="Tokens in the context before. [default: 0]",
)
@click.option("-r", "--repetitions", type=click.IntRange(1, 1000), default=5, show_default=True)
@click.option(
    "--kind",
    type=click.Choice([*KINDS, "all"]),
    default="rotating",
    show_default=True,
    help="Prompts: each its own, the same again, or a model loaded anew each time.",
)
@click.option(
    "--feed",
    type=click.Choice(["random", "greedy"]),
    default="random",
    show_default=True,
    help="What is generated on: random tokens, or the model's own.",
)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True)
@click.option(
    "-o",
    "--output",
    type=click.Choice(["md", "csv", "json", "jsonl"]),
    default="md",
    show_default=True,
)
@click.option("--json", "as_json", is_flag=True, help="As -o jsonl: a line a row.")
@click.option("--plot", type=click.Path(path_type=Path, file_okay=False), help="Draw into DIR.")
@load_flags
@click.pass_context
def command(ctx: click.Context, /, **flags: Any) -> int:
    """Time prompts and generated tokens, or compare two such runs.

    The first JSON line is about machine, model and options, each further one a row. `bench
    compare` reads two such files.
    """
    if ctx.invoked_subcommand is not None:
        _refuse_options(ctx)
        return 0
    from cli.bench_session import Session

    output = _output(ctx, flags)
    cases = _cases(flags)
    if flags["plot"] is not None:
        _check_plot(flags["plot"])
    here = settings.read()
    view = one_shot_view(here, as_json=True, plain=True)
    flags["warm_start"] = False  # every run begins alike, and leaves no trace
    flags["model"] = chosen_model(here, flags, view)
    return Session(here, flags, view, output).run(cases)


def _cases(flags: dict[str, Any]) -> list["Case"]:
    """What to time; sets the context that it needs where that is more than the usual."""
    from hybrid.benchmark import all_cases

    kinds: Sequence[Kind] = KINDS if flags["kind"] == "all" else (flags["kind"],)
    cases = all_cases(flags["prompts"], flags["generated"], flags["depths"], kinds)
    if not cases:
        raise click.UsageError("-p and -n are both 0: nothing to time")
    needed = max(case.positions for case in cases)
    if flags["context"] is None:
        flags["context"] = needed if needed > DEFAULT_CONTEXT else None
    elif flags["context"] < needed:
        raise click.UsageError(
            f"--context is {flags['context']}, but the longest test needs {needed} positions"
        )
    return cases


def _output(ctx: click.Context, flags: dict[str, Any]) -> str:
    """--json is -o jsonl."""
    output: str = flags["output"]
    if not flags["as_json"]:
        return output
    if output != "jsonl" and _given(ctx, "output"):
        raise click.UsageError(f"--json means -o jsonl; leave out one of it and -o {output}")
    return "jsonl"


def _refuse_options(ctx: click.Context) -> None:
    """Options of the timing before the name of a subcommand would do nothing."""
    given = next((name for name in ctx.params if _given(ctx, name)), None)
    if given is not None:
        raise click.UsageError(
            f"options before {ctx.invoked_subcommand} have no effect on it; leave them out"
        )


def _given(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


def _check_plot(directory: Path) -> None:
    """Refuse what would only fail after all the work."""
    if importlib.util.find_spec("matplotlib") is None:
        raise click.UsageError("--plot needs matplotlib: pip install 'kimi-local[bench]'")
    directory.mkdir(parents=True, exist_ok=True)


@command.command("compare")
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
def compare(a: Path, b: Path, as_json: bool) -> int:
    """Say which rows of B differ from those of A by more than their noise.

    A and B are what `bench --json` wrote. Welch's t test on the logarithms of tokens per second;
    the intervals hold for all rows together at 95 %. Needs 3 repetitions or more. Ends with 1 if
    the greedy tokens differ: the runs then computed different things.
    """
    from cli import bench_compare
    from hybrid.benchmark import compare as compared
    from hybrid.benchmark import read_results

    found = compared(read_results(a), read_results(b))
    if as_json:
        click.echo(json.dumps(bench_compare.document(found), indent=2))
    else:
        click.echo(bench_compare.text(found))
        for line in bench_compare.warnings(found):
            click.echo(line, err=True)
    return DIFFERENT if any(row.same_output is False for row in found.rows) else 0
