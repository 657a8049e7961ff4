"""Tool calls: one, two at once, the answer behind a result, and none where no tool fits.

A conversation may have turns before: other requests to the same tools, with results or without.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from nano.data.draw import Draw, is_held_out
from nano.data.numbers import arithmetic
from nano.data.sample import Message, Sample, natural
from nano.data.shelf import BY_NAME, SHELF, Tool, Value
from nano.data.talk import identity, plain_system, small_talk

NONE = "I have no tool for that."
NO_TOOL = "none"
JOIN = ("{0} And {1}", "{0} Then {1}", "{0} {2}", "{0} Also {1}")


@dataclass(frozen=True, slots=True)
class Call:
    """One call: the tool, what was asked, the values to pass."""

    tool: Tool
    request: str
    arguments: dict[str, Value]

    @property
    def sentence(self) -> str:
        """The request, closed."""
        return self.request if self.request[-1] in ".?" else f"{self.request}."

    def as_message(self, index: int) -> dict[str, Any]:
        """One entry of tool_calls; calls of a conversation are numbered through (spec §5.7)."""
        function = {
            "name": self.tool.name,
            "arguments": json.dumps(self.arguments, ensure_ascii=False),
        }
        return {
            "id": f"functions.{self.tool.name}:{index}",
            "type": "function",
            "function": function,
        }


def a_call(draw: Draw, tool: Tool) -> Call:
    """A request that this tool fulfils, with its values; in training none that is held out."""
    while True:
        made = _drawn(draw, tool)
        if draw.split == "test" or not is_held_out(made.request):
            return made


def _drawn(draw: Draw, tool: Tool) -> Call:
    request = draw.pick(tool.requests)
    used = [n for n in range(len(tool.parameters)) if f"{{{n}}}" in request]
    values = {n: tool.parameters[n].draw(draw) for n in used}
    shown = [values.get(n, "") for n in range(len(tool.parameters))]
    return Call(tool, request.format(*shown), tool.arguments(values))


def one_call(draw: Draw) -> Sample:
    """One call is what is wanted."""
    tools, (call,) = draw.mine(lambda: _wanted(draw, 1), _key)
    return _asked(draw, "one call", natural(draw, call.request), [call], tools)


def two_calls(draw: Draw) -> Sample:
    """Two calls at once: of one tool or of two."""
    tools, calls = draw.mine(lambda: _wanted(draw, 2), _key)
    left, right = calls[0].sentence, calls[1].request
    request = draw.pick(JOIN).format(left, right[0].lower() + right[1:], right)
    return _asked(draw, "two calls", request, calls, tools)


def second_step(draw: Draw) -> Sample:
    """The result is there: tell it."""
    asked = one_call(draw) if draw.chance(0.7) else two_calls(draw)
    behind, told = _results(draw, asked.answer["tool_calls"])
    answer = {"role": "assistant", "content": _told(told)}
    if asked.thinking:  # whose result is which
        ids = (message["tool_call_id"].removeprefix("functions.") for message in behind)
        answer["reasoning_content"] = ". ".join(map(" ".join, zip(ids, told, strict=True)))
    messages = (*asked.messages, asked.answer, *behind)
    return replace(asked, task="tool result", messages=messages, answer=answer)


def no_call(draw: Draw) -> Sample:
    """No tool fits: say so, or answer what needs none."""
    tools, (call,) = draw.mine(lambda: _wanted(draw, 1), _key)
    others = [tool for tool in tools if tool != call.tool] or [_other(draw, call.tool)]
    if draw.chance(0.3):
        plain = draw.pick((identity, small_talk, arithmetic))(draw)
        return replace(plain, task="no call", tools=_declared(others, plain.messages))
    thinking = draw.chance(0.5)
    before = _before(draw, others, thinking)
    answer = _refused(call, thinking)
    messages = (*before, {"role": "user", "content": natural(draw, call.request)})
    return Sample("no call", messages, answer, thinking, _declared(others, messages))


def _wanted(draw: Draw, count: int) -> tuple[list[Tool], list[Call]]:
    """Up to three tools, and calls of some of them."""
    tools = draw.some(SHELF, draw.number(1, 3))
    return tools, [a_call(draw, draw.pick(tools)) for _ in range(count)]


def _other(draw: Draw, tool: Tool) -> Tool:
    return draw.pick([each for each in SHELF if each != tool])


def _key(made: tuple[list[Tool], list[Call]]) -> str:
    """The requests: what else is declared makes no other question."""
    return " ".join(call.request for call in made[1])


def _asked(
    draw: Draw, task: str, request: str, calls: Sequence[Call], tools: Sequence[Tool]
) -> Sample:
    thinking = draw.chance(0.5)
    before = _before(draw, tools, thinking)
    first = sum(len(message.get("tool_calls", ())) for message in before)
    answer = _called(calls, first, thinking)
    messages = (*before, {"role": "user", "content": request})
    return Sample(task, messages, answer, thinking, _declared(tools, (*messages, answer)))


def _declared(tools: Sequence[Tool], messages: Sequence[Message]) -> tuple[dict[str, Any], ...]:
    """Tools as their owner may declare them: worded so or so, without what nobody passes.

    Drawn by what was said, so that a conversation is the same whatever is declared.
    """
    passed: dict[str, set[str]] = {tool.name: set() for tool in tools}
    for message in messages:
        for call in message.get("tool_calls", ()):
            passed[call["function"]["name"]] |= {*json.loads(call["function"]["arguments"])}
    draw = Draw.of(json.dumps(messages, ensure_ascii=False))
    return tuple(tool.declared(draw, passed[tool.name]) for tool in tools)


def _called(calls: Sequence[Call], first: int, thinking: bool) -> dict[str, Any]:
    """The calls, `first` of which has that number; before them the tool of each request."""
    told = ", ".join(f"{call.tool.key}: {call.tool.name}" for call in calls)
    return _answered(f"{told}.", "", thinking) | {
        "tool_calls": [call.as_message(index) for index, call in enumerate(calls, first)]
    }


def _refused(call: Call, thinking: bool) -> dict[str, Any]:
    return _answered(f"{call.tool.key}: {NO_TOOL}.", NONE, thinking)


def _answered(working: str, content: str, thinking: bool) -> dict[str, Any]:
    """The working is a thought, or stands at the beginning of an instant answer."""
    if thinking:
        return {"role": "assistant", "content": content, "reasoning_content": working}
    return {"role": "assistant", "content": f"{working} {content}".rstrip()}


def _before(draw: Draw, tools: Sequence[Tool], thinking: bool) -> tuple[Message, ...]:
    """A system prompt now and then, and up to two turns; the template leaves their thoughts out."""
    made: list[Message] = []
    if draw.chance(0.1):
        made.append({"role": "system", "content": plain_system(draw)})
    count = 0
    for _ in range(draw.pick((0, 0, 1, 2))):
        fits = draw.chance(0.6)
        call = a_call(draw, draw.pick(tools) if fits else draw.pick(SHELF))
        made.append({"role": "user", "content": natural(draw, call.request)})
        if call.tool not in tools:
            made.append(_refused(call, thinking))
            continue
        asked = _called([call], count, thinking)
        count += 1
        results, told = _results(draw, asked["tool_calls"])
        made += [asked, *results, {"role": "assistant", "content": _told(told)}]
    return tuple(made)


def _results(draw: Draw, calls: Sequence[Message]) -> tuple[list[Message], list[str]]:
    """What the tools return, and each in words."""
    results = [
        (call["id"], {key: make(draw) for key, make in BY_NAME[call["function"]["name"]].returns})
        for call in calls
    ]
    behind: list[Message] = [
        {"role": "tool", "tool_call_id": id_, "content": json.dumps(result, ensure_ascii=False)}
        for id_, result in results
    ]
    return behind, [", ".join(f"{k}: {v}" for k, v in result.items()) for _, result in results]


def _told(results: Sequence[str]) -> str:
    told = "; ".join(results)
    return f"{told[0].upper()}{told[1:]}."
