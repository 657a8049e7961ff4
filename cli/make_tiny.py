"""`kimi-local make-tiny DIR`: a small random checkpoint in the published format."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from hybrid.errors import ConfigError
from hybrid.tiny import TinyShape, write_tiny

SIZES = {
    "layers": "num_hidden_layers",
    "experts": "n_routed_experts",
    "top_k": "num_experts_per_tok",
    "hidden": "hidden_size",
    "vocab": "vocab_size",
}
DEFAULTS = TinyShape()
Decorated = TypeVar("Decorated", bound=Callable[..., object])


def _size(option: str, help_text: str) -> Callable[[Decorated], Decorated]:
    default = getattr(DEFAULTS, SIZES[option.replace("-", "_")])
    return click.option(f"--{option}", type=int, help=f"{help_text}  [default: {default}]")


@click.command("make-tiny")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@_size("layers", "Decoder layers; the first is dense.")
@_size("experts", "Routed experts in each other layer.")
@_size("top-k", "Experts that a token asks.")
@_size("hidden", "Width of the residual stream, a multiple of 32.")
@_size("vocab", "Vocabulary with its 256 special slots.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
@click.option("--shards", type=int, help="Number of shards.  [default: one a layer and 3 more]")
@click.option(
    "--tokenizer",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Take tiktoken.model and tokenizer_config.json from here, and their vocabulary.",
)
@click.option("--no-vision", is_flag=True, help="Leave out vision tower and projector.")
@click.option(
    "--flat", is_flag=True, help="K2-Thinking's form: flat config.json, bare names, no vision."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a sentence.")
def command(
    directory: Path,
    seed: int,
    shards: int | None,
    tokenizer: Path | None,
    no_vision: bool,
    flat: bool,
    as_json: bool,
    **sizes: int | None,
) -> None:
    """Write a small random checkpoint in the exact published format.

    Its weights are random: it answers with noise, but everything about it is real.
    """
    if tokenizer is not None and sizes["vocab"] is not None:
        raise ConfigError("--vocab and --tokenizer exclude each other; leave one out")
    given = {SIZES[name]: size for name, size in sizes.items() if size is not None}
    write_tiny(
        directory,
        TinyShape(**given),
        seed,
        prefix=not flat,
        vision=not (flat or no_vision),
        tokenizer_dir=tokenizer,
        shards=shards,
    )
    files = [path.stat().st_size for path in directory.iterdir()]
    if as_json:
        report = {"directory": str(directory), "files": len(files), "bytes": sum(files)}
        click.echo(json.dumps(report))
    else:
        click.echo(
            f"wrote {len(files)} files, {sum(files) / 1e6:.1f} MB, to {directory}; "
            f"talk to it with: kimi-local chat --model {shlex.quote(str(directory))}"
        )
