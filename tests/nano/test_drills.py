"""The drills: right as worked out anew from the prompt, its declarations and its pixels."""

import io
import re
from collections import Counter
from string import ascii_lowercase

import pytest
from PIL import Image, ImageSequence

from nano.data import mix
from nano.data.draw import Draw, is_held_out
from nano.data.pictures import PLACES
from nano.data.words import COLOURS, WORDS
from tests.nano import answers
from tests.nano.answers import LETTER
from tests.nano.workings import WORKINGS

FORMS = WORDS, ascii_lowercase


def asked(sample):
    content = sample.messages[-1]["content"]
    return content if isinstance(content, str) else content[-1]["text"]


def shown(sample):
    return sample.messages[-1]["content"][0]


def repeated(sample, answer):
    return asked(sample).endswith(answer) or asked(sample) == f"Echo {answer}"


def told_the_time(sample, answer):
    times = [re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", part) for part in answer.split(", ")]
    return (
        all(times) and len({time[1] for time in times}) == len(times) and repeated(sample, answer)
    )


def tallied(sample, answer):
    listed, _, told = answer.partition(". So ")
    pairs = [part.split() for part in listed.split(", ")]
    items = [item for item, _ in pairs]
    wanted = next(
        w
        for w in re.findall(r"\w+", asked(sample).replace(", ".join(items), ""))
        if w in FORMS[len(w) == 1]
    )
    counts = [items[: n + 1].count(wanted) for n in range(len(items))]
    return (
        ", ".join(items) in asked(sample)
        and [int(number) for _, number in pairs] == counts
        and told == f"{counts[-1]}."
    )


def counted_among(sample, answer):
    listed, _, told = answer.partition(". So ")
    letters = [part.split()[0] for part in listed.split(", ")]
    text = re.split(r" in (?:the word )?", asked(sample))[-1].rstrip("?.")
    wanted = next(filter(None, LETTER.search(asked(sample)).groups()))
    counts = [letters[: n + 1].count(wanted) for n in range(len(letters))]
    right = ", ".join(f"{one} {count}" for one, count in zip(letters, counts, strict=True))
    return (
        "".join(letters) == re.sub("[ ,]", "", text)
        and listed == right
        and told == f"{counts[-1]}."
    )


def ordered(sample, answer):
    return answers.sort(asked(sample), answer) and WORKINGS["sort"](asked(sample), answer)


def mirrored(sample, answer):
    items = answer.replace(",", "").split()
    return " ".join(items[::-1]) in asked(sample).replace(",", "")


def looked_up(sample, answer):
    table, _, names = asked(sample).rpartition("\n")
    cells = dict(cell.split(": ") for cell in table.replace("\n", ", ").split(", "))
    told = [name for name in re.findall(r"[A-Z][a-z]+", names) if name in cells]
    return answer == ", ".join(f"{name}: {cells[name]}" for name in told)


def spelt(sample, answer):
    pairs = [part.split(": ") for part in answer.split(", ")]
    words = ", ".join(word for word, _ in pairs)
    return words in asked(sample) and all(letters == " ".join(word) for word, letters in pairs)


def compared(sample, answer):
    pairs = re.findall(r"([\w.]+) and ([\w.]*\w)", asked(sample))
    words, pick = "alphabet" in asked(sample), max if "bigger" in asked(sample) else min
    key = str if words else float
    return answer == ", ".join(f"{a} and {b}: {pick(a, b, key=key)}" for a, b in pairs)


def numbered(sample, answer):
    """Every number as told; and no other thing is asked for."""
    text, question = asked(sample).split("\n")
    told = dict(re.findall(r"number of the (\w+) is (\d+)", text))
    things = [thing for thing in re.findall(r"\w+", question) if thing in told]
    return answer == ", ".join(f"the number of the {thing} is {told[thing]}" for thing in things)


def matched(sample, answer):
    """What a request is about is a word of it, and of the tool's name if the tool is declared."""
    named = {tool["function"]["name"]: tool["function"]["name"].split("_") for tool in sample.tools}
    pairs, words = [part.split(": ") for part in answer.split(", ")], asked(sample).lower()
    for key, name in pairs:
        there = [tool for tool, parts in named.items() if key in parts]
        if not re.search(rf"\b{key}\b", words) or [name] != (there or ["none"]):
            return False
    return True


def summed(sample, answer):
    told = [part.split(" = ") for part in answer.split(", ")]
    right = all(eval(left.replace("×", "*")) == int(value) for left, value in told)
    return right and ", ".join(left for left, _ in told) in asked(sample)


def described(sample, answer):
    image = shown(sample)["image"]
    cells = [colour_of_cell(image, *divmod(n, 3)) for n in range(9)]
    return [one.split()[0] for one in answer.split(", ")] == cells


def told_by_kind(sample, answer):
    """Every shape's colour once, and of one kind in reading order; a kind without any has none."""
    image = shown(sample)["image"]
    cells = [colour_of_cell(image, *divmod(n, 3)) for n in range(9)]
    there = [colour for colour in cells if colour != "none"]
    by_kind = [part.split(": ")[1].split() for part in answer.split(", ")]
    told = [colour for colours in by_kind for colour in colours if colours != ["none"]]
    kinds = ", ".join(part.split(": ")[0] for part in answer.split(", "))
    ordered = all(_within(colours, there) for colours in by_kind if colours != ["none"])
    return kinds in asked(sample) and Counter(told) == Counter(there) and ordered


def _within(part, whole):
    left = iter(whole)
    return all(one in left for one in part)


def found_at(sample, answer):
    pairs = [part.split(": ") for part in answer.split(", ")]
    return _asked_for(sample, pairs) and all(_is_there(sample, *pair) for pair in pairs)


def found_where(sample, answer):
    pairs = [part.split(": ") for part in answer.split(", ")]
    return _asked_for(sample, pairs) and all(_is_there(sample, *pair[::-1]) for pair in pairs)


def _asked_for(sample, pairs):
    return f"the {', '.join(left for left, _ in pairs)}" in asked(sample)


def _is_there(sample, place, what):
    image = shown(sample)["image"]
    return colour_of_cell(image, *divmod(PLACES.index(place), 3)) == what.split()[0]


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
    "echo": repeated, "items": repeated, "times": told_the_time, "tally": tallied,
    "mirror": mirrored, "among": counted_among, "near": ordered, "rows": looked_up,
    "spell": spelt, "sums": summed, "grid": described, "film": filmed, "compare": compared,
    "facts": numbered, "match": matched, "at": found_at, "where": found_where,
    "place": found_where, "kinds": told_by_kind,
}  # fmt: skip
WRONG = {
    "echo": "apple", "items": "1, 2", "times": "17:30", "tally": "apple 1. So 1.",
    "mirror": "apple, 1000", "among": "a 1, b 2. So 2.",
    "near": "1 and 2: 1 < 2. 2 and 3: 2 < 3. 1 and 2: 1 < 2. So 1, 2, 3.",
    "rows": "Anna: 1000", "spell": "apple: a p l e", "sums": "3 + 4 = 8", "grid": "red circle",
    "film": "1 mauve", "compare": "3 and 4: 3", "facts": "the number of the key is 1000",
    "match": "weather: get_time", "at": "top: mauve circle", "where": "mauve circle: top",
    "place": "mauve circle: top", "kinds": "stars: mauve",
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


@pytest.mark.parametrize("asks", [r"[a-z]+(?:, [a-z]+)+", r"\b[a-z](?: [a-z]\b){3,}"])
def test_letters_are_never_asked_of_what_is_held_out(asks):
    questions = [asked(mix.DRILLS["among"](Draw.of(f"{n}"))) for n in range(400)]
    found = [(q, told[-1]) for q in questions if (told := re.findall(asks, q))]
    assert len(found) > 50
    for question, told in found:
        wanted = next(filter(None, LETTER.search(question).groups()))
        keys = [f"{word}/{wanted}" for word in told.split(", ")] if "," in told else [told]
        assert not any(map(is_held_out, keys)), question


def test_numbers_that_are_alike_are_never_those_held_out():
    for n in range(400):
        listed = answers.items(asked(mix.DRILLS["near"](Draw.of(f"{n}"))))
        assert not is_held_out(" ".join(listed))
