"""The chat in a real pseudo-terminal: what a person would see on an 80 x 24 screen."""

import os
import sys
import time
from pathlib import Path

import pexpect
import pyte

REPO = Path(__file__).parents[2]
REAL = ["-m", "cli.main", "chat"]
FAKE = Path(__file__).with_name("fake_engine.py")


class Terminal:
    """A running `kimi-local chat` and its screen, with what has scrolled off it."""

    def __init__(self, home: Path, *args: str, env=None, size=(24, 80), real: bool = False):
        """`real`: the program itself with its built-in model, not the scripted engine."""
        self.screen = pyte.HistoryScreen(size[1], size[0], history=2000, ratio=0.5)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        (home / "model").mkdir(parents=True, exist_ok=True)
        self.process = pexpect.spawn(
            sys.executable,
            [*(REAL if real else [str(FAKE), "chat", "-m", str(home / "model")]), *args],
            cwd=str(home),
            dimensions=size,
            timeout=10,
            env=environment(home) | {"TERM": "xterm-256color"} | (env or {}),
        )
        self.screen.write_process_input = self.process.send  # answers "where is the cursor?"

    def text(self) -> str:
        """Everything shown so far, scrolled-off lines first."""
        old = [self._row(line) for line in self.screen.history.top]
        return "\n".join([*old, *(line.rstrip() for line in self.screen.display)])

    def send(self, text: str) -> None:
        """Type."""
        self.process.send(text)

    def enter(self, text: str) -> None:
        """Type a line and send it; waits until it stands on the screen."""
        self.send(text)
        self.wait(text.split("\n")[-1][-30:])
        self.send("\r")

    def wait(self, text: str, timeout: float = 30) -> str:
        """Read until `text` is to be seen; fails with the screen if it never comes."""
        return self.wait_until(lambda shown: text in shown, f"{text!r}", timeout)

    def wait_until(self, holds, what: str, timeout: float = 30) -> str:
        """Read until `holds(text)`."""
        limit = time.perf_counter() + timeout
        while time.perf_counter() < limit:
            shown = self.text()
            if holds(shown):
                return shown
            self._read()
        raise AssertionError(f"never saw {what}; the screen:\n{self.text()}")

    def prompt(self) -> str:
        """Wait until the program asks for the next message; what the screen shows then."""
        return self.wait_until(_asks, "a prompt")

    def exit_code(self) -> int:
        """Read to the end and reap."""
        while self.process.isalive() or self._read():
            if not self._read() and not self.process.isalive():
                break
        self.process.close()
        status = self.process.exitstatus
        return -self.process.signalstatus if status is None else status

    def hang_up(self) -> int:
        """Close the terminal itself, as its window would; what the program makes of it."""
        self.process.ptyproc.fileobj.close()
        _, status = os.waitpid(self.process.pid, 0)
        for process in (self.process, self.process.ptyproc):
            process.closed = process.terminated = True
        return os.waitstatus_to_exitcode(status)

    def close(self) -> None:
        """End the process if it still runs."""
        self.process.close(force=True)

    def _read(self) -> bool:
        try:
            data = self.process.read_nonblocking(65536, timeout=0.05)
        except pexpect.TIMEOUT:
            return False
        except pexpect.EOF:
            return False
        self.raw += data
        self._stream.feed(data)
        return True

    def _row(self, line) -> str:
        return "".join(line[x].data for x in range(self.screen.columns)).rstrip()


def environment(home: Path) -> dict[str, str]:
    """An environment whose files all lie under `home`."""
    return {
        "PATH": os.environ["PATH"],  # noqa: TID251
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "XDG_STATE_HOME": str(home / "state"),
        "XDG_CACHE_HOME": str(home / "cache"),
        "PYTHONPATH": str(REPO),
    }


def _asks(shown: str) -> bool:
    last = ["", *(line for line in shown.split("\n") if line)][-2:]
    return last[0] == "you ▸" and last[-1].startswith("Enter sends")
