"""Generated conversations: the same for a seed, right, in one split, read back as written."""

import json
import zlib
from collections import Counter

import pytest

from hybrid.chat.parser import StreamParser
from hybrid.vision.media_config import PUBLISHED
from hybrid.vision.opening import open_video
from nano.data import mix, pictures
from nano.data.draw import Draw, is_held_out
from nano.data.render import answer_text
from nano.data.words import COLOURS
from tests.nano.answers import CHECKERS

SHORT = [family for family in mix.FAMILIES if family not in ("needle 1000", "needle 3000")]


def made(family, count, split="train"):
    return [mix.FAMILIES[family](Draw.of(f"{n}", split)) for n in range(count)]


def question(sample):
    content = sample.messages[-1]["content"]
    return content if isinstance(content, str) else content[-1]["text"]


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
            assert CHECKERS[family](question(sample), content), (question(sample), content)


@pytest.mark.parametrize(
    ("family", "asked", "answer"),
    [
        ("arithmetic", "What is 4 + 5?", "4 + 5 = 8"),
        ("arithmetic", "Subtract 3 from 5.", "5 - 3 = 8"),
        ("comparison", "Which is bigger, 9.11 or 9.9?", "9.11 is bigger."),
        ("reverse", "Reverse: apple, pear", "apple, pear"),
        ("sort", "Sort: 10, 9", "10, 9"),
        ("count", "How many: pear, pear?", "1"),
        ("letters", "How many r are in strawberry?", "2"),
        ("needle 200",
            "The door has the number 1234. The key has the number 4321.\nWhich number has the key?",
            "1234"),
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
        told = sample.answer["content"].lower().rstrip(".").split(", ")
        if len(told) > 1:
            assert told == seen
        else:
            assert told[0] in (seen[0], seen[-1])


def test_every_family_of_a_stage_comes():
    stream = mix.stream(0, 1, "all")
    tasks = Counter(next(stream).task for _ in range(1500))
    assert set(tasks) >= {
        "identity",
        "refusal",
        "arithmetic",
        "describe",
        "clip",
        "one call",
        "no call",
    }
    assert set(mix.STAGES["long"]) == set(mix.FAMILIES)
