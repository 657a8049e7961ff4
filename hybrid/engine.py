"""The public engine: messages or token ids in, events out.

    messages -> prompt -> logits -> sampled tokens -> events
             prompting  timeline  generation        answer

One engine holds one timeline of tokens. A request passes its whole prompt; what the KV cache
already knows of it is reused. A new request takes the timeline over from an unfinished one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from hybrid.answer import Answer
from hybrid.cache.policy import DEFAULT
from hybrid.chat.parser import StreamParser
from hybrid.chat.stop import StopStrings
from hybrid.chat.template import ChatTemplate
from hybrid.chat.tokenizer import Tokenizer
from hybrid.config import ModelConfig
from hybrid.errors import CheckpointError, ContextTooLongError, PlacementError, RequestError
from hybrid.events import Event, FinishReason, Usage
from hybrid.expectation import compare, expect
from hybrid.generation import Generation, Timing
from hybrid.last_run import Moment, Run
from hybrid.load_options import LoadOptions
from hybrid.loader import load_model
from hybrid.memory import free_host_bytes
from hybrid.model import Model, Watcher
from hybrid.placement import Plan
from hybrid.progress import ProgressSink, ignore
from hybrid.prompting import Message, Prompting
from hybrid.sampling import Sampler, SamplingParams
from hybrid.timeline import Timeline
from hybrid.vision.prompt import Prompt

if TYPE_CHECKING:
    from hybrid.vision.media import Media

Asked = Sequence[int] | Sequence[Message]


def load(
    model_dir: str | Path,
    *,
    device: str = "auto",
    threads: int | None = None,
    activation: str = "auto",
    backbone_weights: str = "bf16",
    ram_budget: int | None = None,
    vram_budget: int | None = None,
    kv_tokens: int | None = None,
    isa: str | None = None,
    vision: bool = True,
    records: str | Path | None = None,
    cache_policy: str = DEFAULT.name,
    prefetch: bool = True,
    warm_start: bool = True,
    progress: ProgressSink = ignore,
) -> "Engine":
    """Load a checkpoint directory of the Kimi K2 family.

    device      "auto" takes CUDA where torch sees a card with room for the backbone, else the CPU
    threads     CPU workers; default: physical cores this process may use
    activation  numerics of the routed experts: "int8", "int16" (finer), "bf16" (as trained, slow);
                "auto" takes int16 where a measurement says that decode loses less than a tenth
    backbone_weights  "bf16" (as published) or "int8": half the bytes, rounded
    ram_budget  bytes of RAM for routed experts, which are read from the file where they do not fit;
                default: all that is free beside the rest of the model
    vram_budget bytes of the cards for the most wanted of them; default: all that is free there.
                Without a card a second share of RAM, default none
    kv_tokens   positions of the KV cache; default 32,768 or what the model allows
    isa         kernel set, one of `hybrid.cpu_experts.available_isas()`; default the best
    vision      False leaves the vision tower out, if there is one, and saves its memory
    records     the file that `kimi-local prepare` wrote, if it is not in the model's directory
    cache_policy  which experts stay: "decayed-lfu", "lru", "lfu", "static" (hybrid/cache/policy.py)
    prefetch    False reads no expert from the file before its layer's router has spoken
    warm_start  False neither begins with what the last run learnt nor keeps what this one does

    Raises ConfigError, CheckpointError, PlacementError or KernelError, each in one line.
    """
    began = perf_counter()
    options = LoadOptions(
        device=device,
        threads=threads,
        activation=activation,
        backbone_weights=backbone_weights,
        ram_budget=ram_budget,
        vram_budget=vram_budget,
        kv_tokens=kv_tokens,
        isa=isa,
        vision=vision,
        records=None if records is None else Path(records),
        cache_policy=cache_policy,
        prefetch=prefetch,
        warm_start=warm_start,
    )
    directory = Path(model_dir)
    config = ModelConfig.from_dir(directory)
    tokenizer = Tokenizer.from_dir(directory)
    template = ChatTemplate.from_dir(directory)
    if tokenizer.vocab_size != config.text.vocab_size:
        raise CheckpointError(
            f"tiktoken.model makes {tokenizer.vocab_size} tokens but config.json has vocab_size "
            f"{config.text.vocab_size}; the files do not belong together"
        )
    model, options = load_model(directory, config, options, progress)
    load_s = perf_counter() - began
    return Engine(config, tokenizer, template, model, options, load_s, directory.resolve().name)


class Engine:
    """A loaded model with its tokenizer and one timeline. Not for several threads at once."""

    def __init__(
        self,
        config: ModelConfig,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        model: Model,
        options: LoadOptions,
        load_s: float,
        name: str = "model",
    ) -> None:
        self.config, self.name = config, name
        self.tokenizer = tokenizer
        self.options = options  # as resolved: nothing in it is "auto" any more
        self._spent = model.spent
        self._experts = model.experts
        self._vision = model.vision
        self._timeline: Timeline | None = Timeline(model)
        self._prompting = Prompting(config, tokenizer, template, model.vision, self.kv_tokens)
        self._load_s = load_s
        self._last, self._total = Timing(), Timing()
        self._moments: list[Moment] = []  # of the last request: begun, answering, done
        self._used_before = self._experts.counters.by_tier()  # when the last request began
        self._owner: object = None  # of the timeline: the latest request

    @property
    def kv_tokens(self) -> int:
        """Positions the KV cache holds: the context limit of this engine."""
        return self._open().capacity

    @property
    def context_tokens(self) -> int:
        """Positions in use."""
        return len(self._open().tokens)

    def prompt_ids(
        self,
        messages: Sequence[Message],
        *,
        thinking: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> list[int]:
        """Token ids of a conversation as `generate` would send them, media expanded."""
        prompt, _ = self._prompting.of_messages(messages, thinking=thinking, tools=tools)
        return prompt.ids

    @property
    def sees(self) -> bool:
        """Whether images and video can be given."""
        return self._vision is not None

    def open_image(self, source: Any, name: str | None = None) -> "Media":
        """An image for a message, from bytes, a Path or a PIL image; RequestError in one line."""
        self._open()
        return self._prompting.open_image(source, name)

    def open_video(self, source: Any, name: str | None = None) -> "Media":
        """A video for a message, from bytes or a Path; RequestError in one line."""
        self._open()
        return self._prompting.open_video(source, name)

    def logits(
        self, token_ids: Sequence[int], images: Sequence[Any] | None = ()
    ) -> NDArray[np.float32]:
        """Logits of a fresh sequence: [len(token_ids) after media expansion, vocab_size].

        `images`: PIL images, bytes, Paths or Media, one for each placeholder in `token_ids`.
        """
        timeline = self._open()
        prompt = self._prompting.of_ids(token_ids, images)
        count = len(prompt.ids)
        needed, free = 4 * count * self.config.text.vocab_size, free_host_bytes()
        if needed > free:
            raise PlacementError(
                f"logits of {count} positions need {needed / 1e9:.1f} GB of memory but "
                f"{free / 1e9:.1f} GB are free; ask for fewer positions"
            )
        self._owner = object()
        return timeline.all_logits(prompt)

    def generate(
        self,
        prompt: Asked,
        sampling: SamplingParams | None = None,
        images: Sequence[Any] | None = (),
        thinking: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        media_root: Path | None = None,
        progress: ProgressSink = ignore,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Iterator[Event]:
        """Answer token ids or OpenAI-style messages; the last event is the only "finish".

        Messages may hold images and video: {"type": "image", "image": PIL image, bytes or Media},
        "video" likewise, or OpenAI's "image_url" and "video_url" with a data: URL, or a file under
        `media_root` where that is given. Parts without content take the next of `images`.
        With token ids, `thinking` only chooses the sampling defaults: whether the answer starts in
        reasoning follows from the prompt's last token. `should_stop` is asked before each layer.
        Bad requests raise RequestError here, before the first event.
        """
        timeline = self._open()
        params = sampling or SamplingParams()
        rows, next_call = self._prompt(prompt, images, media_root, thinking=thinking, tools=tools)
        ids = rows.ids
        room = self.kv_tokens - len(ids)
        if room < 1:
            maximum = self.config.text.max_position_embeddings
            raise ContextTooLongError(len(ids), self.kv_tokens, maximum)
        timing = self._last = Timing()
        self._used_before = self._experts.counters.by_tier()
        generation = Generation(
            timeline=timeline,
            sampler=Sampler(params, ids, thinking=thinking),
            stop_ids=self.tokenizer.stop_ids,
            max_tokens=min(params.max_tokens or room, room),
            should_stop=self._take_over(should_stop),
            timing=timing,
        )
        parser = StreamParser(
            self.tokenizer,
            thinking=ids[-1] == self.tokenizer.think_id,
            tools=tools,
            prior_calls=next_call,
        )
        answer = Answer(parser, StopStrings(params.stop))
        return self._events(generation, answer, rows, progress)

    def stats(self) -> dict[str, Any]:
        """Numbers since loading: what runs, tokens and seconds of the last request and of all,
        seconds by part of the model, bytes and picks by tier, GB/s of expert weights."""
        spent = self._spent
        seconds = {
            name.removesuffix("_s"): round(value, 6)
            for name, value in asdict(spent).items()
            if name.endswith("_s")
        }
        return {
            "options": _plain(self.options),
            "load_s": round(self._load_s, 3),
            "context": {"tokens": self.context_tokens, "capacity": self.kv_tokens},
            "last": _rates(self._last) | {"expert_reads": self._last_reads()},
            "total": _rates(self._total),
            "seconds": seconds,
            "vision": asdict(self._vision.seen) if self._vision else None,
            "tiers": self._experts.stats(),
            "device": self._timeline.model.backbone.stats() if self._timeline else {},
        }

    @cached_property
    def plan(self) -> Plan | None:
        """What was to be expected of this model on this machine; None if nothing can be said."""
        return expect(self.config, self.options, self._experts)

    def last_run(self) -> Run | None:
        """The last request beside the plan; None before it is done."""
        if len(self._moments) != 3 or self.plan is None:
            return None
        tiers, uses = self._experts.stats(), self._last_reads()
        return compare(self.name, self.plan, self._moments, self._last, uses, tiers)

    def _moment(self) -> Moment:
        return Moment(asdict(self._spent), perf_counter())

    def _last_reads(self) -> dict[str, int]:
        """Experts used by the last request, by tier."""
        now = self._experts.counters.by_tier()
        return {tier: uses - self._used_before[tier] for tier, uses in now.items()}

    @contextmanager
    def record(self, watcher: Watcher) -> Iterator[None]:
        """Show every routing to `watcher` meanwhile: (layer, start, ids, weights, prompt).

        ids int32 and weights float32 are [tokens, num_experts_per_tok] of the tokens from position
        `start` on; `prompt` tells prefill from decode. hybrid.cache.recorder writes them to a file.
        """
        model = self._open().model
        if model.watcher is not None:
            raise RequestError("this engine is being recorded already; end that first")
        model.watcher = watcher
        try:
            yield
        finally:
            model.watcher = None

    def close(self) -> None:
        """Free the weights; whoever still uses the engine or an answer of it is told so."""
        self._owner = None
        if self._timeline is not None:
            model, self._timeline = self._timeline.model, None
            try:
                self._experts.remember()
            finally:
                model.close()
        self._vision = None
        self._prompting = replace(self._prompting, vision=None)

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> Timeline:
        if self._timeline is None:
            raise RequestError("this engine is closed; load the model again")
        return self._timeline

    def _take_over(self, should_stop: Callable[[], bool]) -> Callable[[], bool]:
        """Make the timeline this request's; returns a `should_stop` that first sees that it is."""
        owner = object()  # each request its own, so that no two threads can hold the same
        self._owner = owner

        def watch() -> bool:
            self._open()
            if self._owner is not owner:
                raise RequestError(
                    "another request took this engine over; finish one answer before the next"
                )
            return should_stop()

        return watch

    def _prompt(
        self,
        prompt: Asked,
        images: Sequence[Any] | None,
        media_root: Path | None,
        *,
        thinking: bool,
        tools: Sequence[Mapping[str, Any]] | None,
    ) -> tuple[Prompt, int]:
        """The prompt, and the index of the first tool call that the answer may make."""
        if not isinstance(prompt, Sequence | np.ndarray):
            raise RequestError(
                f"the prompt is a {type(prompt).__name__}; give a list of messages or of token ids",
                "messages",
            )
        if not (len(prompt) and isinstance(prompt[0], Mapping)):
            return self._prompting.of_ids(cast("Sequence[int]", prompt), images), 0
        return self._prompting.of_messages(
            cast("Sequence[Message]", prompt), images, media_root, thinking=thinking, tools=tools
        )

    def _events(
        self, generation: Generation, answer: Answer, prompt: Prompt, sink: ProgressSink
    ) -> Iterator[Event]:
        moments = self._moments = [self._moment()]
        try:
            for token in generation.tokens(prompt, sink):
                if len(moments) == 1:
                    moments.append(self._moment())
                yield from answer.push(token)
                if answer.stopped:
                    generation.finish_reason = "stop"
                    break
            yield from answer.finish()
        finally:
            moments.append(self._moment())
            self._total.add(generation.timing)
        yield self._finish(generation, answer)

    def _finish(self, generation: Generation, answer: Answer) -> Event:
        reason: FinishReason = generation.finish_reason
        if reason == "stop" and answer.called_tools:
            reason = "tool_calls"
        timing = generation.timing
        usage = Usage(
            prompt_tokens=timing.prompt_tokens,
            cached_tokens=timing.cached_tokens,
            completion_tokens=timing.completion_tokens,
            reasoning_tokens=answer.reasoning_tokens,
        )
        return Event("finish", token_ids=answer.leftover_ids, finish_reason=reason, usage=usage)


def _plain(options: LoadOptions) -> dict[str, Any]:
    records = options.records
    return asdict(options) | {"records": None if records is None else str(records)}


def _rates(timing: Timing) -> dict[str, float]:
    computed = timing.prompt_tokens - timing.cached_tokens
    return asdict(timing) | {
        "prefill_tok_s": _per_second(computed, timing.prefill_s),
        "decode_tok_s": _per_second(timing.decode_steps, timing.decode_s),
    }


def _per_second(amount: float, seconds: float) -> float:
    return round(amount / seconds, 3) if seconds > 0 else 0.0
