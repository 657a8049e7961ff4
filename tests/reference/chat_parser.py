"""The output grammar applied to a whole answer at once, written from spec §5.7-5.8."""

import json
import re
from collections.abc import Sequence
from itertools import groupby

from hybrid.chat.tokenizer import Tokenizer
from hybrid.events import ToolCall

SINGULAR = re.compile(r"<\|tool_call_section_begin\|>\s{0,8}\Z")


def pieces_of(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    """Ordinary runs decoded whole, control tokens as "\\0name"; text has no \\0 in these tests."""
    pieces = []
    for special, run in groupby(ids, tokenizer.is_special):
        if special:
            pieces += ["\0" + tokenizer.name_of(i) for i in run]
        else:
            pieces.append(tokenizer.decode(list(run)))
    return pieces


def parse(
    tokenizer: Tokenizer, ids: Sequence[int], *, thinking: bool, tools: Sequence[str], prior: int
) -> tuple[str, str, list[ToolCall]]:
    """Return (reasoning, content, calls) of a finished answer."""
    answer = Answer("reasoning" if thinking else "content", tools, prior)
    for piece in pieces_of(tokenizer, ids):
        if piece.startswith("\0"):
            answer.control(piece[1:])
        else:
            answer.text(piece)
    answer.end()
    return answer.said["reasoning"], answer.said["content"], answer.calls


class Answer:
    def __init__(self, current: str, tools: Sequence[str], prior: int) -> None:
        self.current = current  # "reasoning", "content", or "" in and behind a tool section
        self.tools = tools
        self.prior = prior
        self.said = {"reasoning": "", "content": ""}
        self.calls: list[ToolCall] = []
        self.open_call: list[str] = []  # [], [id], or [id, arguments]

    def text(self, piece: str) -> None:
        if self.open_call:
            self.open_call[-1] += piece
        elif self.current:
            self.said[self.current] += piece

    def control(self, name: str) -> None:
        if name in ("<think>", "</think>") and self.current:
            self.said[self.current] += "\0"  # nothing is joined across it
            self.current = "content" if "/" in name else "reasoning"
        elif name == "<|tool_call_argument_begin|>" and len(self.open_call) == 1:
            self.open_call.append("")
        elif name == "<|tool_call_begin|>":
            self.begin_call()
        elif name == "<|tool_calls_section_begin|>":
            self.close()
            self.current = ""
        elif name in ("<|tool_call_end|>", "<|tool_calls_section_end|>"):
            self.close()

    def begin_call(self) -> None:
        if self.current:
            self.said[self.current] = SINGULAR.sub("", self.said[self.current])
        self.close()
        self.current, self.open_call = "", [""]

    def close(self) -> None:
        call = tool_call(self.open_call, self.tools, self.prior) if self.open_call else None
        if call is not None:
            self.calls.append(call)
            self.prior = max(self.prior, int(call.id.rpartition(":")[2]) + 1)
        self.open_call = []

    def end(self) -> None:
        if len(self.open_call) == 2 and is_object(self.open_call[1]):
            self.close()
        self.said = {kind: text.replace("\0", "") for kind, text in self.said.items()}


def tool_call(parts: list[str], tools: Sequence[str], index: int) -> ToolCall | None:
    call_id = parts[0].strip()
    match = re.fullmatch(r"(?:(.*):)?\s*([0-9]{1,9})", call_id, re.DOTALL)
    name = (match[1] or "").strip() if match else call_id
    index = int(match[2]) if match else index
    if not name:
        name = tools[0] if len(tools) == 1 else call_id
    if not name:
        return None
    without = name.removeprefix("functions.")
    if without in tools:
        name = without
    else:
        known = [tool for tool in tools if name == tool or name.endswith("." + tool)]
        name = max(known, key=len, default=without)
    return ToolCall(f"functions.{name}:{index}", name, "".join(parts[1:]) or "{}")


def is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
