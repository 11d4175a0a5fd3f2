"""Defects drawn on the picture: overlays, and contact sheets of many pictures; and the empty figure of a plot.

Colour never stands alone: an artifact has an orange solid frame, a misalignment a blue dashed one (a pair that
colour-blind readers tell apart), and every frame carries a numbered tag, 1 being the most important defect.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from PIL import Image, ImageDraw, ImageFont

from sdg.defects import Defect, DefectSet, DefectType

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RGB = tuple[int, int, int]
Rectangle = tuple[int, int, int, int]


class Style(NamedTuple):
    """How the frames of one type look."""

    line: RGB
    text: RGB
    dashed: bool


STYLES: dict[DefectType, Style] = {
    DefectType.ARTIFACT: Style(line=(240, 140, 0), text=(24, 16, 0), dashed=False),
    DefectType.MISALIGNMENT: Style(line=(0, 110, 190), text=(255, 255, 255), dashed=True),
}
MIN_SIDE = 512
"""A picture whose shorter side is below this is enlarged, so that frames and tags can be read."""

LONGEST_ENLARGED = 2048
"""Enlarging never makes the longer side longer than this."""

CASING: RGB = (255, 255, 255)
PAPER: RGB = (250, 250, 248)
INK: RGB = (32, 33, 36)


class Pictured(Protocol):
    """What a contact sheet shows: a record of a data set, or anything with these three attributes."""

    @property
    def image(self) -> Image.Image: ...
    @property
    def caption(self) -> str | None: ...
    @property
    def defects(self) -> DefectSet: ...


def overlay(
    image: Image.Image,
    defect_set: DefectSet | Iterable[Defect],
    labels: bool = True,
    min_side: int = MIN_SIDE,
    tiers: bool = True,
) -> Image.Image:
    """The picture with a frame and a numbered tag for every defect.

    Args:
        image: the picture, any mode; it is left as it is.
        defect_set: the defects; tags are numbered from the most important (1) on.
        labels: write numbered tags; without them only the frames are drawn.
        min_side: a picture with a shorter side is enlarged to this many pixels, within 2048 for the longer side.
        tiers: write the importance tier beside the number.

    Returns:
        A new RGB picture; larger pictures keep their size.
    """
    canvas = _enlarged(image.convert("RGB"), min_side)
    ranked = DefectSet.of(defect_set).by_importance()
    draw = ImageDraw.Draw(canvas)
    short = min(canvas.size)
    width = max(2, round(short * 0.006))
    frames = [_grown(_pixels(defect, canvas.size), width, canvas.size) for defect in ranked]
    for defect, frame in reversed(list(zip(ranked, frames, strict=True))):
        _frame(draw, frame, STYLES[defect.type], width)
    if labels:
        words = [
            f"{number} {defect.tier}" if tiers and defect.tier else f"{number}"
            for number, defect in enumerate(ranked, start=1)
        ]
        styles = [STYLES[defect.type] for defect in ranked]
        _tags(draw, canvas.size, words, styles, frames, width, font=_font(max(12, round(short * 0.027))))
    return canvas


def contact_sheet(items: Iterable[Pictured], columns: int = 10, side: int = 256) -> Image.Image:
    """Many pictures on one page, each with its frames, its caption and the reasons of its defects.

    Args:
        items: what to show, in reading order.
        columns: pictures in a row, at least 1.
        side: width and height of the square that each picture is fitted into, in pixels.

    Raises:
        ValueError: for no pictures at all, or a column count or side that is not positive.
    """
    shown = list(items)
    for name, value in (("columns", columns), ("side", side)):
        if value < 1:
            raise ValueError(f"{name}={value} must be at least 1")
    if not shown:
        raise ValueError("items is empty: a contact sheet needs at least one picture")
    gap = max(4, side // 20)
    font = _font(max(10, side // 20))
    columns = min(columns, len(shown))
    rows = [shown[start : start + columns] for start in range(0, len(shown), columns)]
    texts = [[_cell_text(item, font, side) for item in row] for row in rows]
    line = round(font.size * 1.25)
    heights = [side + gap // 2 + line * max(len(cell) for cell in row) + gap for row in texts]
    sheet = Image.new("RGB", (gap + columns * (side + gap), gap + sum(heights)), PAPER)
    draw = ImageDraw.Draw(sheet)
    top = gap
    for row, row_texts, height in zip(rows, texts, heights, strict=True):
        for column, (item, text) in enumerate(zip(row, row_texts, strict=True)):
            left = gap + column * (side + gap)
            picture = overlay(item.image, item.defects, min_side=side, tiers=False)
            picture.thumbnail((side, side), Image.Resampling.LANCZOS)
            sheet.paste(picture, (left + (side - picture.width) // 2, top + (side - picture.height) // 2))
            for index, (words, colour) in enumerate(text):
                draw.text((left, top + side + gap // 2 + index * line), words, fill=colour, font=font)
        top += height
    return sheet


def blank_figure(width: float, height: float) -> Figure:
    """A figure of matplotlib for a plot, in inches, which asks for no display.

    Raises:
        ModuleNotFoundError: without matplotlib, saying how to install it.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('plots need matplotlib: pip install "sdg-t2i[plot]"', name="matplotlib") from error

    return Figure(figsize=(width, height), layout="constrained")


def _enlarged(image: Image.Image, min_side: int) -> Image.Image:
    factor = min(min_side / min(image.size), LONGEST_ENLARGED / max(image.size))
    if factor <= 1:
        return image.copy()
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, Image.Resampling.BICUBIC)


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size=size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("this build of Pillow has no FreeType, so no text can be drawn; reinstall it with pip")
    return font


def _pixels(defect: Defect, size: tuple[int, int]) -> Rectangle:
    """Corners in pixels, inclusive, inside the picture and at least one pixel large."""
    width, height = size
    x0, y0, x1, y1 = defect.to_pixels(width, height)
    left, top = min(math.floor(x0), width - 1), min(math.floor(y0), height - 1)
    return left, top, max(left, math.ceil(x1) - 1), max(top, math.ceil(y1) - 1)


def _grown(frame: Rectangle, width: int, size: tuple[int, int]) -> Rectangle:
    """The frame moved outwards by its own line width, so that a small defect is not hidden under its line."""
    left, top, right, bottom = frame
    return (
        max(0, left - width),
        max(0, top - width),
        min(size[0] - 1, right + width),
        min(size[1] - 1, bottom + width),
    )


def _frame(draw: ImageDraw.ImageDraw, frame: Rectangle, style: Style, width: int) -> None:
    casing = max(1, width // 3)
    for bar in _bars(frame, width, style.dashed):
        draw.rectangle((bar[0] - casing, bar[1] - casing, bar[2] + casing, bar[3] + casing), fill=CASING)
    for bar in _bars(frame, width, style.dashed):
        draw.rectangle(bar, fill=style.line)


def _bars(frame: Rectangle, width: int, dashed: bool) -> list[Rectangle]:
    """The filled rectangles that make up a frame: four sides, or the dashes along them."""
    left, top, right, bottom = frame
    w = width - 1
    horizontal = [(left, right)] if not dashed else _dashes(left, right, width)
    vertical = [(top, bottom)] if not dashed else _dashes(top, bottom, width)
    bars = [(a, y, b, y + w) for a, b in horizontal for y in (top, max(top, bottom - w))]
    return bars + [(x, a, x + w, b) for a, b in vertical for x in (left, max(left, right - w))]


def _dashes(start: int, end: int, width: int) -> list[tuple[int, int]]:
    """Dashes from ``start`` to ``end``, both corners covered, with gaps about as long as the dashes."""
    length = end - start + 1
    pieces = max(1, round(length / (width * 4)))
    pieces += 1 - pieces % 2
    edge = [start + round(length * k / pieces) for k in range(pieces + 1)]
    return [(edge[k], edge[k + 1] - 1) for k in range(0, pieces, 2)]


def _tags(
    draw: ImageDraw.ImageDraw,
    size: tuple[int, int],
    words: Sequence[str],
    styles: Sequence[Style],
    frames: Sequence[Rectangle],
    width: int,
    font: ImageFont.FreeTypeFont,
) -> None:
    placed: list[Rectangle] = []
    pad = max(2, round(font.size * 0.3))
    height = sum(font.getmetrics()) + pad
    for text, style, frame in zip(words, styles, frames, strict=True):
        tag = place(frame, (round(font.getlength(text)) + 2 * pad, height), size, placed)
        placed.append(tag)
        draw.rounded_rectangle(tag, radius=pad, fill=style.line, outline=CASING, width=max(1, width // 3))
        draw.text((tag[0] + pad, tag[1] + pad // 2), text, fill=style.text, font=font)


def place(frame: Rectangle, tag: tuple[int, int], size: tuple[int, int], placed: Sequence[Rectangle]) -> Rectangle:
    """Where a tag goes: by its frame, inside the picture, and clear of the tags before it where that is possible.

    Args:
        frame: what the tag belongs to: x0, y0, x1, y1.
        tag: its width and height.
        size: of the picture.
        placed: the tags before it, as this function returned them.

    Returns:
        x0, y0, x1, y1 of the tag, in the unit of the arguments.
    """
    left, top, right, bottom = frame
    wide, high = tag
    corners = [
        (left, top - high),
        (right - wide, top - high),
        (left, bottom),
        (right - wide, bottom),
        (left, top),
        (right - wide, top),
        (left, bottom - high),
        (right - wide, bottom - high),
    ]
    shifted = [(left, top + step * high) for step in range(1, 1 + max(0, (bottom - top) // high))]
    options = []
    for rank, (x, y) in enumerate(corners + shifted):
        inside_x = max(0, min(x, size[0] - 1 - wide))
        inside_y = max(0, min(y, size[1] - 1 - high))
        box = (inside_x, inside_y, inside_x + wide, inside_y + high)
        moved = abs(inside_x - x) + abs(inside_y - y)
        options.append((sum(_common(box, other) for other in placed), moved > 0, rank, box))
    return min(options)[3]


def _common(a: Rectangle, b: Rectangle) -> int:
    """Area that two rectangles share, in pixels."""
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))


def _cell_text(item: Pictured, font: ImageFont.FreeTypeFont, width: int) -> list[tuple[str, RGB]]:
    lines = [(line, INK) for line in _wrapped(item.caption or "(no caption)", font, width, most=4)]
    for number, defect in enumerate(item.defects.by_importance(), start=1):
        colour = (160, 82, 0) if defect.type is DefectType.ARTIFACT else STYLES[defect.type].line
        said = f"{number}. {defect.reason or defect.type.value}"
        lines += [(line, colour) for line in _wrapped(said, font, width, most=3)]
    return lines


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: int, most: int) -> list[str]:
    """``text`` in lines of at most ``width`` pixels; what ``most`` lines do not hold is cut with an ellipsis."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if not lines[-1] or font.getlength(longer) <= width:
            lines[-1] = longer
        elif len(lines) < most:
            lines.append(word)
        else:
            lines[-1] = longer
            break
    return [_shortened(line, font, width) for line in lines]


def _shortened(line: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    line = line[: width + 1]  # no glyph is narrower than a pixel: bounds the work on a word of any length
    if font.getlength(line) <= width:
        return line
    while line and font.getlength(line + "…") > width:
        line = line[:-1]
    return line + "…"
