"""How the next token is chosen from the logits, and nothing else.

    penalties -> temperature -> top_k -> top_p -> min_p -> one draw

in float64, on the host. Candidates are ordered by falling probability, then rising id, and one
uniform number picks from their cumulative sum, so that a seed and the logits fix the token.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hybrid.errors import KernelError, RequestError
from hybrid.events import TokenLogprob

T = TypeVar("T")

MAX_LOGPROBS = 20
FIRST_GUESS = 256  # candidates that nearly always hold top_p of the mass; doubled until they do

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
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        object.__setattr__(self, "stop", stop)
        for field in fields(self):
            if field.name != "stop":
                _check_number(field.name, getattr(self, field.name))
        for text in stop:
            if not isinstance(text, str) or not text:
                raise RequestError(f"stop is {text!r}; give non-empty strings", "stop")


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


def _check_number(name: str, value: Any) -> None:
    if value is None:
        return
    low, high, whole, closed = _RANGES[name]
    kind = int if whole else (int, float)
    good = isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value)
    if not good or not low <= value <= high or (value == low and not closed):
        number = "a whole number" if whole else "a number"
        above = "from" if closed else "above"
        raise RequestError(f"{name} is {value!r}; give {number} {above} {low} to {high}", name)


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

    def __call__(self, logits: NDArray[np.float32]) -> int:
        """Return the next token's id for logits [vocab_size]."""
        _refuse_non_finite(logits)
        adjusted = self._penalise(logits.astype(np.float64))
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

    def _penalise(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        if self._repetition != 1.0 and self._seen:
            at = np.fromiter(self._seen, np.int64)
            seen = logits[at]
            logits[at] = np.where(seen > 0, seen / self._repetition, seen * self._repetition)
        if (self._presence or self._frequency) and self._chosen:
            at = np.fromiter(self._chosen.keys(), np.int64)
            count = np.fromiter(self._chosen.values(), np.float64)
            logits[at] -= self._presence + self._frequency * count
        return logits

    def _draw(self, logits: NDArray[np.float64]) -> int:
        mass = np.exp((logits - logits.max()) / self._temperature)
        if self._top_k and self._top_k < len(mass):
            order = _largest(mass, self._top_k)
            total = mass[order].sum()
        else:
            total = mass.sum()
            order = _nucleus(mass, self._top_p * total)
        kept = mass[order]
        if self._top_p < 1.0:  # keep up to and including the token that crosses top_p
            kept = kept[: int(np.searchsorted(kept.cumsum(), self._top_p * total)) + 1]
        kept = kept[kept >= self._min_p * kept[0]]
        steps = kept.cumsum()
        draw = self._random.random() * steps[-1]
        return int(order[min(int(np.searchsorted(steps, draw, side="right")), len(kept) - 1)])


def _or(value: T | None, default: T) -> T:
    return default if value is None else value


def _largest(values: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """Indices of the `count` largest values, falling, ties by rising index."""
    if count <= 0:
        return np.empty(0, np.intp)
    if count < len(values):
        threshold = np.partition(values, len(values) - count)[len(values) - count]
        at = np.flatnonzero(values >= threshold)
    else:
        at = np.arange(len(values))
    return at[np.lexsort((at, -values[at]))][:count]


def _nucleus(mass: NDArray[np.float64], needed: float) -> NDArray[np.intp]:
    """Indices of the largest values whose sum reaches `needed`, falling; sorts little more."""
    count = FIRST_GUESS
    while count < len(mass):
        order = _largest(mass, count)
        if mass[order].sum() >= needed:
            return order
        count *= 4
    return _largest(mass, len(mass))


def _refuse_non_finite(logits: NDArray[np.float32]) -> None:
    if not np.isfinite(logits).all():
        bad = int(np.count_nonzero(~np.isfinite(logits)))
        raise KernelError(
            f"{bad} of {len(logits)} logits are not finite; the weights are damaged or a kernel is "
            "wrong here: verify the checkpoint's files, then try isa='portable'"
        )
