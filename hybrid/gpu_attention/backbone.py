"""The backbone on a torch device: bf16 on CUDA, any type anywhere for reference.

On a machine without a GPU `hybrid.cpu_dense` does the same faster; this one is what runs on CUDA,
and on the CPU the plain statement of the model that the tests compare with.

A decode step is launched from one hand-off to the next, each time as one graph (graphs.py):

    up ─> begin attend dense attend route ─> ids, weights, hidden      (the host waits here)
                                  shared                               (and meanwhile computes)
    routed ─> combine attend route ─> ids, weights, hidden             … for each layer
    routed ─> combine head ─> logits

So verbs of few tokens only note what is to be done until the host needs something. A block of a
prompt launches each verb at once.
"""

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hybrid import yarn
from hybrid.accelerator.interface import Accelerator
from hybrid.backbone import Routing
from hybrid.config import TextConfig
from hybrid.errors import KernelError
from hybrid.gpu_attention.forward import read_forward
from hybrid.gpu_attention.graphs import Capture, Graphs, Work
from hybrid.gpu_attention.hand_off import Mirror, Waits
from hybrid.gpu_attention.mla import Place
from hybrid.gpu_attention.ops import FEW
from hybrid.gpu_attention.step import Decision, Step, new_decision, new_logits, new_step
from hybrid.gpu_attention.weights import WeightReader

MAX_BLOCK = 512
BUCKETS = (1, 2, 4, 8)  # tokens of a step that has memory and graphs of its own
HEAD_ROWS = 64  # logits of more rows are fetched in parts

Verb = tuple[str | int, ...]


@dataclass(slots=True, eq=False, weakref_slot=True)
class Flow:
    """Some tokens on their way through the layers: `count` rows of a step from `first` on.

    The step is changed in place: a verb returns the flow that it was given.
    """

    step: Step
    first: int
    count: int
    deferred: bool  # verbs wait for the next hand-off
    place: Place | None = None  # None before the first layer
    start: int = 0  # position of the first token, then
    decided: bool = False  # since the last attention
    noted: list[tuple[Verb, Work]] = field(default_factory=list)  # and not launched
    whole: "Flow | None" = None  # of which this is a part

    def __len__(self) -> int:
        return self.count


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRouting(Routing):
    """A routing; `kept` is `hidden` as the device has it: fp32 [tokens, hidden_size]."""

    step: Step
    decision: Decision


class TorchBackbone:
    """See `hybrid.backbone.Backbone`. One thread at a time; the embedding stays on the host.

    The arrays of a routing are the host's until the next `route` of the same stream.
    """

    max_block = MAX_BLOCK

    def __init__(
        self,
        text: TextConfig,
        reader: WeightReader,
        kv_tokens: int,
        dtype: torch.dtype,
        accelerator: Accelerator,
        capture: Capture | None = None,
    ) -> None:
        """Read all weights onto the accelerator's device, which is the reader's.

        `capture` makes graphs of a decode step (`graphs.CudaCapture`); None: launch by launch.
        """
        self.text, self.kv_tokens, self.dtype = text, kv_tokens, dtype
        self._accelerator, self._queue = accelerator, accelerator.current()
        self._graphs, self._waits = Graphs(capture), Waits()
        self._embedding = _bits(reader.on_host("model.embed_tokens.weight"))  # never uploaded
        self._forward = read_forward(text, reader, kv_tokens, dtype)
        self._steps: dict[int, Step] = {}  # by tokens
        self._users: weakref.WeakValueDictionary[int, Flow] = weakref.WeakValueDictionary()
        self._noting: Callable[[], Flow | None] = lambda: None  # whose work was noted last

    def embed(self, token_ids: Sequence[int]) -> Flow:
        """See Backbone."""
        tokens, vocabulary = len(token_ids), self.text.vocab_size
        if not 0 < tokens <= MAX_BLOCK:
            raise KernelError(f"a block is {tokens} tokens; give 1…{MAX_BLOCK}")
        if min(token_ids) < 0 or max(token_ids) >= vocabulary:
            raise KernelError(f"token ids must be 0…{vocabulary - 1}")
        flow = self._new_flow(tokens)
        flow.step.up.host["x"][:] = self._embedding[np.asarray(token_ids)]
        return flow

    def insert(self, x: Flow, row: int, rows: NDArray[np.float32]) -> Flow:
        """See Backbone."""
        if row < 0 or row + len(rows) > len(x) or rows.shape[1] != self.text.hidden_size:
            raise KernelError(
                f"rows {list(rows.shape)} do not fit {len(x)} of {self.text.hidden_size} at {row}"
            )
        if x.place is not None:
            raise KernelError("a picture comes after the first layer; insert it before")
        x.step.up.host["x"][row : row + len(rows)] = _bits(torch.from_numpy(rows).to(self.dtype))
        return x

    def attend(self, layer: int, x: Flow, start: int) -> Flow:
        """See Backbone."""
        if x.place is None:
            x.place, x.start = self._begin(x, start), start
        elif x.start != start:
            raise KernelError(f"a block began at position {x.start}, not {start}")
        x.decided = False
        self._note(x, ("attend", layer), partial(self._forward.attend, x.step, layer, x.place))
        return x

    def dense(self, layer: int, x: Flow) -> Flow:
        """See Backbone."""
        self._note(x, ("dense", layer), partial(self._forward.dense, x.step, layer))
        return x

    def route(self, layer: int, x: Flow) -> Routing:
        """See Backbone. Asked twice of the same state, the first answer stays what it is."""
        aside, x.decided = x.decided, True
        decision = self._aside(x.step) if aside else x.step.decision
        work = partial(self._forward.route, x.step, layer, decision)
        self._note(x, ("route", layer, aside), work)
        self._launch(x)
        self._waits.wait(decision.mirror.fetch(self._queue))
        told = decision.mirror.host
        return DeviceRouting(
            told["hidden"],
            told["ids"].copy(),  # small, and others may keep them
            told["weights"].copy(),
            decision.mirror.device["hidden"],
            step=x.step,
            decision=decision,
        )

    def shared(self, layer: int, routing: Routing) -> Tensor | None:
        """See Backbone. None where the model has no shared expert."""
        if not self.text.n_shared_experts:
            return None
        assert isinstance(routing, DeviceRouting)
        step, decision = routing.step, routing.decision
        verb = ("shared", layer, decision is step.aside)
        work = partial(self._forward.shared, step, layer, decision)
        self._run(step, (verb,), partial(_in_order, [work]))
        return step.shared

    def combine(self, x: Flow, shared: Tensor | None, routed: Tensor | NDArray[np.float32]) -> Flow:
        """See Backbone. The array may be written to again afterwards."""
        room = x.step.routed
        if isinstance(routed, Tensor):
            self._queue.copy(room.device["routed"], routed)
        else:
            room.host["routed"][:] = routed
            room.upload(self._queue)
        both = shared is not None
        self._note(x, ("combine", both), partial(self._forward.combine, x.step, shared=both))
        return x

    def logits(self, x: Flow) -> NDArray[np.float32]:
        """See Backbone."""
        found = np.empty((len(x), self.text.vocab_size), np.float32)
        if x.deferred and x.step.logits is not None:
            out = x.step.logits.device["logits"]
            self._note(x, ("logits",), partial(self._forward.logits, x.step.x, out))
            self._launch(x)
            self._fetch(x.step.logits, found)
            return found
        self._launch(x)
        for at in range(0, len(x), HEAD_ROWS):
            part = found[at : at + HEAD_ROWS]
            room = new_logits(self._accelerator, self.text, len(part))
            rows = x.step.x.narrow(0, x.first + at, len(part))
            work = partial(self._forward.logits, rows, room.device["logits"])
            self._queue.run(partial(self._graphs.once, work))
            self._fetch(room, part)
        return found

    def last(self, x: Flow) -> Flow:
        """See Backbone. What was given and its last row are one memory."""
        if len(x) == 1:
            return x
        self._launch(x)
        return Flow(x.step, x.first + len(x) - 1, 1, deferred=False, whole=x)

    def stats(self) -> dict[str, int]:
        """Sums since loading: waits of the host for the device, and launches by their kind."""
        launches = self._graphs.launches
        return {
            "syncs": self._waits.count,
            "eager": launches.eager,
            "captured": launches.captured,
            "replayed": launches.replayed,
        }

    def _new_flow(self, tokens: int) -> Flow:
        """A flow of a bucket's own step unless somebody still has that, else of a new one."""
        if tokens not in BUCKETS or tokens in self._users:
            step = new_step(self._accelerator, self.text, tokens, self.dtype, logits=False)
            return Flow(step, 0, tokens, deferred=False)
        step = self._steps.get(tokens) or new_step(
            self._accelerator, self.text, tokens, self.dtype, logits=True
        )
        flow = Flow(step, 0, tokens, deferred=True)
        self._steps[tokens], self._users[tokens] = step, flow
        return flow

    def _begin(self, x: Flow, start: int) -> Place:
        """Upload what is the block's own: embedding rows and positions."""
        tokens, up = len(x), x.step.up
        if start < 0 or start + tokens > self.kv_tokens:
            raise KernelError(
                f"positions {start}…{start + tokens - 1} do not fit the cache of {self.kv_tokens}"
            )
        up.host["start"][:] = start
        up.host["positions"][:] = np.arange(start, start + tokens)
        up.host["cos"][:], up.host["sin"][:] = yarn.cos_sin(self.text, start, tokens)
        up.upload(self._queue)
        self._note(x, ("begin",), partial(self._forward.begin, x.step))
        return x.step.place(None if tokens <= FEW else start)

    def _note(self, x: Flow, verb: Verb, work: Work) -> None:
        """Note work; streams read each other's rows of the cache, so that they keep their order."""
        other = self._noting()
        if other is not None and other is not x:
            self._launch(other)
        self._noting = weakref.ref(x)  # one that was broken off is forgotten
        x.noted.append((verb, work))
        if not x.deferred:
            self._launch(x)

    def _launch(self, x: Flow) -> None:
        """Launch what was noted, in one piece."""
        if not x.noted:
            return
        noted, x.noted = x.noted, []
        work = partial(_in_order, [each for _, each in noted])
        if x.deferred:
            self._run(x.step, tuple(verb for verb, _ in noted), work)
        else:
            self._queue.run(partial(self._graphs.once, work))

    def _run(self, step: Step, verbs: tuple[Verb, ...], work: Work) -> None:
        """Launch work that always is the same for a bucket's own step and these verbs."""
        if self._steps.get(step.tokens) is step:
            self._queue.run(partial(self._graphs.run, (step.tokens, verbs), work))
        else:
            self._queue.run(partial(self._graphs.once, work))

    def _aside(self, step: Step) -> Decision:
        if step.aside is None:
            step.aside = new_decision(self._accelerator, self.text, step.tokens, self.dtype)
        return step.aside

    def _fetch(self, room: Mirror, target: NDArray[np.float32]) -> None:
        self._waits.wait(room.fetch(self._queue))
        target[:] = room.host["logits"]


@torch.inference_mode()
def _in_order(works: Sequence[Work]) -> None:
    for work in works:
        work()


def _bits(values: Tensor) -> NDArray[Any]:
    """A host tensor as an array; numpy has no bf16, so that those are their bits."""
    if values.dtype == torch.bfloat16:
        return values.view(torch.int16).numpy().view(np.uint16)
    array: NDArray[Any] = values.numpy()
    return array
