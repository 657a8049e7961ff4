"""Streams of ids: the cases of spec §5.8 one by one, then random streams against the reference."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybrid.chat.parser import StreamParser
from hybrid.events import ToolCall
from tests.reference import chat_parser
from tests.reference.chat_strategies import PATIENT

SECTION, END_SECTION = "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"
CALL, ARGUMENTS, END_CALL = (
    "<|tool_call_begin|>",
    "<|tool_call_argument_begin|>",
    "<|tool_call_end|>",
)
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {}}}
    for name in ("f", "get_weather", "a.b-c_d")
]
WEATHER = ToolCall("functions.get_weather:0", "get_weather", '{"city": "北京"}')
WEATHER_TEXT = f'{CALL}functions.get_weather:0{ARGUMENTS}{{"city": "北京"}}{END_CALL}'


def events_of(tokenizer, ids, **options):
    parser = StreamParser(tokenizer, **{"thinking": True, "tools": TOOLS, **options})
    events = [event for token_id in ids for event in parser.push(token_id)]
    return events + parser.finish(), parser


def parsed(tokenizer, text, **options):
    """(reasoning, content, calls) of text in which names of control tokens are control."""
    events, _ = events_of(tokenizer, tokenizer.encode_with_specials(text), **options)
    return summary(events)


def summary(events):
    def text(kind):
        return "".join(event.text for event in events if event.kind == kind)

    return text("reasoning"), text("content"), [e.tool_call for e in events if e.tool_call]


CASES = {
    "thinking, then an answer": ("Hm.</think>Hi 🎉<|im_end|>", ("Hm.", "Hi 🎉", [])),
    "a leading <think>": ("<think>Hm.</think>Hi", ("Hm.", "Hi", [])),
    "nothing": ("", ("", "", [])),
    "only the end": ("<|im_end|>", ("", "", [])),
    "never stops thinking": ("Hm.", ("Hm.", "", [])),
    "thinks twice": ("a</think>b<think>c</think>d", ("ac", "bd", [])),
    "white space stays": ("\n a \n</think>\n\n b ", ("\n a \n", "\n\n b ", [])),
    "a call": (f"a</think>b{SECTION}{WEATHER_TEXT}{END_SECTION}", ("a", "b", [WEATHER])),
    "a section ends the reasoning": (
        f"a{SECTION}{WEATHER_TEXT}{END_SECTION}<|im_end|>", ("a", "", [WEATHER]),
    ),
    "a call without a section": (f"a{WEATHER_TEXT}<|im_end|>", ("a", "", [WEATHER])),
    "text between and behind is dropped": (
        f"a</think>{SECTION}x{WEATHER_TEXT}y{END_SECTION}z</think>z", ("a", "", [WEATHER]),
    ),
    "several sections": (
        f"a</think>{SECTION}{WEATHER_TEXT}{END_SECTION} {SECTION}{CALL}functions.f:1{ARGUMENTS}{{}}"
        f"{END_CALL}{END_SECTION}",
        ("a", "", [WEATHER, ToolCall("functions.f:1", "f", "{}")]),
    ),
    "an empty section": (f"a</think>b{SECTION}{END_SECTION}", ("a", "b", [])),
    "white space around the id": (
        f"</think>{SECTION}{CALL} \n functions.f:0\n{ARGUMENTS} {{}} {END_CALL}{END_SECTION}",
        ("", "", [ToolCall("functions.f:0", "f", " {} ")]),
    ),
    "arguments pass raw": (
        f'</think>{CALL}functions.f:0{ARGUMENTS}{{"a":\n {{"b": [1, {{}}]}}, oops{END_CALL}',
        ("", "", [ToolCall("functions.f:0", "f", '{"a":\n {"b": [1, {}]}, oops')]),
    ),
    "no arguments": (
        f"</think>{CALL}functions.f:0{END_CALL}{CALL}functions.f:1{ARGUMENTS}{END_CALL}",
        ("", "", [ToolCall("functions.f:0", "f", "{}"), ToolCall("functions.f:1", "f", "{}")]),
    ),
    "the section ends an open call": (
        f"</think>{SECTION}{CALL}functions.f:0{ARGUMENTS}{{oops{END_SECTION}",
        ("", "", [ToolCall("functions.f:0", "f", "{oops")]),
    ),
    "the next call ends an open call": (
        f"</think>{SECTION}{CALL}functions.f:0{ARGUMENTS}{{}}{WEATHER_TEXT}",
        ("", "", [ToolCall("functions.f:0", "f", "{}"), WEATHER]),
    ),
    "cut off in the arguments": (
        f'</think>{SECTION}{CALL}functions.f:0{ARGUMENTS}{{"a": ', ("", "", []),
    ),
    "cut off behind whole arguments": (
        f'</think>{SECTION}{CALL}functions.f:0{ARGUMENTS}{{"a": 1}}',
        ("", "", [ToolCall("functions.f:0", "f", '{"a": 1}')]),
    ),
    "cut off in a number": (f"</think>{SECTION}{CALL}functions.f:0{ARGUMENTS}12", ("", "", [])),
    "cut off in the id": (f"</think>{SECTION}{CALL}functions.f", ("", "", [])),
    "other control tokens vanish": (
        "a[PAD]b</think>c<|im_user|>d<|media_pad|>[EOS]", ("ab", "cd", []),
    ),
    "control tokens inside arguments vanish": (
        f"</think>{CALL}functions.f:0{ARGUMENTS}{{<think>}}<|im_user|>{END_CALL}",
        ("", "", [ToolCall("functions.f:0", "f", "{}")]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_case(tokenizer, name):
    text, expected = CASES[name]
    assert parsed(tokenizer, text) == expected


def test_instant_mode_starts_with_content(small):
    assert parsed(small, f"Hi{SECTION}{WEATHER_TEXT}", thinking=False) == ("", "Hi", [WEATHER])
    assert parsed(small, "<think>Hm.</think>Hi", thinking=False) == ("Hm.", "Hi", [])


# what the model wrote -> (name, id), with f, get_weather and a.b-c_d declared
NAMES = {
    "functions.f:0": ("f", "functions.f:0"),
    "functions.f:12": ("f", "functions.f:12"),
    "f:3": ("f", "functions.f:3"),
    "f": ("f", "functions.f:5"),
    "functions.f": ("f", "functions.f:5"),
    "functions.f:": ("f:", "functions.f::5"),
    "functions.f: 0": ("f", "functions.f:0"),
    "functions.a.b-c_d:1": ("a.b-c_d", "functions.a.b-c_d:1"),
    "a.b-c_d:1": ("a.b-c_d", "functions.a.b-c_d:1"),
    "tools.get_weather:2": ("get_weather", "functions.get_weather:2"),
    "functions.tools.f:2": ("f", "functions.f:2"),
    "functions.unknown-tool:2": ("unknown-tool", "functions.unknown-tool:2"),
    "other.unknown:2": ("other.unknown", "functions.other.unknown:2"),
    "get_weather2:0": ("get_weather2", "functions.get_weather2:0"),
    "3": ("3", "functions.3:3"),
    ":3": (":3", "functions.:3:3"),
    "functions.f:٣": ("f:٣", "functions.f:٣:5"),
}


@pytest.mark.parametrize("written", NAMES)
def test_names_and_ids(small, written):
    text = f"</think>{CALL}{written}{ARGUMENTS}{{}}{END_CALL}"
    (call,) = parsed(small, text, prior_calls=5)[2]
    assert (call.name, call.id) == NAMES[written]


def test_a_bare_number_means_the_only_tool(small):
    text = f"</think>{CALL}4{ARGUMENTS}{{}}{END_CALL}"
    assert parsed(small, text, tools=TOOLS[:1])[2] == [ToolCall("functions.f:4", "f", "{}")]


def test_a_call_without_any_id_needs_an_only_tool(small):
    text = f"</think>{CALL} {ARGUMENTS}{{}}{END_CALL}"
    assert parsed(small, text)[2] == []
    assert parsed(small, text, tools=TOOLS[:1])[2] == [ToolCall("functions.f:0", "f", "{}")]


def test_missing_indices_count_on(small):
    text = f"</think>{CALL}f{END_CALL}{CALL}functions.f:7{END_CALL}{CALL}f{END_CALL}"
    ids = [call.id for call in parsed(small, text, prior_calls=2)[2]]
    assert ids == ["functions.f:2", "functions.f:7", "functions.f:8"]


def test_markers_as_text_close_nothing(small):
    """The same characters as ordinary tokens, in each place where the marker would act."""
    ids = [
        *small.encode(f"so </think> and {SECTION} are text"),
        small.id_of("</think>"),
        *small.encode(f"as is {CALL}"),
        *small.encode_with_specials(f"{SECTION}{CALL}functions.f:0{ARGUMENTS}"),
        *small.encode(f'{{"a": "{END_CALL} {END_SECTION} <|im_end|>"}}'),
        *small.encode_with_specials(f"{END_CALL}{END_SECTION}"),
    ]
    call = ToolCall("functions.f:0", "f", f'{{"a": "{END_CALL} {END_SECTION} <|im_end|>"}}')
    events, _ = events_of(small, ids)
    assert summary(events) == (
        f"so </think> and {SECTION} are text", f"as is {CALL}", [call],
    )  # fmt: skip


SINGULAR = "<|tool_call_section_begin|>"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"a</think>b{SINGULAR}{WEATHER_TEXT}", ("a", "b", [WEATHER])),
        (f"a</think>b{SINGULAR}\n {WEATHER_TEXT}", ("a", "b", [WEATHER])),
        (f"a{SINGULAR}{WEATHER_TEXT}", ("a", "", [WEATHER])),
        (f"a</think>the marker {SINGULAR} is", ("a", f"the marker {SINGULAR} is", [])),
        (f"a</think>b{SINGULAR}", ("a", f"b{SINGULAR}", [])),
        (f"a</think>b{SINGULAR}{SECTION}{WEATHER_TEXT}", ("a", f"b{SINGULAR}", [WEATHER])),
        (f"a{SINGULAR}</think>b", (f"a{SINGULAR}", "b", [])),
        ("a</think>1 <|tool_call_sec", ("a", "1 <|tool_call_sec", [])),
        ("a</think><<|<|tool<|", ("a", "<<|<|tool<|", [])),
    ],
)
def test_the_singular_marker_is_text(small, text, expected):
    assert parsed(small, text) == expected


def test_a_split_character_waits_and_a_broken_one_is_replaced(small):
    first, *rest = "🎉".encode()
    events, _ = events_of(small, [first, *rest, first, small.id_of("</think>"), *rest])
    assert events[0].text == "🎉"
    assert events[0].token_ids == (first, *rest)
    assert summary(events) == ("🎉\ufffd", "\ufffd" * 3, [])


def test_token_ids_go_with_the_text_they_made(small):
    ids = small.encode_with_specials(f"a</think>b{SECTION}{WEATHER_TEXT}{END_SECTION}<|im_end|>")
    events, parser = events_of(small, ids)
    assert [event.kind for event in events] == ["reasoning", "content", "tool_call"]
    assert events[0].token_ids == tuple(small.encode("a"))
    assert events[1].token_ids == (small.id_of("</think>"), *small.encode("b"))
    assert parser.leftover_ids == (small.id_of(END_SECTION), small.id_of("<|im_end|>"))
    assert parser.saw_tool_calls
    assert parser.reasoning_tokens == 1


def test_an_answer_without_calls_says_so(small):
    _, parser = events_of(small, small.encode_with_specials(f"a</think>b{SECTION}{CALL}f"))
    assert not parser.saw_tool_calls


def test_a_long_call_takes_linear_time(small):
    """100,000 tokens of arguments; joining the text anew at each token would copy gigabytes."""
    ids = small.encode_with_specials(f"</think>{CALL}functions.f:0{ARGUMENTS}")
    ids += small.encode("ab") * 50_000 + [small.id_of(END_CALL)]
    events, _ = events_of(small, ids)
    assert events[0].tool_call is not None
    assert len(events[0].tool_call.arguments) == 100_000


MARKERS = [
    "<think>",
    "</think>",
    SECTION,
    END_SECTION,
    CALL,
    ARGUMENTS,
    END_CALL,
    "<|im_end|>",
    "[PAD]",
]
WORDS = [
    "a", " b\n", "functions.f:0", "get_weather", "x.f:2", "7", '{"a": 1}', "{", "🎉", "<", "<|",
    SINGULAR, SINGULAR[:9], SINGULAR[9:], " ", " " * 9, *MARKERS[:4],
]  # fmt: skip
PIECES = st.one_of(
    st.sampled_from(MARKERS).map(lambda name: (name, True)),
    st.sampled_from(WORDS).map(lambda text: (text, False)),
    st.binary(min_size=1, max_size=2).map(lambda raw: (raw.replace(b"\0", b"a"), False)),
)
WHOLE_CALL = [
    (CALL, True),
    ("functions.f:0", False),
    (ARGUMENTS, True),
    ("{}", False),
    (END_CALL, True),
]
STREAMS = st.lists(
    st.one_of(PIECES.map(lambda piece: [piece]), st.just(WHOLE_CALL)), max_size=14
).map(lambda groups: [piece for group in groups for piece in group])


def ids_of(tokenizer, stream):
    ids = []
    for piece, control in stream:
        if isinstance(piece, bytes):
            ids += list(piece)  # in the small vocabulary a byte is its own id
        else:
            ids += [tokenizer.id_of(piece)] if control else tokenizer.encode(piece)
    return ids


@settings(PATIENT, max_examples=500)
@given(STREAMS, st.booleans(), st.integers(0, 3))
def test_random_streams_equal_the_reference(small, stream, thinking, tool_count):
    ids = ids_of(small, stream)
    tools = TOOLS[:tool_count]
    events, parser = events_of(small, ids, thinking=thinking, tools=tools, prior_calls=3)
    names = [tool["function"]["name"] for tool in tools]
    expected = chat_parser.parse(small, ids, thinking=thinking, tools=names, prior=3)
    assert summary(events) == expected
    carried = [i for event in events for i in event.token_ids] + list(parser.leftover_ids)
    assert carried == ids
    assert all(event.text or event.tool_call for event in events)
    assert parser.saw_tool_calls == bool(expected[2])


@settings(PATIENT, max_examples=300)
@given(st.lists(st.integers(0, 256 + 160 + 255), max_size=60), st.booleans())
def test_random_ids_raise_nothing_and_leak_nothing(small, ids, thinking):
    events, parser = events_of(small, ids, thinking=thinking)
    carried = [i for event in events for i in event.token_ids] + list(parser.leftover_ids)
    assert carried == ids
    plain = small.decode([i for i in ids if not small.is_special(i)])
    for event in events:
        assert not any(name in event.text and name not in plain for name in small.special_names)


class LooksAtText(StreamParser):
    """The planted fault: decides from characters, as parsers behind a text API must."""

    def push(self, token_id):
        text = self._decoder.push(token_id)
        self._pending.append(token_id)
        self._held += text
        if "</think>" in self._held:
            before, _, after = self._held.partition("</think>")
            self._held = before
            events = self._end_reasoning(token_id)
            self._held = after
            return events
        return []


def test_deciding_from_text_is_caught(small):
    ids = small.encode("so </think> is text")
    good, _ = events_of(small, ids)
    planted = LooksAtText(small, thinking=True)
    events = [event for i in ids for event in planted.push(i)] + planted.finish()
    assert summary(good) == ("so </think> is text", "", [])
    assert summary(events) != summary(good)


def test_not_ending_the_reasoning_at_a_section_is_caught(small):
    class Planted(StreamParser):
        def _begin_section(self, token_id):
            return self._ignore(token_id)

    ids = small.encode_with_specials(f"a{SECTION}b")
    parser = Planted(small, thinking=True)
    events = [event for i in ids for event in parser.push(i)] + parser.finish()
    assert summary(events) == ("ab", "", [])
    assert summary(events_of(small, ids)[0]) == ("a", "", [])
