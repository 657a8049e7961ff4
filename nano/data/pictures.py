"""Pictures of shapes, drawn by PIL: what is there, which colour, where, how many.

picture   84 pixels a side, a light or dark ground, 1 to 3 shapes in cells of a 3 x 3 grid: each
          cell of 28 pixels is one row of the language model
told      a red circle at the top left, a blue square at the bottom      in reading order
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from nano.data.draw import Draw
from nano.data.sample import Sample, followed, natural, said
from nano.data.words import COLOURS

SHAPES = ("circle", "square", "triangle", "star")
PLACES = (
    "top left",
    "top",
    "top right",
    "left",
    "center",
    "right",
    "bottom left",
    "bottom",
    "bottom right",
)
GROUNDS = ((250, 250, 250), (225, 225, 225), (200, 215, 235), (60, 60, 60), (235, 225, 200))
SIDE = 84  # pixels
NOTHING, NONE = "nothing", "none"
DARK, LIGHT = 110, 195  # mean of a ground on which black, or white, cannot be seen

DESCRIBE = ("What is in the picture?", "Describe the picture.", "What do you see?", "What is this?",
    "What can you see in the image?",
            "Describe this image.", "What does the image show?", "What's in this picture?",
            "Tell me what you see.")  # fmt: skip
COLOUR = ("What colour is the {0}?", "What color is the {0}?", "Which colour does the {0} have?",
    "Tell me the colour of the {0}.",
          "What is the color of the {0}?")  # fmt: skip
COLOUR_ONE = (
    "What colour is it?",
    "What color is this?",
    "Which colour is the shape?",
    "What colour do you see?",
)
SHAPE = (
    "What shape is {0}?",
    "Which shape is {0}?",
    "What is the {0} shape?",
    "What is {0} in the picture?",
)
SHAPE_ONE = (
    "What shape is it?",
    "What shape is this?",
    "Which shape do you see?",
    "What kind of shape is in the picture?",
)
WHERE = (
    "Where is the {0}?",
    "Where is the {0} in the picture?",
    "In which place is the {0}?",
    "Where do you see the {0}?",
)
AT = (
    "What is at the {0}?",
    "What do you see at the {0}?",
    "Which shape is at the {0}?",
    "Describe what is at the {0}.",
)
COUNT = (
    "How many shapes are there?",
    "How many shapes do you see?",
    "Count the shapes.",
    "How many objects are in the picture?",
)
COUNT_KIND = (
    "How many {0}s are there?",
    "How many {0}s do you see?",
    "Count the {0}s.",
    "How many {0}s are in the picture?",
)


@dataclass(frozen=True, slots=True)
class Shape:
    """One thing in a picture; `place` numbers the cells of the 3 x 3 grid row by row."""

    kind: str
    colour: str
    place: int

    @property
    def name(self) -> str:
        """E.g. "red circle"."""
        return f"{self.colour} {self.kind}"

    @property
    def named(self) -> str:
        """With its article, e.g. "a red circle"."""
        return f"{'an' if self.colour[0] in 'aeiou' else 'a'} {self.name}"

    @property
    def told(self) -> str:
        """In words, e.g. "a red circle at the top left"."""
        return f"{self.named} at the {self.where}"

    @property
    def where(self) -> str:
        """The words for its cell."""
        return PLACES[self.place]


@dataclass(frozen=True, slots=True)
class Scene:
    """What a picture shows, in reading order."""

    shapes: tuple[Shape, ...]
    ground: tuple[int, int, int]

    @property
    def told(self) -> str:
        """All of it in one sentence."""
        return _sentence(", ".join(shape.told for shape in self.shapes))

    @property
    def key(self) -> str:
        """What tells it from other scenes."""
        return ";".join(f"{s.name} {s.place}" for s in self.shapes)


def picture(draw: Draw) -> Sample:
    """Up to five questions about one picture; in thinking mode one, and the picture is told."""
    shapes = draw.pick((1, 1, 2, 2, 3, 3))
    scene = draw.mine(lambda: a_scene(draw, shapes), lambda s: s.key)
    image = {"type": "image", "image": drawn(draw, scene)}
    task, question, answer = _asked(draw, scene)
    text = {"type": "text", "text": natural(draw, question)}
    if draw.chance(0.3):
        return said(task, [image, text], answer, scene.told)
    sample = said(task, [image, text], answer)
    for _ in range(draw.number(0, 4)):
        task, question, answer = _asked(draw, scene)
        sample = followed(sample, natural(draw, question), answer)
    return sample


def a_scene(draw: Draw, count: int) -> Scene:
    """Shapes in different cells, visible on their ground."""
    ground = draw.pick(GROUNDS)
    colours = visible(ground)
    places = sorted(draw.some(range(9), count))
    shapes = tuple(Shape(draw.pick(SHAPES), draw.pick(colours), place) for place in places)
    return Scene(shapes, ground)


def visible(ground: tuple[int, int, int]) -> list[str]:
    """Colours that can be told from the ground."""
    mean = sum(ground) / 3
    hidden = {"black"} if mean < DARK else {"white", "yellow"} if mean > LIGHT else set()
    return [name for name in COLOURS if name not in hidden]


def drawn(draw: Draw, scene: Scene) -> Image.Image:
    """Paint a scene; sizes, places within their cell and shades vary a little."""
    image = Image.new("RGB", (SIDE, SIDE), scene.ground)
    canvas = ImageDraw.Draw(image)
    for shape in scene.shapes:
        row, column = divmod(shape.place, 3)
        radius = SIDE / 6 * (0.75 + 0.2 * draw.random.random())
        slack = SIDE / 6 - radius
        x = SIDE * (2 * column + 1) / 6 + slack * (2 * draw.random.random() - 1)
        y = SIDE * (2 * row + 1) / 6 + slack * (2 * draw.random.random() - 1)
        _paint(canvas, shape.kind, (x, y), radius, _shade(draw, shape.colour))
    return image


def _asked(draw: Draw, scene: Scene) -> tuple[str, str, str]:
    """Task, question, answer."""
    kind = draw.pick(("describe", "describe", "colour", "shape", "place", "at", "count", "count"))
    asked = _QUESTIONS[kind](draw, scene)
    if asked is None:
        kind, asked = "describe", _describe(draw, scene)
    return (f"picture {kind}", *asked)


def _describe(draw: Draw, scene: Scene) -> tuple[str, str]:
    return draw.pick(DESCRIBE), scene.told


def _colour(draw: Draw, scene: Scene) -> tuple[str, str] | None:
    if len(scene.shapes) == 1 and draw.chance(0.4):
        shape = scene.shapes[0]
        return draw.pick(COLOUR_ONE), f"The {shape.kind} is {shape.colour}."
    one = _only(draw, scene.shapes, [s.kind for s in scene.shapes])
    if one is None:
        return None
    return draw.pick(COLOUR).format(one.kind), f"The {one.kind} is {one.colour}."


def _shape(draw: Draw, scene: Scene) -> tuple[str, str] | None:
    if len(scene.shapes) == 1 and draw.chance(0.4):
        return draw.pick(SHAPE_ONE), _sentence(scene.shapes[0].named)
    one = _only(draw, scene.shapes, [s.colour for s in scene.shapes])
    if one is None:
        return None
    return draw.pick(SHAPE).format(one.colour), _sentence(one.named)


def _place(draw: Draw, scene: Scene) -> tuple[str, str] | None:
    one = _only(draw, scene.shapes, [s.kind for s in scene.shapes])
    name = one and one.kind
    if draw.chance(0.5) or one is None:
        one = _only(draw, scene.shapes, [s.name for s in scene.shapes])
        name = one and one.name
    if one is None:
        return None
    return draw.pick(WHERE).format(name), f"The {one.name} is at the {one.where}."


def _at(draw: Draw, scene: Scene) -> tuple[str, str]:
    shown = {shape.place: shape.named for shape in scene.shapes}
    place = draw.pick([*shown]) if draw.chance(0.75) else draw.number(0, 8)
    return draw.pick(AT).format(PLACES[place]), _sentence(
        f"at the {PLACES[place]}: {shown.get(place, NOTHING)}"
    )


def _counted(draw: Draw, scene: Scene) -> tuple[str, str]:
    """Shapes are named and then counted: "A red star, a blue circle: 2.", "Stars: red. So 1."."""
    if draw.chance(0.4):
        named = ", ".join(shape.named for shape in scene.shapes)
        return draw.pick(COUNT), _sentence(f"{named}: {len(scene.shapes)}")
    kind = draw.pick(scene.shapes).kind if draw.chance(0.8) else draw.pick(SHAPES)
    count = sum(shape.kind == kind for shape in scene.shapes)
    told = _sentence(f"{kind}s: {', '.join(of_kind(scene, kind))}")
    return draw.pick(COUNT_KIND).format(kind), f"{told} So {count}."


def of_kind(scene: Scene, kind: str) -> list[str]:
    """The colours of what is of a kind, in reading order; of nothing "none"."""
    return [shape.colour for shape in scene.shapes if shape.kind == kind] or [NONE]


_QUESTIONS: Mapping[str, Callable[[Draw, Scene], tuple[str, str] | None]] = {
    "describe": _describe, "colour": _colour, "shape": _shape, "place": _place, "at": _at,
    "count": _counted,
}  # fmt: skip


def _only(draw: Draw, shapes: Sequence[Shape], names: Sequence[str]) -> Shape | None:
    """One that its name tells from all others, if there is one."""
    alone = [s for s, name in zip(shapes, names, strict=True) if names.count(name) == 1]
    return draw.pick(alone) if alone else None


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _shade(draw: Draw, colour: str) -> tuple[int, ...]:
    return tuple(min(255, max(0, level + draw.number(-15, 15))) for level in COLOURS[colour])


def _paint(
    canvas: ImageDraw.ImageDraw,
    kind: str,
    centre: tuple[float, float],
    radius: float,
    fill: tuple[int, ...],
) -> None:
    x, y = centre
    if kind == "circle":
        canvas.ellipse((x - radius, y - radius, x + radius, y + radius), fill)
    elif kind == "square":
        side = radius * 0.86
        canvas.rectangle((x - side, y - side, x + side, y + side), fill)
    else:
        canvas.polygon([(x + a * radius, y + b * radius) for a, b in _CORNERS[kind]], fill)


def _star() -> list[tuple[float, float]]:
    turns = [math.pi * n / 5 for n in range(10)]
    return [
        ((0.42 if n % 2 else 1.0) * math.sin(turn), -(0.42 if n % 2 else 1.0) * math.cos(turn))
        for n, turn in enumerate(turns)
    ]


_CORNERS = {"triangle": [(0, -1), (0.95, 0.75), (-0.95, 0.75)], "star": _star()}
