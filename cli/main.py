"""`kimi-local`: one subcommand a module, imported only when it is called.

`--help` must stay under 200 ms, and numba alone costs 500: hence the table of names.
Every way a run can end is decided here:

    0    the thing asked was done            130  Ctrl-C
    1    it failed (disk full, ...)          141  the reader of a pipe went away
    2    bad option, file or request         143  SIGTERM (129: the terminal closed)
    3, 4 see hybrid.errors
"""

import importlib
import importlib.metadata
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

import click

from cli import settings
from cli.terminal_text import one_line
from hybrid.errors import KimiLocalError

COMMANDS = {  # name: (module, what it does)
    "chat": ("chat", "talk with a model, or answer one prompt"),
    "demo": ("demo", "see it talk, think, look and call a tool, in a minute"),
    "inspect": ("inspect", "show what is in a checkpoint: sizes by component and tier"),
    "plan": ("plan", "predict what a machine will do with a model, and why"),
    "doctor": ("doctor", "check this machine, with the command that mends"),
    "bench": ("bench", "measure tokens/s, and compare two measurements"),
    "prepare": ("prepare", "write the experts to one file, where RAM is short"),
    "trace": ("trace", "record which experts are asked, try cache policies"),
    "make-tiny": ("make_tiny", "write a small random checkpoint in the published format"),
}
CANCELLED = 130
PIPE_CLOSED = 141
_ENDING = (signal.SIGTERM, signal.SIGHUP)


class Commands(click.Group):
    """A group that imports `cli.<module>` on first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the table, which is the order of a first session."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        """Import the module that holds the command."""
        if cmd_name not in COMMANDS:
            raise click.NoSuchCommand(cmd_name, possibilities=COMMANDS, ctx=ctx)
        module, _ = COMMANDS[cmd_name]
        command: click.Command = importlib.import_module(f"cli.{module}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table without importing a single command."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


def _show_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:  # completion parses, but asks for nothing
        return
    try:
        version = importlib.metadata.version("kimi-local")
    except importlib.metadata.PackageNotFoundError:
        version = "unknown (run from a source tree that is not installed)"
    click.echo(f"kimi-local, version {version}")
    ctx.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_show_version,
    help="Show the version and exit.",
)
def cli() -> None:
    """Run Kimi K2.5 on one machine: attention on the GPU, experts in RAM."""


def main() -> None:
    """The process: signals set, one command run, its exit code returned to the shell."""
    for signum in _ENDING:
        if signal.getsignal(signum) is not signal.SIG_IGN:  # nohup stays in force
            signal.signal(signum, _terminate)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # started with it closed
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - for good
        # text that the terminal's encoding lacks must not end a chat
        getattr(sys, name).reconfigure(errors="replace")
    instruction = settings.read().completion
    if instruction:  # a shell asks how to complete a command line
        from click.shell_completion import shell_complete

        sys.exit(shell_complete(cli, {}, "kimi-local", settings.COMPLETION, instruction))
    code = run(sys.argv[1:])
    for signum in (*_ENDING, signal.SIGINT):  # nothing left to save: die at once, without a word
        signal.signal(signum, signal.SIG_DFL)
    sys.exit(code)


def run(args: Sequence[str]) -> int:
    """Run a command; a user's mistake is one line on stderr, never a traceback."""
    try:
        code = _invoke(args)
        sys.stdout.flush()  # a full disk or closed pipe must show here, not at shutdown
        return code
    except BrokenPipeError as error:
        return _signal_behind(error) or PIPE_CLOSED
    except OSError as error:
        return _signal_behind(error) or complain(_describe(error), 1)
    finally:
        _drop_dead_streams()


def complain(text: str, exit_code: int) -> int:
    """One red line on stderr; returns `exit_code`. A dead stderr is no further error."""
    colour = None if settings.read().colour else False
    with suppress(OSError):
        click.secho(f"kimi-local: {one_line(text)}", fg="red", err=True, color=colour)
    return exit_code


def _invoke(args: Sequence[str]) -> int:
    """What click's own `main` does, but a closed pipe stays an error with its own exit code."""
    try:
        with cli.make_context("kimi-local", list(args)) as context:
            result = cli.invoke(context)
    except click.exceptions.Exit as request:  # --help, --version
        return request.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "kimi-local"
        return complain(f"{error.format_message()} (see {command} --help)", error.exit_code)
    except click.ClickException as error:
        return complain(error.format_message(), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        return CANCELLED
    except KimiLocalError as error:
        return complain(str(error), error.exit_code)
    return result if isinstance(result, int) else 0


def _signal_behind(error: BaseException) -> int:
    """The exit code of the signal in whose wake the error came, such as a closed terminal; or 0."""
    cause = error.__context__
    while cause is not None and not isinstance(cause, SystemExit):
        cause = cause.__context__
    return int(cause.code or 0) if cause is not None else 0


def _describe(error: OSError) -> str:
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename else reason


def _terminate(signum: int, _: FrameType | None) -> None:
    """Unwind like any exit, so that `finally` blocks save sessions and mend the terminal."""
    raise SystemExit(128 + signum)


def _drop_dead_streams() -> None:
    """Point a stream that cannot be written at nothing, or shutdown would complain of it."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, stream.fileno())
                os.close(null)


if __name__ == "__main__":
    main()
