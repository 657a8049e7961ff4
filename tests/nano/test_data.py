"""Generated conversations: the same for a seed, right, in one split, read back as written."""

import json
import re
import zlib
from collections import Counter

import pytest

from hybrid.chat.parser import StreamParser
from hybrid.vision.media_config import PUBLISHED
from hybrid.vision.opening import open_video
from nano.data import mix, pictures, tools
from nano.data.draw import Draw, is_held_out
from nano.data.render import answer_text
from nano.data.shelf import BY_NAME, SHELF
from nano.data.words import COLOURS
from tests.nano.answers import CHECKERS
from tests.nano.workings import WORKINGS

SHORT = [family for family in mix.FAMILIES if family not in ("needle 1000", "needle 3000")]


def made(family, count, split="train"):
    return [mix.FAMILIES[family](Draw.of(f"{n}", split)) for n in range(count)]


def question(sample):
    content = sample.messages[-1]["content"]
    return content if isinstance(content, str) else content[-1]["text"]


def in_context(sample):
    """The question, behind the text of the first turn if that is what it is about."""
    first = sample.messages[0]["content"]
    return question(sample) if len(sample.messages) == 1 else f"{first}\n{question(sample)}"


@pytest.mark.parametrize("family", SHORT)
def test_the_same_seed_gives_the_same_conversation(family):
    first, second = (
        [(question(s), answer_text(s.answer), s.tools) for s in made(family, 20)] for _ in range(2)
    )
    assert first == second
    assert len({str(pair) for pair in first}) > 10


@pytest.mark.parametrize("family", CHECKERS)
def test_answers_are_right_when_worked_out_anew(family):
    for split in ("train", "test"):
        for sample in made(family, 150, split):
            content = sample.answer["content"]
            assert CHECKERS[family](in_context(sample), content), (in_context(sample), content)


@pytest.mark.parametrize("family", WORKINGS)
def test_workings_are_right_step_by_step(family):
    for sample in made(family, 300):
        if family == "table" and not sample.thinking:
            continue  # tells the cell alone
        told = sample.answer.get("reasoning_content") or sample.answer["content"]
        assert WORKINGS[family](in_context(sample), told), (in_context(sample), told)


@pytest.mark.parametrize(
    ("family", "asked", "working"),
    [
        ("large sums", "67-58", "67 - 58: ones 17-8=9, tens 6-5-1=0. So 9."),
        ("large sums", "67-52", "67 - 52: ones 7-2, 17-2=15, tens 6-5-1=0. So 15."),
        ("large sums", "67-58", "67 - 58: ones 7-8, 17-8=9, tens 6-5=1. So 19."),
        ("large sums", "35+8", "35 + 8: ones 5+8=13, tens 3+0=3. So 43."),
        ("arithmetic", "43*4", "43 × 4: ones 3×4=12, tens 4×4=16, 16+2=18. So 182."),
        ("sort", "Sort: 5, 9, 1", "5 and 9: 5 < 9. 9 and 1: 1 < 9. So 1, 5, 9."),
        ("sort", "Sort: 5, 9, 1", "5 and 9: 9 < 5. 9 and 1: 1 < 9. 9 and 1: 1 < 9."),
        ("sort", "Sort: 5, 9, 1", "5 and 9: 5 < 9. 9 and 7: 7 < 9. 5 and 7: 5 < 7. So 5, 7, 9."),
        ("sort", "Sort: 5, 9, 1", "5 and 9: 5 < 9. 5 and 1: 1 < 5. 5 and 1: 1 < 5. So 1, 5, 9."),
        (
            "sort",
            "Sort in descending order: 5, 9, 1",
            "5 and 9: 5 < 9. 9 and 1: 1 < 9. 5 and 1: 1 < 5. So 1, 5, 9.",
        ),
        ("sort", "Sort: plum, pear, key", "plum and pear: pear < plum. So key, pear, plum."),
        ("count", "Count pear in this list: pear, plum", "pear 1, plum 2. So 2."),
        ("count", "How many: pear, plum?", "1 pear, 3 plum. So 3."),
        ("count", "How many: pear, plum?", "1 pear, 2 key. So 2."),
        ("count", "Count pear in this list: pear, plum", "pear 1, key 1. So 1."),
        ("table", "name | age | pet\nAnna | 3 | cat\nAnna: age?", "Anna: age 3"),
        ("table", "Anna: age 3, pet cat\nBen: age 4, pet dog\nAnna: age?", "Anna: age 4, pet dog"),
        ("table", "Anna: age 3, pet cat\nBen: age 4, pet dog\nAnna: age?", "Ben: age 4, pet dog"),
        ("letters", "How many r are in pear?", "p 0, e 0, a 0, r 1. So 0."),
        ("letters", "How many r are in pear?", "p 0, e 0, r 1. So 1."),
    ],
)
def test_a_wrong_working_is_found(family, asked, working):
    assert not WORKINGS[family](asked, working)


@pytest.mark.parametrize(
    ("family", "asked", "answer"),
    [
        ("arithmetic", "What is 4 + 5?", "4 + 5 = 8"),
        ("arithmetic", "Subtract 3 from 5.", "5 - 3 = 8"),
        ("comparison", "Which is bigger, 9.11 or 9.9?", "9.11 is bigger."),
        ("comparison", "Which is bigger, 9.11 or 9.9?",
            "9.11 and 9.90: 9 is 9, 11 and 90: 11. 9.9 is bigger."),
        ("comparison", "Which is bigger, 3.58 or 20.4?", "3.58 and 20.40: 3.58. 20.4 is bigger."),
        ("comparison", "Which is bigger, 3.58 or 20.4?", "3.58 and 20.41: 20.41. 20.4 is bigger."),
        ("comparison", "Which is bigger, 9.11 or 9.9?",
            "9.11 and 9.09: 9 is 9, 11 and 90: 90. 9.9 is bigger."),
        ("reverse", "Reverse: apple, pear", "apple, pear"),
        ("sort", "Sort: 10, 9, 11", "10, 9, 11"),
        ("count", "How many: pear, pear?", "1"),
        ("letters", "How many r are in strawberry?", "2"),
        ("needle 200",
            "The number of the door is 12. The number of the key is 43.\nWhich number has the key?",
            "12"),
        ("table", "name | age\nAnna | 3\nBen | 4\nBen: age?", "Ben: age 3."),
        ("table", "Ben: age?\nAnna: age 3, city Rome\nBen: age 4, city Oslo", "3"),
    ],
)  # fmt: skip
def test_a_wrong_answer_is_found(family, asked, answer):
    assert not CHECKERS[family](asked, answer)


@pytest.mark.parametrize(
    "family",
    ["arithmetic", "comparison", "reverse", "sort", "table", "needle 200", "one call", "two calls",
     "identity", "small talk", "system prompt", "refusal", "clip"],
)  # fmt: skip
def test_what_is_asked_in_evaluation_was_never_asked_in_training(family):
    def keys(split):
        return {str([m["content"] for m in s.messages]) for s in made(family, 200, split)}

    assert not keys("train") & keys("test")


def test_many_may_come_more_than_once_and_in_every_number():
    drawn = [Draw.of(f"{n}").many("ab", 2, 5) for n in range(200)]
    assert {len(items) for items in drawn} == {2, 3, 4, 5}
    assert {item for items in drawn for item in items} == {"a", "b"}


def test_the_split_is_a_tenth():
    held = [is_held_out(f"key {n}") for n in range(2000)]
    assert 0.08 < sum(held) / len(held) < 0.12
    assert is_held_out("x") == (zlib.crc32(b"x") % 10 == 0)


@pytest.mark.parametrize("family", SHORT)
def test_a_rendered_conversation_is_read_back_by_the_runtimes_parser(family, renderer):
    for sample in made(family, 25):
        parser = StreamParser(
            renderer.tokenizer, thinking=sample.thinking, tools=sample.tools or None
        )
        ids = renderer.answer(sample)
        assert ids[-1] in renderer.tokenizer.stop_ids
        events = [event for token in ids[:-1] for event in parser.push(token)] + parser.finish()
        texts = Counter()
        for event in events:
            texts[event.kind] += 0
        said = {
            kind: "".join(e.text for e in events if e.kind == kind)
            for kind in ("reasoning", "content")
        }
        assert said["content"] == sample.answer["content"]
        assert said["reasoning"] == sample.answer.get("reasoning_content", "")
        calls = [e.tool_call for e in events if e.tool_call]
        expected = sample.answer.get("tool_calls", ())
        assert [(c.id, c.arguments) for c in calls] == [
            (c["id"], c["function"]["arguments"]) for c in expected
        ]


@pytest.mark.parametrize("family", ["one call", "two calls"])
def test_arguments_obey_the_schema_and_stand_in_the_request(family):
    for sample in made(family, 200):
        schemas = {t["function"]["name"]: t["function"]["parameters"] for t in sample.tools}
        assert len(schemas) == len(sample.tools)
        for call in sample.answer["tool_calls"]:
            schema = schemas[call["function"]["name"]]
            arguments = json.loads(call["function"]["arguments"])
            assert set(schema["required"]) <= arguments.keys() <= schema["properties"].keys()
            for name, value in arguments.items():
                kind = schema["properties"][name]
                assert isinstance(value, {"integer": int, "string": str}[kind["type"]])
                assert value in kind.get("enum", [value])
                assert str(value).lower() in question(sample).lower()


def test_results_are_told_in_their_order():
    for sample in made("tool result", 150):
        last = 1 + max(n for n, m in enumerate(sample.messages) if m["role"] != "tool")
        results = sample.messages[last:]
        told = [
            ", ".join(f"{key}: {value}" for key, value in json.loads(m["content"]).items())
            for m in results
        ]
        assert sample.answer["content"].lower() == f"{'; '.join(told)}.".lower()
        if sample.thinking:  # whose each is
            ids = [m["tool_call_id"].removeprefix("functions.") for m in results]
            named = [f"{id_} {each}" for id_, each in zip(ids, told, strict=True)]
            assert sample.answer["reasoning_content"] == ". ".join(named)


def test_chinese_is_typed_with_and_without_the_mark_at_its_end():
    asked = {question(sample) for sample in made("small talk", 300)}
    marked = {text for text in asked if text[-1] in "。？！"}
    assert {text[:-1] for text in marked} & asked


@pytest.mark.parametrize("family", ["one call", "two calls", "tool result"])
def test_calls_are_numbered_through_a_conversation(family):
    for sample in made(family, 100):
        turns = (*sample.messages, sample.answer)
        calls = [call for turn in turns for call in turn.get("tool_calls", ())]
        assert [int(call["id"].rpartition(":")[2]) for call in calls] == [*range(len(calls))]
        results = [turn["tool_call_id"] for turn in turns if turn["role"] == "tool"]
        assert results == [call["id"] for call in calls[: len(results)]]


def test_where_no_tool_fits_none_of_that_kind_is_declared():
    refused = [s for s in made("no call", 200) if s.answer["content"].endswith(tools.NONE)]
    assert len(refused) > 100
    for sample in refused:
        wanted = [tool for tool in SHELF if _asks_for(tool, question(sample))]
        assert len(wanted) == 1, question(sample)
        assert wanted[0].name not in declared(sample)
        working = sample.answer.get("reasoning_content", sample.answer["content"])
        assert working.removesuffix(f" {tools.NONE}") == f"{wanted[0].key}: none."


@pytest.mark.parametrize("family", ["one call", "two calls"])
def test_the_tool_of_each_request_is_named_before_the_calls(family):
    for sample in made(family, 200):
        called = [call["function"]["name"] for call in sample.answer["tool_calls"]]
        keys = [BY_NAME[name].key for name in called]
        told = ", ".join(f"{key}: {name}" for key, name in zip(keys, called, strict=True))
        thought, content = sample.answer.get("reasoning_content"), sample.answer["content"]
        assert (thought, content) == ((f"{told}.", "") if sample.thinking else (None, f"{told}."))
        assert all(key in question(sample).lower() for key in keys)


def declared(sample):
    """The functions of a conversation, by name."""
    return {tool["function"]["name"]: tool["function"] for tool in sample.tools}


@pytest.mark.parametrize("family", ["one call", "two calls", "tool result", "no call"])
def test_tools_are_declared_in_several_ways_that_all_take_what_is_passed(family):
    lacking, described = Counter(), Counter()
    for sample in made(family, 300):
        functions = declared(sample)
        for name, function in functions.items():
            whole = BY_NAME[name].schema["function"]
            properties, known = function["parameters"]["properties"], whole["parameters"]
            assert properties.items() <= known["properties"].items()
            assert {*known["required"]} <= {*properties}
            assert function["parameters"]["required"] == known["required"]
            lacking[properties == known["properties"]] += len(known["properties"]) > len(
                known["required"]
            )
            described[function.get("description", "none").removeprefix(whole["description"])] += 1
        for message in (*sample.messages, sample.answer):
            for call in message.get("tool_calls", ()):
                passed = json.loads(call["function"]["arguments"])
                parameters = functions[call["function"]["name"]]["parameters"]
                assert {*parameters["required"]} <= {*passed} <= {*parameters["properties"]}
    assert min(lacking[True], lacking[False]) > 10
    assert {*described} == {"", ".", "none"}


def test_what_is_declared_changes_nothing_that_is_said(monkeypatch):
    worded = made("tool result", 50)
    monkeypatch.setattr(tools.Tool, "declared", lambda self, *_: self.schema)
    plain = made("tool result", 50)
    assert [s.messages for s in worded] == [s.messages for s in plain]
    assert [s.answer for s in worded] == [s.answer for s in plain]
    assert [s.tools for s in worded] != [s.tools for s in plain]


def _asks_for(tool, text):
    """Whether one of a tool's requests could be this one."""
    forms = (re.sub(r"\\\{\d\\\}", ".+", re.escape(form.rstrip(".?"))) for form in tool.requests)
    return any(re.search(form, text, re.IGNORECASE) for form in forms)


def test_the_row_learns_the_answer_and_earlier_instant_answers_only(renderer):
    sample = next(s for s in made("picture", 50) if len(s.messages) > 2)
    row = renderer.row(sample)
    told = [m["content"] for m in sample.messages if m["role"] == "assistant"]
    learnt = [i for i, weight in zip(row.ids, row.weight, strict=True) if weight]
    end = "<|im_end|>"
    assert renderer.tokenizer.decode(learnt) == "".join(
        t + end for t in [*told, sample.answer["content"]]
    )
    reading = renderer.row(sample, 0.5)
    pad = renderer.tokenizer.id_of("<|media_pad|>")
    assert {w for i, w in zip(reading.ids, reading.weight, strict=True) if i == pad} == {0.0}
    assert {w for i, w in zip(reading.ids, reading.weight, strict=True) if i != pad} == {0.5, 1.0}


def nearest(pixel):
    return min(
        COLOURS,
        key=lambda name: sum((a - b) ** 2 for a, b in zip(COLOURS[name], pixel, strict=True)),
    )


def test_a_picture_shows_what_its_scene_says():
    for n in range(100):
        draw = Draw.of(f"scene {n}")
        scene = pictures.a_scene(draw, 1 + n % 5)
        image = pictures.drawn(draw, scene)
        for shape in scene.shapes:
            row, column = divmod(shape.place, 3)
            centre = (
                round(image.width * (2 * column + 1) / 6),
                round(image.height * (2 * row + 1) / 6),
            )
            assert nearest(image.getpixel(centre)) == shape.colour
            assert shape.colour in scene.told
            assert pictures.PLACES[shape.place] in scene.told


def test_a_clip_shows_its_colours_in_order():
    for sample in made("clip", 40):
        media = open_video(sample.messages[0]["content"][0]["video"], PUBLISHED, 1000)
        frames = [
            frame.mean(axis=(0, 2))  # of the channels
            for item in media.items
            for frame in item.patches.reshape(item.grid[0], -1, 3, 14 * 14)
        ]
        seen = [nearest(frame) for frame in frames]
        assert seen[::2] == seen[1::2]  # two of each
        seen = seen[::2]
        order = ", ".join(f"{n} {colour}" for n, colour in enumerate(seen, 1)) + "."
        ends = [f"The {which} is {seen[at]}." for which, at in (("first", 0), ("last", -1))]
        before, content = sample.answer.get("reasoning_content"), sample.answer["content"]
        assert before in (None, order)
        assert content in (order, *(f"{order} {end}" if before is None else end for end in ends))


def test_answers_about_a_picture_are_what_its_scene_says():
    """Worked out from the sentence that thinking mode says before its answer."""
    counts = Counter()
    for sample in made("picture", 600):
        if not sample.thinking:
            continue
        told = sample.answer["reasoning_content"].lower().rstrip(".")
        scene = [re.fullmatch(r"an? (\w+) (\w+) at the (.+)", part) for part in told.split(", ")]
        content = sample.answer["content"].lower().rstrip(".")
        counts[sample.task] += 1
        assert content in _answers(sample, [match.groups() for match in scene])
    assert len(counts) == 6


def _answers(sample, scene):
    """What may be said, of shapes (colour, kind, place)."""
    asked, task = question(sample).lower(), sample.task.removeprefix("picture ")
    named = [(f"a{'n' * (c == 'orange')} {c} {k}", p, k, c) for c, k, p in scene]
    if task == "count":
        kinds = [kind for kind in pictures.SHAPES if f"{kind}s" in asked]
        if not kinds:
            return [f"{', '.join(name for name, *_ in named)}: {len(named)}"]
        listed = [colour for *_, kind, colour in named if kind in kinds]
        return [f"{kinds[0]}s: {', '.join(listed) or 'none'}. so {len(listed)}"]
    if task == "at":
        place = max((p for p in pictures.PLACES if f"at the {p}" in asked), key=len)
        return [f"at the {place}: {next((n for n, p, *_ in named if p == place), 'nothing')}"]
    if task == "describe":
        return [", ".join(f"{name} at the {place}" for name, place, *_ in named)]
    forms = {
        "colour": lambda n, p, k, c: f"the {k} is {c}" if k in asked or len(named) == 1 else "",
        "shape": lambda n, p, k, c: n if c in asked or len(named) == 1 else "",
        "place": lambda n, p, k, c: f"the {c} {k} is at the {p}" if k in asked else "",
    }
    return [form for one in named if (form := forms[task](*one))]


def test_every_family_of_a_stage_comes():
    stream = mix.stream(0, 1, "all")
    tasks = Counter(next(stream).task for _ in range(1500))
    assert set(tasks) >= {
        "identity",
        "refusal",
        "arithmetic",
        "picture describe",
        "clip",
        "one call",
        "no call",
    }
    assert set(mix.STAGES["long"]) >= set(mix.FAMILIES)
    later = {"among", "near", "tally"}  # than in the first mixture
    assert set(mix.STAGES["mixed"]) >= set(mix.DRILLS) - {"echo", "items", "place"} - later
    assert set(mix.STAGES["mean"]) >= later
