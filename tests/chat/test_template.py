"""The built-in template against the renders of spec §5.5 and an independent renderer."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybrid.chat.messages import normalise, normalise_tools
from hybrid.chat.prompt import render_chat
from hybrid.chat.template import SOURCE_BYTES_LIMIT, ChatTemplate, built_in_source
from hybrid.chat.tool_declaration import declare_tools
from hybrid.errors import CheckpointError, RequestError
from tests.reference import chat_renderer
from tests.reference.chat_strategies import PATIENT, conversations, tool_lists

USER = "<|im_user|>user<|im_middle|>"
ASSISTANT = "<|im_assistant|>assistant<|im_middle|>"
HI = [{"role": "user", "content": "Hi"}]
SECOND_TURN = [
    {"role": "system", "content": "S"},
    *HI,
    {"role": "assistant", "content": "A1", "reasoning_content": "r1"},
    {"role": "user", "content": "Q2"},
]
CALL = {
    "id": "functions.f:0",
    "type": "function",
    "function": {"name": "f", "arguments": {"x": 1, "y": "中"}},
}
TOOL_LOOP = [
    *SECOND_TURN,
    {"role": "assistant", "content": "", "reasoning_content": "r2", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "functions.f:0", "content": "42"},
]
IMAGE = "<|media_begin|>image<|media_content|><|media_pad|><|media_end|>\n"


def test_one_turn(template):
    assert render_chat(template, HI) == f"{USER}Hi<|im_end|>{ASSISTANT}<think>"
    assert render_chat(template, HI, thinking=False) == (
        f"{USER}Hi<|im_end|>{ASSISTANT}<think></think>"
    )


def test_history_loses_its_thoughts(template):
    assert render_chat(template, SECOND_TURN) == (
        f"<|im_system|>system<|im_middle|>S<|im_end|>{USER}Hi<|im_end|>"
        f"{ASSISTANT}<think></think>A1<|im_end|>{USER}Q2<|im_end|>{ASSISTANT}<think>"
    )


@pytest.mark.parametrize(
    ("thinking", "thought", "end"), [(True, "r2", ""), (False, "", "</think>")]
)
def test_a_tool_round_keeps_its_thoughts(template, thinking, thought, end):
    assert render_chat(template, TOOL_LOOP, thinking=thinking).endswith(
        f"Q2<|im_end|>{ASSISTANT}<think>{thought}</think><|tool_calls_section_begin|>"
        "<|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>"
        '{"x": 1, "y": "中"}<|tool_call_end|><|tool_calls_section_end|><|im_end|>'
        "<|im_system|>tool<|im_middle|>## Return of functions.f:0\n42<|im_end|>"
        f"{ASSISTANT}<think>{end}"
    )


def test_names_replace_roles(template):
    named = [
        {"role": "user", "content": "Hi", "name": "bob"},
        {"role": "tool", "content": "x", "name": "f", "tool_call_id": "functions.f:0"},
    ]
    text = render_chat(template, named, add_generation_prompt=False)
    assert text.startswith("<|im_user|>bob<|im_middle|>Hi")
    assert "<|im_system|>f<|im_middle|>## Return of functions.f:0\nx<|im_end|>" in text


def test_parts_are_joined_with_nothing_between(template):
    parts = [
        {"type": "text", "text": "a"},
        {"type": "image"},
        {"type": "image_url", "image_url": {"url": "x"}},
        {"type": "text", "text": "b"},
        {"type": "text", "text": "c"},
    ]
    text = render_chat(template, [{"role": "user", "content": parts}], add_generation_prompt=False)
    assert text == f"{USER}a{IMAGE}{IMAGE}bc<|im_end|>"


def test_a_last_answer_is_history_too(template):
    messages = [{"role": "assistant", "content": "fin", "reasoning_content": "rr"}]
    text = render_chat(template, messages, add_generation_prompt=False)
    assert text == f"{ASSISTANT}<think></think>fin<|im_end|>"


def test_tools_without_typescript_are_json(template):
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    text = template.render(HI, tools=tools, tools_ts_str=None)
    assert text.startswith(
        "<|im_system|>tool_declare<|im_middle|>"
        '[{"type":"function","function":{"name":"f","parameters":{}}}]<|im_end|>'
    )


def test_tools_stand_before_the_system_message(template):
    tools = [{"type": "function", "function": {"name": "f"}}]
    text = render_chat(template, SECOND_TURN, tools=tools)
    assert text.startswith("<|im_system|>tool_declare<|im_middle|># Tools\n\n## functions\n")
    assert "\n}\n<|im_end|><|im_system|>system<|im_middle|>S" in text


@settings(PATIENT, max_examples=150)
@given(conversations, tool_lists, st.booleans(), st.booleans())
def test_random_conversations_equal_the_reference(template, messages, tools, thinking, prompt):
    plain_tools = normalise_tools(tools)
    expected = chat_renderer.render(
        normalise(messages).messages,
        thinking=thinking,
        tools=plain_tools,
        tools_ts_str=declare_tools(plain_tools),
        add_generation_prompt=prompt,
    )
    assert expected == render_chat(
        template, messages, thinking=thinking, tools=tools, add_generation_prompt=prompt
    )


@pytest.mark.oracle
@settings(PATIENT, max_examples=60)
@given(conversations, tool_lists, st.booleans())
def test_the_sandbox_renders_as_transformers_does(template, messages, tools, thinking):
    from transformers.utils.chat_template_utils import render_jinja_template

    plain, plain_tools = normalise(messages).messages, normalise_tools(tools)
    (expected,), _ = render_jinja_template(
        [plain],
        chat_template=built_in_source(),
        tools=plain_tools or None,
        add_generation_prompt=True,
        thinking=thinking,
    )
    assert template.render(plain, tools=plain_tools, thinking=thinking) == expected


FAULTS = {
    "thoughts of history kept": ("loop.index0 > scan.last_answer", "true"),
    "first instead of last answer": (
        "and not message['tool_calls'] -%}",
        "and not message['tool_calls'] and scan.last_answer < 0 -%}",
    ),
    "instant mode keeps thoughts": ("thoughts_wanted and loop", "loop"),
    "newline between messages": (
        "{{- '<|im_end|>' -}}\n{%- endfor",
        "{{- '<|im_end|>\\n' -}}\n{%- endfor",
    ),
    "BOS in front": ("{%- if tools -%}", "{{- '[BOS]' -}}{%- if tools -%}"),
    "JSON escaped": ("arguments | tojson", "arguments | tojson(ensure_ascii=true)"),
    "image without its newline": ("<|media_end|>\\n'", "<|media_end|>'"),
}
PROBE = [
    {"role": "assistant", "content": "0", "reasoning_content": "r0"},
    *TOOL_LOOP[:-1],
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "user", "content": [{"type": "image"}]},
]


@pytest.mark.parametrize("name", FAULTS)
def test_a_faulty_template_is_caught(name):
    old, new = FAULTS[name]
    source = built_in_source()
    assert source.count(old) == 1
    planted = ChatTemplate(source.replace(old, new), "planted")
    plain = normalise(PROBE).messages
    wrong = [
        planted.render(plain, thinking=thinking) != chat_renderer.render(plain, thinking=thinking)
        for thinking in (True, False)
    ]
    assert any(wrong)


def test_reasoning_of_none_would_be_printed_by_a_naive_template():
    """Spec §7 fault (l): dropping the key is what protects from templates like this."""
    naive = ChatTemplate("{{ messages[0].get('reasoning_content', '') }}", "naive")
    message = {"role": "assistant", "content": "x", "reasoning_content": None}
    assert naive.render([message]) == "None"
    assert naive.render(normalise([message]).messages) == ""


# Where the template comes from.


def test_the_checkpoints_own_file_is_used(tmp_path):
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0]['content'] }}!")
    assert ChatTemplate.from_dir(tmp_path).render(HI) == "Hi!"


def test_the_key_in_the_config_is_second(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "second"}))
    assert ChatTemplate.from_dir(tmp_path).render(HI) == "second"
    (tmp_path / "chat_template.jinja").write_text("first")
    assert ChatTemplate.from_dir(tmp_path).render(HI) == "first"


def test_without_either_ours_is_used(tmp_path, template):
    assert ChatTemplate.from_dir(tmp_path).render(HI) == template.render(HI)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    assert ChatTemplate.from_dir(tmp_path).render(HI) == template.render(HI)


@pytest.mark.parametrize(
    "content", [b"{% if %}", b"\xff", b"{{ x ", b"x" * (SOURCE_BYTES_LIMIT + 1), b"{% foo %}"]
)
def test_a_broken_template_file_is_one_line(tmp_path, content):
    (tmp_path / "chat_template.jinja").write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        ChatTemplate.from_dir(tmp_path)
    assert "\n" not in str(caught.value)
    assert "chat_template.jinja" in str(caught.value)


def test_a_dangling_link_is_not_taken_for_no_template(tmp_path):
    (tmp_path / "chat_template.jinja").symlink_to("nowhere")
    with pytest.raises(CheckpointError):
        ChatTemplate.from_dir(tmp_path)


def test_a_template_may_refuse_a_conversation():
    strict = ChatTemplate("{{ raise_exception('roles must\nalternate') }}", "strict")
    with pytest.raises(RequestError, match=r"^roles must alternate$"):
        strict.render(HI)
