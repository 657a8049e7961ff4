"""A small picture, drawn and shown in a terminal: two pixels a character, one above the other."""

from PIL import Image, ImageDraw

_HALF = "▀"  # its upper half in the foreground's colour
_GROUND = (250, 250, 250)


def shapes(side: int) -> Image.Image:
    """A red circle at the top left, a blue square at the bottom right."""
    picture = Image.new("RGB", (side, side), _GROUND)
    canvas = ImageDraw.Draw(picture)
    cell = side / 3
    canvas.ellipse((cell * 0.1, cell * 0.1, cell * 0.9, cell * 0.9), (220, 40, 40))
    canvas.rectangle((cell * 2.15, cell * 2.15, cell * 2.85, cell * 2.85), (40, 80, 220))
    return picture


def blocks(picture: Image.Image, columns: int = 24) -> str:
    """The picture in 24-bit colours, `columns` characters wide."""
    rows = max(1, round(columns * picture.height / picture.width / 2))
    small = picture.convert("RGB").resize((columns, 2 * rows), Image.Resampling.BOX)
    pixels = small.load()
    assert pixels is not None
    lines = []
    for row in range(rows):
        cells = (
            f"\x1b[38;2;{_code(pixels[x, 2 * row])};48;2;{_code(pixels[x, 2 * row + 1])}m{_HALF}"
            for x in range(columns)
        )
        lines.append(f"  {''.join(cells)}\x1b[0m")
    return "\n".join(lines)


def _code(pixel: object) -> str:
    assert isinstance(pixel, tuple)
    return ";".join(map(str, pixel))
