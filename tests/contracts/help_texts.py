"""The help texts that the documents show, made by running the commands.

python -m tests.contracts.help_texts            print the documents as they should be
python -m tests.contracts.help_texts --write    write them

A fenced block behind a line `<!-- help: chat -->` holds what `kimi-local chat --help` prints, 80
columns wide.
"""

import re
import sys
from pathlib import Path

from click.testing import CliRunner

from cli.main import cli
from tests.contracts.files import ROOT

DOCUMENTS = (Path("docs") / "chat.md", Path("docs") / "cache.md", Path("docs") / "machine.md")
BLOCK = re.compile(r"(<!-- help: (?P<arguments>.*) -->\n```text\n)(?:(?!```).*\n)*(```)")


def help_of(arguments: str) -> str:
    """What a command prints for --help."""
    words = [*arguments.split(), "--help"]
    done = CliRunner().invoke(cli, words, prog_name="kimi-local", terminal_width=80)
    if done.exit_code:
        raise ValueError(f"kimi-local {' '.join(words)} ends with {done.exit_code}")
    return done.output


def with_help(document: str) -> str:
    """The document with every block of help refreshed; ValueError if it has none."""
    text, count = BLOCK.subn(lambda m: m[1] + help_of(m["arguments"]) + m[3], document)
    if not count:
        raise ValueError("the document shows no help text")
    return text


if __name__ == "__main__":
    for path in (ROOT / document for document in DOCUMENTS):
        fresh = with_help(path.read_text("utf-8"))
        if sys.argv[1:] == ["--write"]:
            path.write_text(fresh, "utf-8")
        else:
            sys.stdout.write(fresh)
