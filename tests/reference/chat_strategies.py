"""Random conversations for property tests."""

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from tests.reference.chat_vocabulary import NAMED

# No verdict may depend on how busy the machine is.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

texts = st.one_of(
    st.sampled_from(["", "Hi", " padded \n", "你好", "a < b [c]", '"quoted" {"x": 1}', "x\n\ny"]),
    # Hypothesis tries literals that it finds in source files: no names of control tokens here.
    st.text(max_size=8).filter(lambda text: not any(name in text for name in NAMED.values())),
)
names = st.sampled_from(["f", "get_weather", "a.b-c"])
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-9, 9), texts),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=4,
)


@st.composite
def contents(draw: st.DrawFn, text: st.SearchStrategy[str]) -> Any:
    parts = st.one_of(
        st.builds(lambda t: {"type": "text", "text": t}, text),
        st.sampled_from([{"type": "image"}, {"type": "image_url", "image_url": "data:,"}]),
    )
    return draw(st.one_of(text, st.lists(parts, max_size=3)))


@st.composite
def messages(draw: st.DrawFn, text: st.SearchStrategy[str] = texts) -> dict[str, Any]:
    role = draw(st.sampled_from(["system", "user", "assistant", "tool", "developer"]))
    message: dict[str, Any] = {"role": role, "content": draw(contents(text))}
    if draw(st.booleans()):
        message["name"] = draw(text)
    if role == "tool":
        message["tool_call_id"] = draw(st.one_of(text, st.just("functions.f:0")))
    if role == "assistant":
        if draw(st.booleans()):
            message["reasoning_content"] = draw(st.one_of(text, st.none()))
        if draw(st.booleans()):
            message["tool_calls"] = draw(st.lists(calls(text), max_size=2))
    return message


@st.composite
def calls(draw: st.DrawFn, text: st.SearchStrategy[str]) -> dict[str, Any]:
    arguments = draw(st.one_of(text, st.dictionaries(text, json_values, max_size=2)))
    function = {"name": draw(st.one_of(names, text)), "arguments": arguments}
    return {"id": draw(st.one_of(text, st.none())), "type": "function", "function": function}


@st.composite
def tools(draw: st.DrawFn, text: st.SearchStrategy[str] = texts) -> dict[str, Any]:
    schemas = st.one_of(
        st.builds(lambda d: {"type": "string", "description": d}, text),
        st.builds(lambda values: {"enum": values}, st.lists(text, max_size=2)),
        st.builds(lambda d: {"description": d}, text),  # has no type: falls back to JSON
    )
    function = {
        "name": draw(st.one_of(names, text)),
        "description": draw(text),
        "parameters": {
            "type": "object",
            "properties": draw(st.dictionaries(text, schemas, max_size=2)),
        },
    }
    return {"type": "function", "function": function}


conversations = st.lists(messages(), min_size=1, max_size=6)
tool_lists = st.lists(tools(), max_size=2)
