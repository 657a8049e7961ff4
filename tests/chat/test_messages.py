"""What callers may send, and in which form it goes on."""

import pytest

from hybrid.chat.messages import normalise, normalise_tools
from hybrid.errors import RequestError


def one(message: object) -> dict[str, object]:
    return normalise([message]).messages[0]  # type: ignore[list-item]


def call(call_id: object, name: str = "f", arguments: object = "{}") -> dict[str, object]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def assistant(*calls: dict[str, object]) -> dict[str, object]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls)}


def answer(call_id: str) -> dict[str, object]:
    return {"role": "tool", "tool_call_id": call_id, "content": "ok"}


BROKEN = {
    "messages": [None, "hi", 5, {"role": "user"}, []],
    "messages[0]": [["hi"], [None], [["role", "user"]]],
    "messages[0].role": [
        [{"content": "x"}],
        [{"role": "function", "content": "x"}],
        [{"role": 5, "content": "x"}],
        [{"role": ["user"], "content": "x"}],
    ],
    "messages[0].content": [
        [{"role": "user"}],
        [{"role": "user", "content": None}],
        [{"role": "system", "content": 5}],
        [{"role": "assistant", "content": {}}],
    ],
    "messages[0].content[1]": [
        [{"role": "user", "content": [{"type": "text", "text": "a"}, "b"]}],
    ],
    "messages[0].content[0].text": [
        [{"role": "user", "content": [{"type": "text"}]}],
        [{"role": "user", "content": [{"type": "audio", "data": "x"}]}],
        [{"role": "user", "content": [{"text": 5}]}],
    ],
    "messages[0].name": [[{"role": "user", "content": "x", "name": 5}]],
    "messages[0].reasoning_content": [
        [{"role": "assistant", "content": "x", "reasoning_content": ["r"]}],
    ],
    "messages[0].tool_calls": [
        [{"role": "assistant", "tool_calls": "f()"}],
        [{"role": "assistant", "tool_calls": {"id": "a"}}],
    ],
    "messages[0].tool_calls[0].function": [
        [assistant({"id": "a"})],
        [{"role": "assistant", "tool_calls": ["f"]}],
    ],
    "messages[0].tool_calls[0].function.name": [
        [assistant({"id": "a", "function": {"arguments": "{}"}})],
    ],
    "messages[0].tool_calls[0].id": [[assistant(call(7))]],
    "messages[0].tool_calls[0].function.arguments": [
        [assistant(call("a", arguments={1: 2}))],
        [assistant(call("a", arguments={"x": object()}))],
        [assistant(call("a", arguments={"x": 10**5000}))],
    ],
    "messages[0].tool_call_id": [[{"role": "tool", "content": "x"}]],
}


@pytest.mark.parametrize(
    ("param", "messages"), [(p, m) for p, all_ in BROKEN.items() for m in all_]
)
def test_a_wrong_field_is_named(param, messages):
    with pytest.raises(RequestError) as caught:
        normalise(messages)
    assert caught.value.param == param
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "tools", ["f", 5, [5], [{"type": "function"}], [{"type": "function", "function": {}}]]
)
def test_a_wrong_tool_is_named(tools):
    with pytest.raises(RequestError) as caught:
        normalise_tools(tools)
    assert str(caught.value.param).startswith("tools")


def test_developer_is_system():
    assert one({"role": "developer", "content": "x"}) == {"role": "system", "content": "x"}


def test_missing_assistant_text_is_empty():
    assert one({"role": "assistant", "content": None})["content"] == ""
    assert one({"role": "assistant"})["content"] == ""


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning"])
def test_both_names_of_reasoning_are_read(key):
    message = one({"role": "assistant", "content": "x", key: "r"})
    assert (message["reasoning_content"], message["reasoning"]) == ("r", "r")


def test_reasoning_of_none_is_dropped():
    """Spec §7 fault (l): a template would print the word None."""
    message = one({"role": "assistant", "content": "x", "reasoning_content": None})
    assert message == {"role": "assistant", "content": "x"}


def test_unknown_keys_and_empty_names_are_dropped():
    message = one(
        {"role": "user", "content": "x", "name": "", "cache_control": {}, "refusal": None}
    )
    assert message == {"role": "user", "content": "x"}


def test_media_parts_keep_their_place_and_lose_their_data():
    parts = [
        {"type": "text", "text": "a"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "video", "video": "x.mp4"},
        {"type": "input_text", "text": "b"},
    ]
    assert one({"role": "user", "content": parts})["content"] == [
        {"type": "text", "text": "a"},
        {"type": "image_url"},
        {"type": "video"},
        {"type": "text", "text": "b"},
    ]


IDS = {  # id that came, name -> id that goes on, as the first call of a conversation
    ("functions.f:0", "f"): "functions.f:0",
    ("functions.f:7", "f"): "functions.f:7",
    ("f:3", "f"): "functions.f:3",
    ("3", "f"): "functions.f:3",
    ("call_abc", "f"): "functions.f:0",
    ("", "f"): "functions.f:0",
    (None, "f"): "functions.f:0",
    ("functions.g:4", "f"): "functions.f:0",
    ("functions.f:x", "f"): "functions.f:0",
    ("functions.f:٣", "f"): "functions.f:0",
    ("functions.f:12345678901", "f"): "functions.f:0",
    ("functions.a.b-c_d:2", "a.b-c_d"): "functions.a.b-c_d:2",
    ("functions.f:2", "functions.f"): "functions.f:2",
    ("toolu_01:5", "f"): "functions.f:0",
}


@pytest.mark.parametrize(("given", "name"), IDS)
def test_call_ids_go_on_as_the_model_writes_them(given, name):
    conversation = normalise([assistant(call(given, name))])
    assert conversation.messages[0]["tool_calls"][0]["id"] == IDS[given, name]


def test_foreign_ids_get_a_running_index_and_answers_follow():
    conversation = normalise(
        [
            {"role": "user", "content": "x"},
            assistant(call("call_a", "f"), call("call_b", "g")),
            answer("call_b"),
            answer("call_a"),
            assistant(call("call_c", "f")),
            answer("call_c"),
        ]
    )
    messages = conversation.messages
    assert [c["id"] for c in messages[1]["tool_calls"]] == ["functions.f:0", "functions.g:1"]
    assert messages[2]["tool_call_id"] == "functions.g:1"
    assert messages[3]["tool_call_id"] == "functions.f:0"
    assert messages[4]["tool_calls"][0]["id"] == "functions.f:2"
    assert messages[5]["tool_call_id"] == "functions.f:2"
    assert conversation.next_call_index == 3


def test_a_client_that_repeats_its_ids_gets_the_latest():
    conversation = normalise(
        [assistant(call("call_0")), answer("call_0"), assistant(call("call_0")), answer("call_0")]
    )
    assert [m.get("tool_call_id") for m in conversation.messages] == [
        None, "functions.f:0", None, "functions.f:1",
    ]  # fmt: skip


def test_new_ids_count_on_from_the_models_own():
    conversation = normalise([assistant(call("functions.f:4")), assistant(call("call_x"))])
    assert conversation.messages[1]["tool_calls"][0]["id"] == "functions.f:5"


def test_an_answer_to_an_unknown_call_keeps_its_id():
    assert one(answer("functions.f:9"))["tool_call_id"] == "functions.f:9"


def test_argument_objects_keep_their_order_and_strings_their_text():
    ordered = normalise([assistant(call("a", arguments={"b": 1, "a": [None, True]}))])
    assert list(ordered.messages[0]["tool_calls"][0]["function"]["arguments"]) == ["b", "a"]
    text = normalise([assistant(call("a", arguments='{"b":1}'))])
    assert text.messages[0]["tool_calls"][0]["function"]["arguments"] == '{"b":1}'


def test_tools_are_sorted_by_key_all_the_way_down():
    tool = {"type": "function", "function": {"name": "f", "parameters": {"z": {"b": 1, "a": 2}}}}
    plain = normalise_tools([tool])[0]
    assert list(plain) == ["function", "type"]
    assert list(plain["function"]["parameters"]["z"]) == ["a", "b"]


def test_callers_data_is_not_changed():
    message = assistant(call("call_a", arguments={"b": [1]}))
    before = repr(message)
    normalise([message])
    assert repr(message) == before
