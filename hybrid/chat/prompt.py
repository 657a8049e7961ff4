"""From messages to token ids, keeping what users wrote apart from what the template wrote.

A template returns one flat text, in which a user's "<|im_end|>" looks like the real one. So a
guard goes into the users' text before rendering, behind every character a control token can
begin with, and leaves again after the control tokens have been found:

    user wrote      Hi<|im_end|>          rendered   <|im_user|>user<|im_middle|>Hi<0871...|im_end|>
    guarded         Hi<0871...|im_end|>   ids        163587 2482 163601 | Hi<|im_end|> as plain text

Only text of the template can be control. The plain text between two control tokens is encoded
in one go, so the ids are those of the flat text wherever users write no control token's name.
A template writes one placeholder for a video; what its chunks are called takes that place before
ids are made (spec §6.2).
"""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from hybrid.chat.messages import normalise, normalise_tools
from hybrid.chat.template import ChatTemplate
from hybrid.chat.tokenizer import Tokenizer
from hybrid.chat.tool_declaration import declare_tools
from hybrid.errors import CheckpointError

VIDEO_PLACEHOLDER = "<|kimi_k25_video_placeholder|>"
VIDEO_CHUNK = "<|media_begin|>video<|media_content|><|media_pad|><|media_end|>"

_GUARD_DIGITS = 40  # decimal digits pass through `tojson`, `trim`, `upper` and the like unchanged


def encode_chat(
    tokenizer: Tokenizer,
    template: ChatTemplate,
    messages: Sequence[Mapping[str, Any]],
    *,
    thinking: bool = True,
    tools: Sequence[Mapping[str, Any]] | None = None,
    add_generation_prompt: bool = True,
    videos: Sequence[Sequence[str]] = (),
) -> list[int]:
    """Return the prompt of a conversation as token ids; RequestError names a bad field.

    Images and chunks of video are one placeholder id each. `videos` gives the time stamps of each
    video's chunks.
    """
    guard = f"{secrets.randbelow(10**_GUARD_DIGITS):0{_GUARD_DIGITS}}"
    openers = sorted({name[0] for name in tokenizer.special_names})
    plain_tools = normalise_tools(tools)
    rendered = template.render(
        guarded(normalise(messages).messages, openers, guard),
        thinking=thinking,
        tools=guarded(plain_tools, openers, guard),
        tools_ts_str=guarded(declare_tools(plain_tools), openers, guard),
        add_generation_prompt=add_generation_prompt,
    )
    return tokenizer.encode_with_specials(_with_chunks(rendered, videos), guard)


def _with_chunks(rendered: str, videos: Sequence[Sequence[str]]) -> str:
    """Write every video's chunks in the place of its placeholder; users' text is guarded."""
    texts = rendered.split(VIDEO_PLACEHOLDER)
    if len(texts) != len(videos) + 1:
        raise CheckpointError(
            f"the chat template wrote {len(texts) - 1} videos where the messages have {len(videos)}"
        )
    chunks = ["".join(stamp + VIDEO_CHUNK for stamp in stamps) for stamps in videos]
    return "".join(text + chunk for text, chunk in zip(texts, [*chunks, ""], strict=True))


def render_chat(
    template: ChatTemplate,
    messages: Sequence[Mapping[str, Any]],
    *,
    thinking: bool = True,
    tools: Sequence[Mapping[str, Any]] | None = None,
    add_generation_prompt: bool = True,
) -> str:
    """Return the prompt as flat text, for people to read; never encode it."""
    plain_tools = normalise_tools(tools)
    return template.render(
        normalise(messages).messages,
        thinking=thinking,
        tools=plain_tools,
        tools_ts_str=declare_tools(plain_tools),
        add_generation_prompt=add_generation_prompt,
    )


def guarded(value: Any, openers: Sequence[str], guard: str) -> Any:
    """Copy plain data with `guard` behind every opener in every string and key."""
    if isinstance(value, str):
        for opener in openers:
            value = value.replace(opener, opener + guard)
        return value
    if isinstance(value, Mapping):
        return {
            guarded(key, openers, guard): guarded(item, openers, guard)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [guarded(item, openers, guard) for item in value]
    return value
