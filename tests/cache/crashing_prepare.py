"""A program that runs `prepare` in children which die wherever they touch the disk.

    python -m tests.cache.crashing_prepare MODEL OUTPUT [--lose]

The calls that change the output are counted. For n = 1, 2, ... a child is killed at its n-th one,
before or after it happens, until a child gets through; each time the parent goes on from what is
left and prints a line: what the child died at, records that the parent had to write, and whether
the file is then what an undisturbed run makes, byte for byte.

With --lose, a dying child also takes along what the disk need not have kept: every write of data
since the last fdatasync is overwritten with noise, as if it had been torn.
"""

import os
import signal
import sys
from pathlib import Path

from hybrid.cache import direct_io, part_file
from hybrid.cache.prepare import prepare
from hybrid.cpu_experts.repack import repack

RECORDS_A_COMMIT = 3


class Crash:
    """Counts the calls that touch the output, and ends the process at one of them."""

    def __init__(self, last: int, after: bool, lose: bool) -> None:
        self.left, self.after, self.lose = last, after, lose
        self.unsynced: list[tuple[int, int]] = []  # offset, length
        self.report = -1
        self.output = Path()

    def install(self) -> None:
        for module, name in [
            (direct_io.os, "pwritev"),
            (part_file.os, "pwrite"),
            (part_file.os, "fdatasync"),
            (part_file.os, "fsync"),
            (part_file.os, "ftruncate"),
            (Path, "replace"),
        ]:
            setattr(module, name, self.counted(name, getattr(module, name)))

    def counted(self, name, real):
        def call(*args):
            self.left -= 1
            if self.left == 0 and not self.after:
                self.die(name)
            result = real(*args)
            self.note(name, args)
            if self.left == 0:
                self.die(name)
            return result

        return call

    def note(self, name, args) -> None:
        if name == "pwritev":
            self.unsynced.append((args[2], sum(map(len, args[1]))))
        elif name in ("fdatasync", "fsync"):
            self.unsynced.clear()

    def die(self, name) -> None:
        if self.lose:
            for path in (part_file.part_path(self.output), self.output):
                if path.exists():
                    with path.open("r+b") as file:
                        for offset, length in self.unsynced:
                            file.seek(offset)
                            file.write(os.urandom(length))
        os.write(self.report, name.encode())
        os.kill(os.getpid(), signal.SIGKILL)


def child(model: Path, output: Path, crash: Crash) -> str:
    """Run in a child; returns the call that it died at, or "" if it lived."""
    read, crash.report = os.pipe()
    crash.output = output
    pid = os.fork()
    if pid == 0:
        crash.install()
        prepare(model, output, threads=1)
        os._exit(0)
    os.close(crash.report)
    with os.fdopen(read, "rb") as pipe:
        died_at = pipe.read().decode()
    _, status = os.waitpid(pid, 0)
    lived = os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0
    if lived == bool(died_at):
        raise SystemExit(f"the child ended with {status} and said {died_at!r}")
    return died_at


def main(model: Path, output: Path, lose: bool) -> None:
    repack()  # compiled once, here
    stride = prepare(model, output, threads=1).contents.stride
    want = output.read_bytes()
    part_file.COMMIT_BYTES = RECORDS_A_COMMIT * stride
    for point in range(1, 10_000):
        for after in (False, True):
            output.unlink(missing_ok=True)
            died_at = child(model, output, Crash(point, after, lose))
            if not died_at:
                sys.stdout.write("lived\n")
                return
            done = prepare(model, output, threads=1)
            same = output.read_bytes() == want and not part_file.part_path(output).exists()
            when = "after" if after else "before"
            line = f"{point} {died_at} {when} {done.written} {done.mended} {same}"
            sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), lose="--lose" in sys.argv)
