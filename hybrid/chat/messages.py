"""Conversations and tools at the edge: what a caller sent, checked and put in one form.

    {"role": "developer" -> "system", "content": None -> "", "reasoning": None -> dropped,
     "tool_calls": [{"id": "call_abc" -> "functions.f:3", ...}]}

What leaves this file is plain data (dict, list, str, numbers, bool, None) of bounded depth that
holds only keys the grammar knows, so neither a template nor its sandbox meets a surprise.
"""

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from hybrid.errors import RequestError

DEPTH_LIMIT = 64  # of JSON inside tools and tool-call arguments
INT_BITS_LIMIT = 4096  # Python refuses to print integers of more than 4300 digits
_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
_MEDIA_PARTS: dict[str, Literal["image", "video"]] = {
    "image": "image",
    "image_url": "image",
    "video": "video",
    "video_url": "video",
}
_PREFIX = "functions."


@dataclass(frozen=True, slots=True)
class MediaPart:
    """An image or a video that a message holds, as the caller gave it; not looked at here."""

    kind: Literal["image", "video"]
    source: Any  # None: the caller passes it beside the messages
    is_url: bool
    param: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages in the form the template reads."""

    messages: list[dict[str, Any]]
    next_call_index: int  # the number that the next tool call's id carries
    media: list[MediaPart]  # in the order in which the template shows them


@dataclass(slots=True)
class _CallIds:
    """Tool-call ids along a conversation; the model knows only `functions.name:index`."""

    next_index: int = 0
    renamed: dict[str, str] = field(default_factory=dict)

    def rename(self, given: str, name: str) -> str:
        """Return the id as the model writes it (spec §5.3), remembering it for the answer."""
        head, _, index = given.rpartition(":")
        own = _is_index(index) and head in (name, _PREFIX + name, "")
        number = int(index) if own else self.next_index
        plain_name = name.removeprefix(_PREFIX) if own and head == name else name
        renamed = f"{_PREFIX}{plain_name}:{number}"
        self.next_index = max(self.next_index, number + 1)
        self.renamed[given] = renamed
        return renamed


def normalise(messages: Sequence[Mapping[str, Any]]) -> Conversation:
    """Check OpenAI-style messages and return them in one form; RequestError names the field."""
    if isinstance(messages, str | bytes) or not isinstance(messages, Sequence):
        raise _wrong("messages", messages, "a list of messages")
    if not messages:
        raise RequestError("messages is empty; send at least one message", param="messages")
    ids, media = _CallIds(), list[MediaPart]()
    plain = [_message(message, f"messages[{i}]", ids, media) for i, message in enumerate(messages)]
    return Conversation(plain, ids.next_index, media)


def normalise_tools(tools: Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]]:
    """Check OpenAI-style tools and return them with every object sorted by key (spec §5.6)."""
    if tools is None:
        return []
    if isinstance(tools, str | bytes) or not isinstance(tools, Sequence):
        raise _wrong("tools", tools, "a list of tools")
    checked = []
    for i, tool in enumerate(tools):
        param = f"tools[{i}]"
        plain = _plain_json(tool, param, sort=True)
        if not isinstance(plain, dict):
            raise _wrong(param, tool, "an object")
        if plain.get("type") == "function":
            _text(_object(plain, "function", param), "name", f"{param}.function")
        checked.append(plain)
    return checked


def _plain_json(value: Any, param: str, *, sort: bool, depth: int = 0) -> Any:
    """Copy JSON data of at most DEPTH_LIMIT levels; RequestError for anything else."""
    if depth > DEPTH_LIMIT:
        raise RequestError(f"{param} is nested deeper than {DEPTH_LIMIT} levels", param=param)
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise _wrong(param, value, "JSON data, with strings as keys")
        keys = sorted(value) if sort else list(value)
        return {k: _plain_json(value[k], param, sort=sort, depth=depth + 1) for k in keys}
    if isinstance(value, list | tuple):
        return [_plain_json(item, param, sort=sort, depth=depth + 1) for item in value]
    if isinstance(value, int) and value.bit_length() > INT_BITS_LIMIT:
        raise RequestError(f"{param} has an integer of {value.bit_length()} bits", param=param)
    if value is None or isinstance(value, str | int | float):
        return value
    raise _wrong(param, value, "JSON data")


def _message(message: Any, param: str, ids: _CallIds, media: list[MediaPart]) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise _wrong(param, message, "an object with role and content")
    role = message.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise RequestError(
            f"{param}.role is {_shown(role)}; use system, user, assistant or tool",
            param=f"{param}.role",
        )
    plain: dict[str, Any] = {"role": _ROLES[role]}
    plain["content"] = _content(message.get("content"), f"{param}.content", role, media)
    if message.get("name") not in (None, ""):
        plain["name"] = _text(message, "name", param)
    if role == "assistant":
        plain |= _reasoning(message, param) | _tool_calls(message, param, ids)
    if role == "tool":
        given = _text(message, "tool_call_id", param)
        plain["tool_call_id"] = ids.renamed.get(given, given)
    return plain


def _content(
    content: Any, param: str, role: str, media: list[MediaPart]
) -> str | list[dict[str, str]]:
    if content is None and role == "assistant":
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list | tuple):
        raise _wrong(param, content, "a string or a list of parts")
    return [_part(part, f"{param}[{i}]", media) for i, part in enumerate(content)]


def _part(part: Any, param: str, media: list[MediaPart]) -> dict[str, str]:
    if not isinstance(part, Mapping):
        raise _wrong(param, part, "an object with a type")
    kind = part.get("type")
    if isinstance(kind, str) and kind in _MEDIA_PARTS:
        media.append(_media(part, kind, f"{param}.{kind}"))
        return {"type": kind}
    return {"type": "text", "text": _text(part, "text", param)}


def _media(part: Mapping[str, Any], name: str, param: str) -> MediaPart:
    """`{"image": anything}` or nothing; `{"image_url": {"url": text}}` or the text itself."""
    source = part.get(name)
    is_url = name.endswith("_url")
    if is_url:
        source = source.get("url") if isinstance(source, Mapping) else source
        if not isinstance(source, str):
            raise _wrong(param, part.get(name), 'an object {"url": "..."}')
    return MediaPart(_MEDIA_PARTS[name], source, is_url, param)


def _reasoning(message: Mapping[str, Any], param: str) -> dict[str, str]:
    """Both spellings that templates of the family read; dropped where there is none (§7 l)."""
    for key in ("reasoning_content", "reasoning"):
        if message.get(key) is not None:
            thought = _text(message, key, param)
            return {"reasoning_content": thought, "reasoning": thought}
    return {}


def _tool_calls(message: Mapping[str, Any], param: str, ids: _CallIds) -> dict[str, Any]:
    calls = message.get("tool_calls")
    if not calls:
        return {}
    if not isinstance(calls, list | tuple):
        raise _wrong(f"{param}.tool_calls", calls, "a list of calls")
    plain = [_tool_call(call, f"{param}.tool_calls[{i}]", ids) for i, call in enumerate(calls)]
    return {"tool_calls": plain}


def _tool_call(call: Any, param: str, ids: _CallIds) -> dict[str, Any]:
    function = _object(call, "function", param)
    name = _text(function, "name", f"{param}.function")
    given = "" if call.get("id") is None else _text(call, "id", param)
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        arguments = {} if arguments is None else arguments
        arguments = _plain_json(arguments, f"{param}.function.arguments", sort=False)
    return {
        "id": ids.rename(given, name),
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def _object(holder: Any, key: str, param: str) -> Mapping[str, Any]:
    value = holder.get(key) if isinstance(holder, Mapping) else None
    if not isinstance(value, Mapping):
        raise _wrong(f"{param}.{key}", value, "an object")
    return value


def _text(holder: Mapping[str, Any], key: str, param: str) -> str:
    value = holder.get(key)
    if not isinstance(value, str):
        raise _wrong(f"{param}.{key}", value, "a string")
    return value


def _is_index(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def _wrong(param: str, value: object, expected: str) -> RequestError:
    return RequestError(f"{param} is {_shown(value)}; it must be {expected}", param=param)


def _shown(value: object) -> str:
    return reprlib.repr(value)  # short and shallow, whatever the value
