"""The drills: right as worked out anew from the prompt, its declarations and its pixels."""

import io
import re
from collections import Counter

import pytest
from PIL import Image, ImageSequence

from nano.data import mix
from nano.data.draw import Draw
from nano.data.words import COLOURS


def asked(sample):
    content = sample.messages[-1]["content"]
    return content if isinstance(content, str) else content[-1]["text"]


def shown(sample):
    return sample.messages[-1]["content"][0]


def repeated(sample, answer):
    return asked(sample).endswith(answer) or asked(sample) == f"Echo {answer}"


def mirrored(sample, answer):
    items = answer.replace(",", "").split()
    return " ".join(items[::-1]) in asked(sample).replace(",", "")


def ordered(sample, answer):
    found, question = answer.split(", "), asked(sample)
    key = int if found[0].isdigit() else str
    down = re.search(r"large to|descend|largest|high to", question)
    right = found == sorted(found, key=key, reverse=bool(down))
    given = question.rpartition(": ")[2] if ": " in question else question
    return right and set(found) == set(re.findall(r"\d+|\w+", given)[-len(found) :])


def looked_up(sample, answer):
    table, _, names = asked(sample).rpartition("\n")
    cells = dict(cell.split(": ") for cell in table.replace("\n", ", ").split(", "))
    told = [name for name in re.findall(r"[A-Z][a-z]+", names) if name in cells]
    return answer == ", ".join(f"{name}: {cells[name]}" for name in told)


def spelt(sample, answer):
    pairs = [part.split(": ") for part in answer.split(", ")]
    words = ", ".join(word for word, _ in pairs)
    return words in asked(sample) and all(letters == " ".join(word) for word, letters in pairs)


def declared(sample, answer):
    """The tools in the order of their declaration; then the parameters of one."""
    functions = {tool["function"]["name"]: tool["function"] for tool in sample.tools}
    first = sample.messages[1]["content"]
    tool, _, names = answer.partition(": ")
    properties = functions[tool]["parameters"]["properties"]
    return first == ", ".join(functions) and sorted(names.split(", ")) == sorted(properties)


def summed(sample, answer):
    told = [part.split(" = ") for part in answer.split(", ")]
    right = all(eval(left.replace("×", "*")) == int(value) for left, value in told)
    return right and ", ".join(left for left, _ in told) in asked(sample)


def described(sample, answer):
    image = shown(sample)["image"]
    cells = [colour_of_cell(image, *divmod(n, 3)) for n in range(9)]
    return [one.split()[0] for one in answer.split(", ")] == cells


def filmed(sample, answer):
    video = Image.open(io.BytesIO(shown(sample)["video"]))
    frames = [one.convert("RGB").getpixel((0, 0)) for one in ImageSequence.Iterator(video)][::2]
    return answer.split(", ") == [f"{n} {named(frame)}" for n, frame in enumerate(frames, 1)]


def named(pixel):
    """The colour of ours that is nearest."""
    return min(
        COLOURS,
        key=lambda name: sum((a - b) ** 2 for a, b in zip(COLOURS[name], pixel, strict=True)),
    )


def colour_of_cell(image, row, column):
    """The colour that fills most of a cell beside the ground, or none."""
    w, h = image.width / 3, image.height / 3
    box = (round(column * w), round(row * h), round((column + 1) * w), round((row + 1) * h))
    found = Counter(image.crop(box).get_flattened_data())
    ground = image.getpixel((0, 0))
    shades = [shade for shade, count in found.most_common(2) if shade != ground and count > 30]
    return named(shades[0]) if shades else "none"


CHECKERS = {
    "echo": repeated, "items": repeated, "mirror": mirrored, "order": ordered, "rows": looked_up,
    "spell": spelt, "schema": declared, "sums": summed, "grid": described, "film": filmed,
}  # fmt: skip
WRONG = {
    "echo": "apple", "items": "1, 2", "mirror": "apple, 1000", "order": "2, 1",
    "rows": "Anna: 1000", "spell": "apple: a p l e", "sums": "3 + 4 = 8", "grid": "red circle",
    "film": "1 mauve",
}  # fmt: skip


@pytest.mark.parametrize("drill", mix.DRILLS)
def test_drills_are_right(drill):
    for n in range(100):
        sample = mix.DRILLS[drill](Draw.of(f"{n}"))
        assert CHECKERS[drill](sample, sample.answer["content"]), asked(sample)


@pytest.mark.parametrize("drill", WRONG)
def test_a_wrong_answer_is_found(drill):
    sample = mix.DRILLS[drill](Draw.of("0"))
    assert not CHECKERS[drill](sample, WRONG[drill])


def test_a_wrong_parameter_is_found():
    sample = mix.DRILLS["schema"](Draw.of("2"))
    assert not declared(sample, sample.answer["content"].replace(": ", ": more, "))
