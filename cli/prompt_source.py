"""Where the prompt of a one-shot run comes from: -p, standard input, or both.

-p TEXT            TEXT                      (a terminal on stdin is not read)
-p -               stdin, to its end
... | -p TEXT      stdin, an empty line, TEXT
... |              stdin
"""

import select
import sys

import click

from hybrid.errors import RequestError

MOST_BYTES = 16 << 20  # some four times what the largest context can hold
_PATIENCE_S = 2.0


def one_shot_prompt(text: str | None) -> str | None:
    """The prompt, or None for a conversation at the terminal."""
    stdin_is_terminal = sys.stdin is not None and sys.stdin.isatty()
    if text is None and stdin_is_terminal:
        return None
    if text == "-" or text is None:
        return _nonempty(_read_stdin().rstrip("\n"))
    piped = "" if stdin_is_terminal else _read_stdin()
    return _nonempty(f"{piped.rstrip()}\n\n{text}" if piped.strip() else text)


def _nonempty(prompt: str) -> str:
    if not prompt.strip():
        raise click.UsageError("the prompt is empty: give -p TEXT or pipe a text in")
    return prompt


def _read_stdin() -> str:
    if sys.stdin is None:  # started with stdin closed
        return ""
    _mention_wait()
    data = sys.stdin.buffer.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise RequestError(f"standard input is larger than {MOST_BYTES} bytes", param="prompt")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise RequestError(
            f"standard input is not UTF-8 text (byte {error.start} is 0x{data[error.start]:02x})",
            param="prompt",
        ) from None


def _mention_wait() -> None:
    """A pipe that nobody writes to looks like a hang: say what is being waited for."""
    try:
        ready, _, _ = select.select([sys.stdin.buffer], [], [], _PATIENCE_S)
    except (OSError, ValueError):  # not something select knows: reading will tell
        return
    if not ready and sys.stderr.isatty():
        click.echo("waiting for standard input (end it with Ctrl-D, or use < /dev/null)", err=True)
