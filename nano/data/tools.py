"""Tool calls: one, two at once, the answer behind a result, and none where no tool fits."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from nano.data.draw import Draw
from nano.data.numbers import arithmetic
from nano.data.sample import Sample, natural
from nano.data.shelf import SHELF, Declared, Value, declared
from nano.data.talk import identity, plain_system, small_talk

NONE = "I have no tool for that."
JOIN = ("{0} And {1}", "{0} Then {1}", "{0} {2}", "{0} Also {1}")


@dataclass(frozen=True, slots=True)
class Call:
    """One call: the tool as declared, what was asked, the values to pass."""

    tool: Declared
    request: str
    arguments: dict[str, Value]

    def as_message(self, index: int) -> dict[str, Any]:
        """One entry of tool_calls."""
        function = {
            "name": self.tool.name,
            "arguments": json.dumps(self.arguments, ensure_ascii=False),
        }
        return {
            "id": f"functions.{self.tool.name}:{index}",
            "type": "function",
            "function": function,
        }


def one_call(draw: Draw) -> Sample:
    """One call is what is wanted."""
    call, others = draw.mine(lambda: _wanted(draw, 0, 2), lambda made: _key(made[0]))
    return _asked(draw, "one call", natural(draw, call.request), [call], [call.tool, *others])


def two_calls(draw: Draw) -> Sample:
    """Two calls at once: of one tool or of two."""

    def two() -> tuple[list[Call], list[Declared]]:
        call, others = _wanted(draw, 1, 1)
        again = draw.chance(0.5) or not others
        return [call, _call(draw, call.tool if again else others[0])], others

    calls, others = draw.mine(two, lambda made: "".join(map(_key, made[0])))
    left, right = (call.request for call in calls)
    left = left if left[-1] in ".?" else f"{left}."
    request = draw.pick(JOIN).format(left, right[0].lower() + right[1:], right)
    return _asked(draw, "two calls", request, calls, [calls[0].tool, *others])


def second_step(draw: Draw) -> Sample:
    """The result is there: tell it."""
    asked = one_call(draw) if draw.chance(0.7) else two_calls(draw)
    tools = {tool.names: tool for tool in SHELF}
    results = []
    calls = asked.answer["tool_calls"]
    for call in calls:
        name = call["function"]["name"]
        tool = next(tool for names, tool in tools.items() if name in names)
        results.append((call["id"], {key: make(draw) for key, make in tool.returns}))
    behind = [
        {"role": "tool", "tool_call_id": id_, "content": json.dumps(result, ensure_ascii=False)}
        for id_, result in results
    ]
    told = "; ".join(", ".join(f"{k}: {v}" for k, v in result.items()) for _, result in results)
    content = f"{told[0].upper()}{told[1:]}."
    answer = {"role": "assistant", "content": content}
    if asked.thinking:
        answer["reasoning_content"] = "The result is there."
    messages = (*asked.messages, asked.answer, *behind)
    return replace(asked, task="tool result", messages=messages, answer=answer)


def no_call(draw: Draw) -> Sample:
    """No tool fits: say so, or answer what needs none."""
    call, others = draw.mine(lambda: _wanted(draw, 1, 3), lambda made: _key(made[0]))
    schemas = tuple(tool.schema for tool in others)
    if draw.chance(0.5):
        plain = draw.pick((identity, small_talk, arithmetic))(draw)
        return replace(plain, task="no call", tools=schemas)
    answer: dict[str, Any] = {"role": "assistant", "content": NONE}
    thinking = draw.chance(0.4)
    if thinking:
        answer["reasoning_content"] = "No tool fits."
    messages = (*_system(draw), {"role": "user", "content": natural(draw, call.request)})
    return Sample("no call", messages, answer, thinking, schemas)


def _wanted(draw: Draw, least: int, most: int) -> tuple[Call, list[Declared]]:
    """A call, and other tools beside it, none of them of its tool's name."""
    chosen = draw.some(SHELF, 1 + draw.number(least, most))
    first, *others = (declared(draw, tool) for tool in chosen)
    return _call(draw, first), [tool for tool in others if tool.name != first.name]


def _call(draw: Draw, tool: Declared) -> Call:
    request = draw.pick(tool.tool.requests)
    parameters = tool.tool.parameters
    used = [n for n in range(len(parameters)) if f"{{{n}}}" in request]
    values = {n: parameters[n].draw(draw) for n in used}
    shown = [values.get(n, "") for n in range(len(parameters))]
    return Call(tool, request.format(*shown), tool.arguments(values))


def _key(call: Call) -> str:
    """The request: what the tool is called here makes another answer, not another question."""
    return call.request


def _asked(
    draw: Draw, task: str, request: str, calls: Sequence[Call], tools: Sequence[Declared]
) -> Sample:
    answer: dict[str, Any] = {
        "role": "assistant",
        "content": "",
        "tool_calls": [call.as_message(index) for index, call in enumerate(calls)],
    }
    thinking = draw.chance(0.5)
    if thinking:
        names = " and ".join(dict.fromkeys(call.tool.name for call in calls))
        answer["reasoning_content"] = f"I call {names}."
    shuffled = draw.some([tool.schema for tool in tools], len(tools))
    messages = (*_system(draw), {"role": "user", "content": request})
    return Sample(task, messages, answer, thinking, tuple(shuffled))


def _system(draw: Draw) -> tuple[dict[str, str], ...]:
    return ({"role": "system", "content": plain_system(draw)},) if draw.chance(0.1) else ()
