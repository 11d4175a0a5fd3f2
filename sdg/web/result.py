"""An answer as HTML: the picture under its frames, the filters, the table. ``page.js`` ties them together."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Mapping
from html import escape
from typing import Any

from PIL import Image

from sdg.boxes import GRID
from sdg.defects import Defect, DefectSet
from sdg.draw import place
from sdg.engines.images import fit
from sdg.web.html import NAMES

LOSSLESS = 256
"""Pictures of up to this many pixels a side are sent as they are; larger ones as good JPEG."""

COLUMNS = ("#", "Type", "Box", "What is wrong", "Importance")

TAG = (56, 52)
"""About how wide and high a numbered tag is, in units of the grid, on a picture as the page shows it."""


def picture(image: Image.Image, found: DefectSet, doubted: bool = False) -> str:
    """The picture as the model saw it, with a frame and a numbered tag for every defect, and the legend.

    Args:
        image: RGB, as :func:`~sdg.engines.images.open_image` gives it: what the browser makes of the file may differ.
        found: the defects; 1 is the most important one.
        doubted: the frames are not to be relied on, and look so.
    """
    ranked = found.by_importance()
    # In the order of their sizes, so that a small frame lies above the large one round it and can be pointed at.
    frames = sorted(enumerate(ranked, start=1), key=lambda item: -_area(item[1]))
    placed: list[tuple[int, int, int, int]] = []
    tags = "".join(_tag(number, defect, placed) for number, defect in enumerate(ranked, start=1))
    few = "no defects" if not ranked else f"{len(ranked)} numbered frame{'s' * (len(ranked) > 1)}"
    about = f"The picture with {few}" + (f". Caption: {found.caption}" if found.caption else "")
    return (
        f'<figure class="sdg-picture{" doubted" * doubted}"><div class="sdg-canvas" '
        f'style="aspect-ratio:{image.width}/{image.height};max-width:calc(74vh * {image.width} / {image.height})">'
        f'<img src="{data_address(fit(image))}" alt="{escape(about)}">'
        f'<svg viewBox="0 0 {GRID} {GRID}" preserveAspectRatio="none" aria-hidden="true">'
        f"{''.join(_frame(number, defect) for number, defect in frames)}</svg>{tags}</div>"
        f"{legend() if ranked else ''}</figure>"
    )


def legend() -> str:
    """What the frames mean, in shape and words as well as in colour."""
    return (
        '<figcaption class="sdg-legend"><span><i class="sdg-swatch artifact"></i><b>Artifact</b> a flaw in the '
        'picture, whatever the caption says</span><span><i class="sdg-swatch misalignment"></i><b>Misalignment</b> '
        "contradicts the caption</span></figcaption>"
    )


def table(found: DefectSet, doubted: bool = False) -> str:
    """The defects from the most important to the least, numbered as on the picture, and the filters above them."""
    if not found:
        return ""
    rows = "".join(_row(number, defect) for number, defect in enumerate(found.by_importance(), start=1))
    heads = "".join(f'<th role="columnheader" scope="col">{name}</th>' for name in COLUMNS)
    # The roles are said again, because a table that is laid out as cards is none to every screen reader.
    return (
        f'{filters(found)}<table class="sdg-table{" doubted" * doubted}" role="table" aria-label="Defects, the most '
        'important first. A row in focus marks its frame on the picture; Enter keeps it marked.">'
        f'<thead class="sdg-unseen" role="rowgroup"><tr role="row">{heads}</tr></thead>'
        f'<tbody role="rowgroup">{rows}</tbody></table>'
        '<p class="sdg-none" hidden>The filters hide every defect: lower them to see more.</p>'
    )


def filters(found: DefectSet) -> str:
    """Sliders that hide the less important and the less sure defects; none where there is nothing to tell apart."""
    sliders = ""
    if any(defect.importance is not None for defect in found):
        sliders += _slider("importance", "Importance from", 1, 100, 1, "1")
    if any(defect.confidence is not None for defect in found):
        sliders += _slider("confidence", "Confidence from", 0, 1, 0.01, "0 %")
    return (
        f'<div class="sdg-filters" role="group" aria-label="Which defects are shown">{sliders}'
        f'<p class="sdg-shown" role="status" aria-live="polite">{len(found)} of {len(found)} shown</p></div>'
    )


def as_json(found: DefectSet | Mapping[str, Any]) -> str:
    """A set, or JSON values that hold some, as indented JSON text; lists of numbers, as boxes are, on one line."""
    data = found.to_json() if isinstance(found, DefectSet) else found
    text = json.dumps(data, ensure_ascii=False, indent=2)
    # Only what indenting has spread over lines: text that the model wrote stands there as it is.
    spread = re.compile(r"\[\n\s*(-?\d+(?:,\n\s*-?\d+)*)\n\s*\]")
    return spread.sub(lambda found: f"[{' '.join(found[1].split())}]", text)


def data_address(image: Image.Image) -> str:
    """The picture as a data address, so that nobody else can ask the page for it."""
    small = max(image.size) <= LOSSLESS
    buffer = io.BytesIO()
    if small:
        image.save(buffer, format="PNG")
    else:
        image.save(buffer, format="JPEG", quality=90)
    return f"data:image/{'png' if small else 'jpeg'};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _area(defect: Defect) -> int:
    x0, y0, x1, y1 = defect.box
    return (x1 - x0) * (y1 - y0)


def _weights(number: int, defect: Defect) -> str:
    """What ``page.js`` ties and filters by; a missing importance counts as 100, as in the order of the table."""
    importance = 100 if defect.importance is None else defect.importance
    sure = "" if defect.confidence is None else f' data-confidence="{defect.confidence:.4f}"'
    return f'data-defect="{number}" data-importance="{importance}"{sure}'


def _frame(number: int, defect: Defect) -> str:
    x0, y0, x1, y1 = defect.box
    rect = f'<rect x="{x0}" y="{y0}" width="{x1 - x0}" height="{y1 - y0}"'
    return f'<g class="{defect.type.value}" {_weights(number, defect)}>{rect}/>{rect} class="line"/></g>'


def _tag(number: int, defect: Defect, placed: list[tuple[int, int, int, int]]) -> str:
    box = place(defect.box, TAG, (GRID, GRID), placed)
    placed.append(box)
    return (
        f'<span class="sdg-tag {defect.type.value}" {_weights(number, defect)} aria-hidden="true" '
        f'style="left:{box[0] / GRID:.1%};top:{box[1] / GRID:.1%}">{number}</span>'
    )


def _slider(name: str, label: str, low: int, high: int, step: float, said: str) -> str:
    return (
        f'<label class="sdg-slider"><span>{label}</span><input type="range" min="{low}" max="{high}" step="{step}" '
        f'value="{low}" data-filter="{name}" autocomplete="off"><output>{said}</output></label>'
    )


def _row(number: int, defect: Defect) -> str:
    kind = defect.type.value
    reason = escape(defect.reason) or '<span class="sdg-faint">no reason given</span>'
    if defect.confidence is not None:
        sure = "above 99" if defect.confidence > 0.99 else f"{100 * defect.confidence:.0f}"  # 100 % would be a claim
        reason += f' <span class="sdg-faint">Confidence {sure} %.</span>'
    if defect.importance is None:
        importance = '<span class="sdg-faint">not given</span>'
    else:
        importance = (
            f'<span class="sdg-tier {defect.tier}">{defect.tier}</span><span class="sdg-score">{defect.importance}'
            f'<i class="sdg-bar"><i style="width:{defect.importance}%"></i></i></span>'
        )
    return (
        f'<tr class="{kind}" role="row" tabindex="0" {_weights(number, defect)}>'
        f'<td class="sdg-number" role="cell"><span>{number}</span></td>'
        f'<td class="sdg-type" role="cell"><i class="sdg-swatch {kind}"></i>{NAMES[defect.type]}</td>'
        f'<td class="sdg-box" role="cell" title="x0, y0, x1, y1 on a grid of 1000 by 1000 over the picture">'
        f"{', '.join(map(str, defect.box))}</td>"
        f'<td class="sdg-reason" role="cell">{reason}</td><td class="sdg-importance" role="cell">{importance}</td></tr>'
    )
