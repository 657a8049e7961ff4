"""Kimi K2.5's conversation grammar in straight Python, written from spec §5.1-5.4."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

IMAGE = "<|media_begin|>image<|media_content|><|media_pad|><|media_end|>\n"
VIDEO = "<|kimi_k25_video_placeholder|>\n"


def render(
    messages: Sequence[Mapping[str, Any]],
    *,
    thinking: bool = True,
    tools: Sequence[Mapping[str, Any]] = (),
    tools_ts_str: str | None = None,
    add_generation_prompt: bool = True,
) -> str:
    """Return the prompt; `messages` in the normal form of `hybrid.chat.messages`."""
    text = ""
    if tools:
        declaration = tools_ts_str or json.dumps(tools, ensure_ascii=False, separators=(",", ":"))
        text += f"<|im_system|>tool_declare<|im_middle|>{declaration}<|im_end|>"
    finals = [i for i, m in enumerate(messages) if is_final_answer(m)]
    last_final = finals[-1] if finals else -1
    for i, message in enumerate(messages):
        text += one_message(message, show_thought=thinking and i > last_final)
    if add_generation_prompt:
        text += "<|im_assistant|>assistant<|im_middle|><think>" + ("" if thinking else "</think>")
    return text


def is_final_answer(message: Mapping[str, Any]) -> bool:
    return message["role"] == "assistant" and not message.get("tool_calls")


def one_message(message: Mapping[str, Any], *, show_thought: bool) -> str:
    role = message["role"]
    marker = {"user": "<|im_user|>", "assistant": "<|im_assistant|>"}.get(role, "<|im_system|>")
    text = marker + (message.get("name") or role) + "<|im_middle|>"
    if role == "assistant":
        thought = message.get("reasoning_content", "") if show_thought else ""
        text += f"<think>{thought}</think>"
    if role == "tool":
        text += f"## Return of {message['tool_call_id']}\n"
    return text + body(message["content"]) + calls(message.get("tool_calls", [])) + "<|im_end|>"


def body(content: str | Sequence[Mapping[str, str]]) -> str:
    if isinstance(content, str):
        return content
    return "".join(part_text(part) for part in content)


def part_text(part: Mapping[str, str]) -> str:
    if part["type"].startswith("image"):
        return IMAGE
    if part["type"].startswith("video"):
        return VIDEO
    return part["text"]


def calls(tool_calls: Sequence[Mapping[str, Any]]) -> str:
    if not tool_calls:
        return ""
    text = "<|tool_calls_section_begin|>"
    for call in tool_calls:
        arguments = call["function"]["arguments"]
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        text += f"<|tool_call_begin|>{call['id']}<|tool_call_argument_begin|>{arguments}"
        text += "<|tool_call_end|>"
    return text + "<|tool_calls_section_end|>"
