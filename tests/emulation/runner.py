"""Run machine code on another CPU: a process for each job, because one has one CPU model."""

import pickle
import subprocess
import sys
from dataclasses import dataclass

from tests.contracts.files import ROOT
from tests.emulation.machine import Argument, Outcome

TIMEOUT_S = 300


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a C function that returns nothing."""

    arguments: tuple[Argument, ...]
    program: int = 0  # which of the job's objects
    symbol: str = "rows16"
    branch_limit: int | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """Objects to load and calls to make on one CPU model."""

    model: str
    programs: tuple[bytes, ...]
    calls: tuple[Call, ...]
    soft_amx: bool = False


class EmulatorError(Exception):
    """The emulating process died; the text is what it said."""


def run(job: Job, timeout_s: float = TIMEOUT_S) -> list[Outcome]:
    """Emulate a job in a process of its own, an outcome for each call."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.emulation.worker"],
        cwd=ROOT, input=pickle.dumps(job), capture_output=True, timeout=timeout_s, check=False,
    )  # fmt: skip
    if done.returncode:
        raise EmulatorError(f"{job.model} ended with {done.returncode}: {done.stderr[-2000:]!r}")
    return pickle.loads(done.stdout)
