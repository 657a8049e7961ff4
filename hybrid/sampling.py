"""How the next token is chosen from the logits, and nothing else.

    penalties -> temperature -> top_k -> top_p -> min_p -> one draw

on the host. Nothing sorts the vocabulary: top_p needs the order only around the token where the
mass is reached, and the draw walks the remaining candidates by rising id, in sums of float64. A
seed and the logits fix the token.
"""

import math
import numbers
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hybrid.errors import KernelError, RequestError
from hybrid.events import TokenLogprob

T = TypeVar("T")

MAX_LOGPROBS = 20
NEGLIGIBLE = np.float32(80.0)  # nats below the likeliest: float32's mass is still above 0 there
HIGHEST_SCALE = 1e30  # of 1 / temperature, so that float32 holds it
BINS_PER_NAT = 16  # of the histogram in which top_p looks for its edge

THINKING = (1.0, 0.95)  # temperature and top_p that Moonshot recommends (spec §7)
INSTANT = (0.6, 0.95)


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """What the caller asks for. `None` means the model's default for the mode.

    temperature 0.0 is greedy. repetition_penalty looks at prompt and answer and divides or
    multiplies logits (Keskar et al., arXiv 1909.05858); presence and frequency penalties look at
    the answer only and subtract (OpenAI's definition). `stop` strings end the visible answer and
    are not part of it. `logprobs` is the number of alternatives reported beside each token.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    stop: Sequence[str] = ()
    logprobs: int | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "stop", _stop_strings(self.stop))
        for name in _RANGES:
            object.__setattr__(self, name, _checked_number(name, getattr(self, name)))


def _stop_strings(stop: Any) -> tuple[str, ...]:
    if stop is None or isinstance(stop, str):
        stop = () if stop is None else (stop,)
    if not isinstance(stop, Iterable) or not all(isinstance(t, str) and t for t in (*stop,)):
        raise RequestError(f"stop is {stop!r}; give non-empty strings", "stop")
    return tuple(stop)


# name -> (lowest, highest, whole, may equal the lowest)
_RANGES: dict[str, tuple[float, float, bool, bool]] = {
    "temperature": (0.0, 100.0, False, True),
    "top_p": (0.0, 1.0, False, False),
    "top_k": (0, 2**31, True, True),
    "min_p": (0.0, 1.0, False, True),
    "max_tokens": (1, 2**31, True, True),
    "seed": (0, 2**64 - 1, True, True),
    "logprobs": (0, MAX_LOGPROBS, True, True),
    "repetition_penalty": (0.0, 100.0, False, False),
    "presence_penalty": (-2.0, 2.0, False, True),
    "frequency_penalty": (-2.0, 2.0, False, True),
}


def _checked_number(name: str, value: Any) -> Any:
    if value is None:
        return None
    low, high, whole, closed = _RANGES[name]
    kind = numbers.Integral if whole else numbers.Real
    good = isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value)
    if not good or not low <= value <= high or (value == low and not closed):
        number = "a whole number" if whole else "a number"
        above = "from" if closed else "above"
        raise RequestError(f"{name} is {value!r}; give {number} {above} {low} to {high}", name)
    return int(value) if whole else float(value)


@dataclass(frozen=True, slots=True)
class Scratch:
    """Arrays as long as the vocabulary: fresh ones for each token cost more in page faults than
    all the arithmetic."""

    drop: NDArray[np.float32]  # nats below the likeliest, after the temperature
    narrow: NDArray[np.float32]
    mass: NDArray[np.float64]  # exp(-drop): of the likeliest, 1
    steps: NDArray[np.float64]
    bins: NDArray[np.intp]
    kept: NDArray[np.bool_]
    flag: NDArray[np.bool_]

    @classmethod
    def of(cls, count: int) -> "Scratch":
        """Reserve room for `count` tokens."""
        return cls(
            drop=np.empty(count, np.float32),
            narrow=np.empty(count, np.float32),
            mass=np.empty(count, np.float64),
            steps=np.empty(count, np.float64),
            bins=np.empty(count, np.intp),
            kept=np.empty(count, np.bool_),
            flag=np.empty(count, np.bool_),
        )


class Sampler:
    """Chooses tokens for one answer; remembers what it chose for the penalties."""

    def __init__(self, params: SamplingParams, prompt: Iterable[int], *, thinking: bool) -> None:
        temperature, top_p = THINKING if thinking else INSTANT
        self._temperature = _or(params.temperature, temperature)
        self._top_p = _or(params.top_p, top_p)
        self._top_k = _or(params.top_k, 0)
        self._min_p = _or(params.min_p, 0.0)
        self._repetition = _or(params.repetition_penalty, 1.0)
        self._presence = _or(params.presence_penalty, 0.0)
        self._frequency = _or(params.frequency_penalty, 0.0)
        self._logprobs = params.logprobs
        self._random = np.random.default_rng(params.seed)
        self._chosen: Counter[int] = Counter()
        self._seen = set(prompt)
        self._scratch = Scratch.of(0)

    def __call__(self, logits: NDArray[np.float32]) -> int:
        """Return the next token's id for logits [vocab_size]."""
        _refuse_non_finite(logits)
        adjusted = self._penalise(logits)
        token = int(adjusted.argmax()) if self._temperature == 0.0 else self._draw(adjusted)
        self._chosen[token] += 1
        self._seen.add(token)
        return token

    def logprob(self, logits: NDArray[np.float32], token_id: int) -> TokenLogprob | None:
        """Log-probability of a token under the model itself, before penalties and temperature."""
        if self._logprobs is None:
            return None
        wide = logits.astype(np.float64)
        wide -= wide.max() + np.log(np.exp(wide - wide.max()).sum())
        top = _largest(wide, self._logprobs)
        return TokenLogprob(
            token_id, float(wide[token_id]), tuple((int(at), float(wide[at])) for at in top)
        )

    def _penalise(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        if (self._repetition, self._presence, self._frequency) == (1.0, 0.0, 0.0):
            return logits
        logits = logits.copy()
        if self._repetition != 1.0 and self._seen:
            at = np.fromiter(self._seen, np.int64)
            seen = logits[at]
            logits[at] = np.where(seen > 0, seen / self._repetition, seen * self._repetition)
        if (self._presence or self._frequency) and self._chosen:
            at = np.fromiter(self._chosen.keys(), np.int64)
            count = np.fromiter(self._chosen.values(), np.float64)
            logits[at] -= self._presence + self._frequency * count
        return logits

    def _draw(self, logits: NDArray[np.float32]) -> int:
        ids = None
        if 0 < self._top_k < len(logits):
            ids = np.sort(_largest(logits, self._top_k))
            logits = logits[ids]
        if len(self._scratch.drop) != len(logits):
            self._scratch = Scratch.of(len(logits))
        s, steps = self._scratch, self._scratch.steps
        self._weigh(logits)
        np.greater_equal(s.mass, self._min_p, out=s.kept)
        if self._top_p < 1.0:
            _keep_nucleus(s, self._top_p)
        np.multiply(s.mass, s.kept, out=s.mass)
        np.cumsum(s.mass, out=steps)
        place = int(np.searchsorted(steps, self._random.random() * steps[-1], side="right"))
        place = min(place, int(np.searchsorted(steps, steps[-1])))  # a draw rounded up to the end
        return place if ids is None else int(ids[place])

    def _weigh(self, logits: NDArray[np.float32]) -> None:
        """Fill drop and mass: how many nats below the likeliest, and its exponential."""
        s = self._scratch
        with np.errstate(over="ignore"):  # a tiny temperature: infinitely far
            np.subtract(logits.max(), logits, out=s.drop)
            np.multiply(s.drop, np.float32(min(1 / self._temperature, HIGHEST_SCALE)), out=s.drop)
        np.minimum(s.drop, NEGLIGIBLE, out=s.drop)
        np.negative(s.drop, out=s.narrow)
        s.mass[:] = np.exp(s.narrow, out=s.narrow)


def _or(value: T | None, default: T) -> T:
    return default if value is None else value


def _largest(values: NDArray[np.floating[Any]], count: int) -> NDArray[np.intp]:
    """Indices of the `count` largest values, falling, ties by rising index."""
    if count <= 0:
        return np.empty(0, np.intp)
    if count < len(values):
        threshold = np.partition(values, len(values) - count)[len(values) - count]
        at = np.flatnonzero(values >= threshold)
    else:
        at = np.arange(len(values))
    return at[np.argsort(-values[at], kind="stable")][:count]


def _keep_nucleus(s: Scratch, top_p: float) -> None:
    """Clear `kept` but for the likeliest that together reach top_p of the mass, ties by place."""
    np.multiply(s.drop, BINS_PER_NAT, out=s.narrow)
    s.bins[:] = s.narrow  # cut to whole steps: all bins but one are in or out as a whole
    reached = np.bincount(s.bins, weights=s.mass).cumsum()  # mass of all bins up to each
    target = top_p * reached[-1]
    edge = int(np.searchsorted(reached, target))
    np.equal(s.bins, edge, out=s.flag)
    inside = np.flatnonzero(s.flag)
    inside = inside[np.argsort(s.drop[inside], kind="stable")]
    before = reached[edge - 1] if edge else 0.0
    needed = int(np.searchsorted(before + s.mass[inside].cumsum(), target)) + 1
    np.less(s.bins, edge, out=s.flag)
    s.flag[inside[:needed]] = True
    np.logical_and(s.kept, s.flag, out=s.kept)


def _refuse_non_finite(logits: NDArray[np.float32]) -> None:
    if not np.isfinite(logits).all():
        bad = int(np.count_nonzero(~np.isfinite(logits)))
        raise KernelError(
            f"{bad} of {len(logits)} logits are not finite; the weights are damaged or a kernel is "
            "wrong here: verify the checkpoint's files, then try isa='portable'"
        )
