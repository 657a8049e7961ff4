"""A peer in a process of its own: the same layer, the same steps, timed there, stopped in between.

The process builds the weights from `synthetic`, so nothing large crosses the pipe, and is suspended
(SIGSTOP) while others are measured: threads that spin for work cannot disturb them, and a peer that
crashes ends its own process only. One process serves one thread count.

    parent ── (x, routing, whether the output is wanted) ──▶ peer ── (seconds, output) ──▶ parent
"""

import ctypes
import importlib
import importlib.util
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Protocol

import numpy as np
from synthetic import Routing


@dataclass(frozen=True, slots=True)
class Peer:
    """What the bench must know of a peer before it runs."""

    package: str  # what `import` finds
    distribution: str  # what pip installs; "a b" where it needs another one
    module: str  # the neighbour of this file that drives it
    memory: float  # bytes it holds for one byte of records


PEERS = {
    "kt-kernel": Peer("kt_kernel", "kt-kernel gguf", "peer_kt_kernel", 1.12),
    "llama.cpp": Peer("llama_cpp", "llama-cpp-python", "peer_llama_cpp", 1.0),
}
START_S, STEP_S = 900, 300  # how long to wait for the weights, and for a step
PR_SET_PDEATHSIG = 1


class PeerError(Exception):
    """A peer is missing, ended, or computes something else; one line."""


class Layer(Protocol):
    """What a peer's module gives as `Layer(experts, threads, max_tokens)`."""

    kernel: str  # what it calls the code that runs

    def prepare(self, x: np.ndarray, routing: Routing) -> None:
        """Take the inputs of the next step, in the form that the peer wants."""

    def run(self) -> None:
        """Compute the step; this is what is timed."""

    def output(self) -> np.ndarray:
        """Float32 [tokens, hidden] of the last step."""


def require(name: str) -> Peer:
    """The peer, if it can be imported here."""
    peer = PEERS[name]
    if importlib.util.find_spec(peer.package) is None:
        raise PeerError(
            f"{name}: no module {peer.package} in {sys.executable}; "
            f"pip install {peer.distribution}, or drop --peer"
        )
    return peer


class PeerProcess:
    """A peer that starts when it is made, and is of use after `wait_ready`."""

    isa: str

    def __init__(self, name: str, experts: int, threads: int, max_tokens: int) -> None:
        self.engine, self.threads, self.activation = name, threads, ""
        context = multiprocessing.get_context("spawn")
        self._said = tempfile.NamedTemporaryFile("r", prefix=f"bench-{name}-")  # noqa: SIM115
        self._pipe, other = context.Pipe()
        work = self._said.name, PEERS[name].module, other, experts, threads, max_tokens
        self._process = context.Process(target=_serve, args=work)
        self._process.start()
        other.close()

    def wait_ready(self) -> None:
        """Until the weights are built; then it is suspended."""
        self.isa = self._receive(START_S)
        self.suspend()

    @property
    def version(self) -> str:
        """Of the distribution that is installed."""
        return version(PEERS[self.engine].distribution.split()[0])

    def resume(self) -> None:
        """Let it run until `suspend`."""
        self._signal(signal.SIGCONT)

    def suspend(self) -> None:
        """Take all its threads off the cores, and wait until they are."""
        if self._signal(signal.SIGSTOP):
            os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def step(
        self, x: np.ndarray, routing: Routing, output: bool = False
    ) -> tuple[float, np.ndarray | None]:
        """Seconds of one step, and if asked for its output [tokens, hidden]."""
        with suppress(BrokenPipeError):  # if it has ended, receiving says how
            self._pipe.send((x, routing, output))
        return self._receive(STEP_S)

    def close(self) -> None:
        """End the process; SIGKILL, because a suspended one sees no other signal."""
        self._process.kill()
        self._process.join()
        self._said.close()

    def _signal(self, number: int) -> bool:
        alive = self._process.is_alive()
        if alive:
            os.kill(self._process.pid, number)
        return alive

    def _receive(self, timeout_s: float) -> object:
        try:
            if self._pipe.poll(timeout_s):
                return self._pipe.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            code, said = self._process.exitcode, self._said.read().strip().splitlines()
            raise PeerError(
                f"{self.engine} ended with exit code {code}: {said[-1] if said else 'no word'}"
            ) from None
        raise PeerError(f"{self.engine} gave no answer for {timeout_s} s")


def _serve(
    said: str, module: str, pipe: Connection, experts: int, threads: int, max_tokens: int
) -> None:
    with Path(said).open("w") as file:  # what a peer prints must not get between our lines
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # suspended, it would live for ever
    layer: Layer = importlib.import_module(module).Layer(experts, threads, max_tokens)
    pipe.send(layer.kernel)
    while True:
        x, routing, wanted = pipe.recv()
        layer.prepare(x, routing)
        began = time.perf_counter()
        layer.run()
        seconds = time.perf_counter() - began
        pipe.send((seconds, layer.output() if wanted else None))
