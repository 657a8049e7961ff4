"""One conversation, in the form that `Engine.generate` takes, with the answer to learn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nano.data.draw import Draw

Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Sample:
    """`messages` end with the user (or a tool); `answer` is the assistant message that follows."""

    task: str
    messages: tuple[Message, ...]
    answer: Message  # content, reasoning_content, tool_calls
    thinking: bool = False
    tools: tuple[Mapping[str, Any], ...] = ()


def said(
    task: str,
    question: str | Sequence[Mapping[str, Any]],
    content: str,
    thought: str | None = None,
    system: str | None = None,
) -> Sample:
    """Question and answer; a `thought` makes it an answer of thinking mode."""
    first = () if system is None else ({"role": "system", "content": system},)
    answer: dict[str, Any] = {"role": "assistant", "content": content}
    if thought is not None:
        answer["reasoning_content"] = thought
    messages = (*first, {"role": "user", "content": question})
    return Sample(task, messages, answer, thinking=thought is not None)


def followed(sample: Sample, question: Any, content: str) -> Sample:
    """One more turn behind an instant answer."""
    messages = (*sample.messages, sample.answer, {"role": "user", "content": question})
    return replace(sample, messages=messages, answer={"role": "assistant", "content": content})


def natural(draw: Draw, text: str, *, polite: bool = True) -> str:
    """The way people type: a small first letter, no full stop, a please."""
    if polite and text[-1] in ".?" and draw.chance(0.15):
        forms = _POLITE if text[-1] == "." else _POLITE[1:]
        text = draw.pick(forms).format(text[0].lower() + text[1:], text[:-1], text[-1])
    if draw.chance(0.3) and not text.startswith("I "):
        text = text[0].lower() + text[1:]
    if draw.chance(0.3) and text[-1] in ".?!。？！":
        text = text[:-1]
    return text


def joined(first: Sample, second: Sample) -> Sample:
    """The second conversation behind an instant answer of the first, as one."""
    behind = [message for message in second.messages if message["role"] != "system"]
    return replace(second, messages=(*first.messages, first.answer, *behind))


_POLITE = (
    "Please {0}", "{1}, please{2}", "Hey, {0}", "Hi! {1}{2}", "Can you help me? {1}{2}",
    "{1}{2} Thanks!",
)  # fmt: skip
