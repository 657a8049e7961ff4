"""Short clips of plain colours, one to three chunks: in which order they come.

An animated PNG of two frames a second, two for each colour. Four frames go to a chunk, whose rows
are averaged over them; within a chunk the waves of the frame's number alone tell the order.
"""

import io
from collections.abc import Sequence

from PIL import Image

from nano.data.draw import Draw
from nano.data.sample import Sample, natural, said
from nano.data.words import COLOURS

SIDE = 28  # pixels: one row of the language model a chunk
FRAME_MS = 500
ORDER = ("In which order do the colours come?", "Which colours do you see, in order?",
    "What is the order of the colors?", "Name the colours in order.",
         "List the colours of the clip in order.", "What happens in the video?",
         "Which colors appear, one after the other?", "Describe the video.")  # fmt: skip
FIRST = (
    "Which colour comes first?",
    "What is the first color?",
    "What colour is at the beginning?",
    "With which colour does the clip start?",
)
LAST = (
    "Which colour comes last?",
    "What is the last color?",
    "What colour is at the end?",
    "With which colour does the clip end?",
)


def clip(draw: Draw) -> Sample:
    """A question about a clip of two to four colours, sometimes five: the order is told first."""
    count = draw.pick((2, 3, 3, 4, 4, 5))
    colours = draw.mine(lambda: in_turn(draw, count), " ".join)
    order = f"{in_order(colours)}."
    asks, content = draw.pick(
        ((ORDER, ""), (ORDER, ""), (FIRST, f"The first is {colours[0]}."),
         (LAST, f"The last is {colours[-1]}."))
    )  # fmt: skip
    video = {"type": "video", "video": animated(draw, colours)}
    text = {"type": "text", "text": natural(draw, draw.pick(asks))}
    if draw.chance(0.4):
        return said("clip", [video, text], content or order, order)
    return said("clip", [video, text], f"{order} {content}".rstrip())


def in_order(colours: Sequence[str]) -> str:
    """In words, e.g. "1 red, 2 blue"."""
    return ", ".join(f"{n} {colour}" for n, colour in enumerate(colours, 1))


def animated(draw: Draw, colours: list[str]) -> bytes:
    """Two frames a colour, of different shades: alike ones would be stored as one."""
    shown = [COLOURS[colour] for colour in colours for _ in range(2)]
    shades = [[min(255, max(0, v + draw.number(-12, 12))) for v in colour] for colour in shown]
    first, *rest = (Image.new("RGB", (SIDE, SIDE), tuple(shade)) for shade in shades)
    file = io.BytesIO()
    first.save(file, "PNG", save_all=True, append_images=rest, duration=FRAME_MS, loop=0)
    return file.getvalue()


def in_turn(draw: Draw, count: int) -> list[str]:
    """Colours, none behind itself: nobody could tell one frame from two."""
    made = [draw.pick(list(COLOURS))]
    while len(made) < count:
        made.append(draw.pick([name for name in COLOURS if name != made[-1]]))
    return made
