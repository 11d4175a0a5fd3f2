"""Fragments of the page as HTML text: pure functions of defects and words, everything from outside escaped."""

from __future__ import annotations

import json
from html import escape

from sdg.calibration import outside_sentence
from sdg.defects import Defect, DefectSet, DefectType
from sdg.detector import FULL_MODEL

NAMES = {DefectType.ARTIFACT: "Artifact", DefectType.MISALIGNMENT: "Misalignment"}

ICONS = {
    "found": "M12 8v5m0 3v.5M10.3 4.3 2.9 17a2 2 0 0 0 1.7 3h14.8a2 2 0 0 0 1.7-3L13.7 4.3a2 2 0 0 0-3.4 0Z",
    "clean": "M8 12.5l2.8 2.8L16.2 9.5M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18Z",
    "unread": "M9.5 9.2a2.6 2.6 0 1 1 3.7 2.5c-.8.4-1.2 1-1.2 1.9m0 2.6v.3M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18Z",
    "failed": "M9 9l6 6m0-6l-6 6M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18Z",
    "idle": "M4 8V5a1 1 0 0 1 1-1h3m8 0h3a1 1 0 0 1 1 1v3m0 8v3a1 1 0 0 1-1 1h-3m-8 0H5a1 1 0 0 1-1-1v-3",
    "scored": "M4 20V10m5.3 10V4m5.4 16v-7M20 20V8",
    "busy": "M12 3a9 9 0 1 1-9 9",
    "notice": "M12 11v5m0-8.5v.3M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18Z",
}


def icon(name: str) -> str:
    """A line drawing of :data:`ICONS` in the colour of the text round it; hidden from screen readers."""
    return (
        '<svg class="sdg-icon" viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="1.8" '
        f'stroke-linecap="round" stroke-linejoin="round" aria-hidden="true"><path d="{ICONS[name]}"/></svg>'
    )


def header(model: str, made_for: str) -> str:
    """The top of the page: what this is, and which model answers here."""
    return (
        '<header class="sdg-header"><div class="sdg-brand">'
        '<svg class="sdg-mark" viewBox="0 0 32 32" aria-hidden="true"><rect x="3" y="3" width="17" height="17" rx="2" '
        'class="a"/><rect x="12" y="12" width="17" height="17" rx="2" class="m"/></svg>'
        "<div><h1>Structured Defect Grounding</h1>"
        "<p>Where a generated picture fails, what is wrong, why, and how much it matters.</p></div></div>"
        f'<div class="sdg-served"><span>Model</span><b>{escape(model)}</b><p>{escape(made_for)}</p></div></header>'
    )


def notice(text: str) -> str:
    """A plain remark above the tabs; ``text`` may hold `code` in backticks."""
    parts = escape(text, quote=False).split("`")
    words = "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts))
    return f'<aside class="sdg-notice" role="note">{icon("notice")}<p>{words}</p></aside>'


def legend() -> str:
    """What the frames mean, in shape and words as well as in colour."""
    return (
        '<div class="sdg-legend"><span><i class="sdg-swatch artifact"></i><b>Artifact</b> a flaw in the picture, '
        'whatever the caption says</span><span><i class="sdg-swatch misalignment"></i><b>Misalignment</b> '
        "contradicts the caption</span></div>"
    )


def verdict(state: str, headline: str, detail: str = "") -> str:
    """The one line that says how it went; each state of :data:`ICONS` has its own colour, icon and words."""
    return (
        f'<div class="sdg-verdict {state}" data-state="{state}" role="status" aria-live="polite">{icon(state)}'
        f"<div><b>{escape(headline)}</b><p>{escape(detail)}</p></div></div>"
    )


def verdict_on(found: DefectSet) -> str:
    """The verdict on an answer. An answer that could not be read is never shown as a clean picture."""
    if found.parse_error:
        return verdict(
            "unread",
            "The answer could not be read",
            f"This is a failure of the model, not a clean picture: {found.parse_error}",
        )
    seconds = found.info.get("seconds")
    took = f" Answered in {seconds:.1f} s." if isinstance(seconds, int | float) else ""
    if not found:
        return verdict("clean", "No defect found", f"The model looked at the picture and reports nothing.{took}")
    counts = [
        f"{len(group)} {name}{'s' if len(group) > 1 else ''}"
        for group, name in ((found.artifacts, "artifact"), (found.misalignments, "misalignment"))
        if group
    ]
    worst = found.by_importance()[0]
    rank = f" The most important one is {worst.tier}." if worst.tier else ""
    return verdict(
        "found", f"{len(found)} defect{'s' if len(found) > 1 else ''}", f"{' and '.join(counts)}.{rank}{took}"
    )


def outside(found: DefectSet) -> str:
    """The remark under the verdict on a picture from outside the model's world; empty for any other."""
    sentence = outside_sentence(found)
    return "" if sentence is None else notice(f"{sentence} `{FULL_MODEL}` is made for pictures of any kind.")


def reasoning(text: str, state: str = "done") -> str:
    """The model's own words while they come (``state="writing"``) or as they were (``"done"``, ``"raw"``)."""
    titles = {"writing": "Reasoning", "done": "Reasoning", "raw": "What the model wrote"}
    body = escape(text.strip()) or '<span class="sdg-faint">The model gave no reasoning.</span>'
    if state == "writing" and not text.strip():
        body = ""
    caret = '<i class="sdg-caret"></i>' if state == "writing" else ""
    return (
        f'<section class="sdg-reasoning {state}"><h3>{titles[state]}</h3>'
        f'<div class="sdg-words" tabindex="0">{body}{caret}</div></section>'
    )


def table(found: DefectSet) -> str:
    """The defects from the most important to the least, numbered as on the picture."""
    if not found:
        return ""
    rows = "".join(_row(number, defect) for number, defect in enumerate(found.by_importance(), start=1))
    return (
        '<table class="sdg-table"><thead><tr><th scope="col">#</th><th scope="col">Type</th>'
        '<th scope="col">What is wrong</th><th scope="col">Importance</th>'
        '<th scope="col"><abbr title="x0, y0, x1, y1 on a grid of 1000 by 1000 over the picture">Box</abbr></th>'
        f"</tr></thead><tbody>{rows}</tbody></table>"
    )


def as_json(found: DefectSet) -> str:
    """The set as indented JSON text, boxes on one line."""
    data = found.to_json()
    text = json.dumps(data, ensure_ascii=False, indent=2)
    for defect in data["defects"]:
        spread = json.dumps(defect["box"], indent=2).replace("\n", "\n      ")
        text = text.replace(spread, json.dumps(defect["box"]))
    return text


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
        f'<tr class="{kind}"><td class="sdg-number"><span>{number}</span></td>'
        f'<td class="sdg-type"><i class="sdg-swatch {kind}"></i>{NAMES[defect.type]}</td>'
        f'<td class="sdg-reason">{reason}</td><td class="sdg-importance">{importance}</td>'
        f'<td class="sdg-box">{", ".join(map(str, defect.box))}</td></tr>'
    )
