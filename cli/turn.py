"""One answer: asks the engine, times what comes, and tells a view.

engine.generate ──events──> Recording ──> Message (history), Figures (the stats line)
                    └─────> View      ──> the screen
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

from cli import sampling_options
from cli.attachments import Attachment
from cli.conversation import Conversation, Message
from cli.interrupt import Interrupt
from hybrid.errors import ContextTooLongError, RequestError
from hybrid.events import Event, FinishReason, ToolCall, Usage
from hybrid.progress import Progress

if TYPE_CHECKING:
    from hybrid import Engine  # torch: only the loader needs it
    from hybrid.vision.media import Media  # numpy


class View(Protocol):
    """Where an answer is shown. Every text it is given is untrusted."""

    def progress(self, progress: Progress, label: str = "") -> None:
        """Loading, looking or prefill has come further; `label` for more than its phase says."""

    def waiting(self, label: str) -> None:
        """Something has begun that reports no progress yet."""

    def tick(self, *, stopping: bool) -> None:
        """Nothing new, but time has passed; called many times a second while the engine works."""

    def show(self, event: Event) -> None:
        """A piece of the answer."""

    def finish(self) -> None:
        """No more pieces of this answer come; also called after an error."""

    def say(self, text: str, tone: str = "plain") -> None:
        """A message of the program itself; tones: plain, dim, warn, error."""

    def attached(self, media: "Media") -> None:
        """A picture or video has been opened for the next message."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What the stats line says of one answer; rates are None where nothing was measured."""

    first_token_s: float | None
    looked_s: float  # of it, before the prefill: at pictures
    prefill_tok_s: float | None
    decode_tok_s: float | None
    total_s: float
    thought_s: float
    expert_reads: Mapping[str, int] = field(default_factory=dict)  # experts used, by tier
    planned_tok_s: float | None = None  # of decoding


@dataclass(slots=True)
class Recording:
    """An answer so far. Usable at any moment, so that a stopped answer is not lost."""

    started: float = field(default_factory=perf_counter)
    first: float | None = None
    last: float = 0.0
    looked_s: float = 0.0
    thought_until: float | None = None
    first_tokens: int = 0
    tokens: int = 0
    reasoning_tokens: int = 0
    reasoning: list[str] = field(default_factory=list)
    content: list[str] = field(default_factory=list)
    tool_calls: list[ToolCall] = field(default_factory=list)
    finish_reason: FinishReason = "cancelled"  # until the engine says otherwise
    counted: Usage | None = None
    expert_reads: Mapping[str, int] = field(default_factory=dict)
    planned_tok_s: float | None = None

    def add(self, event: Event) -> None:
        """Take one event in."""
        self.last = perf_counter()
        if event.kind == "finish":
            self.finish_reason = event.finish_reason or "stop"
            self.counted = event.usage
            return
        if self.first is None:
            self.first, self.first_tokens = self.last, len(event.token_ids)
        self.tokens += len(event.token_ids)
        if event.kind == "reasoning":
            self.reasoning.append(event.text)
            self.reasoning_tokens += len(event.token_ids)
            self.thought_until = self.last
        elif event.kind == "content":
            self.content.append(event.text)
        elif event.tool_call is not None:
            self.tool_calls.append(event.tool_call)

    @property
    def empty(self) -> bool:
        """Nothing came that would be worth keeping."""
        return not (self.reasoning or self.content or self.tool_calls)

    @property
    def usage(self) -> Usage:
        """The engine's count, or ours when the answer was cut off before it came."""
        if self.counted is not None:
            return self.counted
        return Usage(completion_tokens=self.tokens, reasoning_tokens=self.reasoning_tokens)

    @property
    def figures(self) -> Figures:
        """Rates and times as this process's clock saw them."""
        if self.first is None:
            return Figures(None, self.looked_s, None, None, perf_counter() - self.started, 0.0)
        prefilled = self.usage.prompt_tokens - self.usage.cached_tokens
        wait, decoded = self.first - self.started, self.tokens - self.first_tokens
        reading = wait - self.looked_s
        return Figures(
            first_token_s=wait,
            looked_s=self.looked_s,
            prefill_tok_s=prefilled / reading if prefilled > 0 and reading > 0 else None,
            decode_tok_s=decoded / (self.last - self.first) if decoded > 0 else None,
            total_s=self.last - self.started,
            thought_s=(self.thought_until or self.first) - self.first,
            expert_reads=self.expert_reads,
            planned_tok_s=self.planned_tok_s,
        )

    def message(self) -> Message:
        """The answer as it goes into the history."""
        return Message(
            role="assistant",
            content="".join(self.content),
            reasoning="".join(self.reasoning),
            tool_calls=tuple(self.tool_calls),
            partial=self.finish_reason == "cancelled",
            thought_s=self.figures.thought_s,
            reasoning_tokens=self.usage.reasoning_tokens,
        )


def stream(
    engine: "Engine",
    conversation: Conversation,
    view: View,
    recording: Recording,
    interrupt: Interrupt,
) -> None:
    """Generate the next answer into `recording`, showing it as it comes.

    The engine's errors pass through; KeyboardInterrupt comes from a second Ctrl-C only.
    """

    def poll() -> bool:
        view.tick(stopping=interrupt.requested)
        return interrupt.requested

    def progress(progress: Progress) -> None:
        view.progress(progress, looking if progress.phase == "vision" else "")

    new = _not_seen_yet(conversation)
    looking = f"looking at {new[0].name if len(new) == 1 else f'{len(new)} files'}"
    try:
        if new:
            view.waiting(looking)
        conversation.open_attachments(engine)
        for event in engine.generate(
            conversation.for_engine(),
            sampling_options.params(conversation.sampling),
            thinking=conversation.thinking,
            tools=conversation.tools,
            progress=progress,
            should_stop=poll,
        ):
            recording.add(event)
            view.show(event)
        last = engine.stats()["last"]
        recording.looked_s, recording.expert_reads = last["vision_s"], last["expert_reads"]
        recording.planned_tok_s = _remembered(engine)
    except ContextTooLongError as error:
        raise RequestError(_too_long(error)) from None
    finally:
        view.finish()


def _remembered(engine: "Engine") -> float | None:
    """Keep the answer for `doctor --last`; what the plan had said of decoding it."""
    from hybrid.last_run import remember

    run = engine.last_run()
    if run is None:
        return None
    if engine.plan is not None and engine.plan.measured:  # nothing follows from assumptions
        remember(run)
    return run.predicted.decode_tok_s


def _not_seen_yet(conversation: Conversation) -> list[Attachment]:
    """What the tower is about to see: the last message's, or all that a loaded session shows."""
    if not conversation.opened:
        return [a for message in conversation.messages for a in message.attachments]
    last = conversation.last("user")
    return list(last.attachments) if last is not None else []


def _too_long(error: ContextTooLongError) -> str:
    """In the words of the command line; no advice that the model would refuse."""
    prompt, needed = f"the prompt is {error.tokens:,} tokens", error.tokens + 1
    if error.maximum is not None and needed > error.maximum:
        return f"{prompt} but this model reads at most {error.maximum:,}; shorten the prompt"
    return (
        f"{prompt} but the context holds {error.limit:,}; "
        f"shorten it, or start with --context {needed} or more"
    )
