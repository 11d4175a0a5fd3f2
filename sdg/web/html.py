"""Fragments of the page as HTML text: pure functions of defects and words, everything from outside escaped."""

from __future__ import annotations

from html import escape

from sdg.calibration import outside_sentence
from sdg.defects import DefectSet, DefectType
from sdg.detector import FULL_MODEL

NAMES = {DefectType.ARTIFACT: "Artifact", DefectType.MISALIGNMENT: "Misalignment"}

ICONS = {
    "found": "M12 8v5m0 3v.5M10.3 4.3 2.9 17a2 2 0 0 0 1.7 3h14.8a2 2 0 0 0 1.7-3L13.7 4.3a2 2 0 0 0-3.4 0Z",
    "clean": "M8 12.5l2.8 2.8L16.2 9.5M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18Z",
    "unread": "M9.5 9.2a2.6 2.6 0 1 1 3.7 2.5c-.8.4-1.2 1-1.2 1.9m0 2.6v.3M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18Z",
    "outside": "M3 12a9 9 0 0 1 14.5-7.1M21 12a9 9 0 0 1-14.5 7.1M14 3h5v5M10 21H5v-5M12 8v4.5m0 3v.3",
    "better": "M4 7l5 5 3.5-3.5L20 16m0-5.5V16h-5.5",
    "same": "M5 9.5h14M5 14.5h14",
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


def header() -> str:
    """The top of the page: what this is."""
    return (
        '<header class="sdg-header"><div class="sdg-brand">'
        '<svg class="sdg-mark" viewBox="0 0 32 32" aria-hidden="true"><rect x="3" y="3" width="17" height="17" rx="2" '
        'class="a"/><rect x="12" y="12" width="17" height="17" rx="2" class="m"/></svg>'
        "<div><h1>Structured Defect Grounding</h1>"
        "<p>Where a generated picture fails, what is wrong, why, and how much it matters.</p></div></div></header>"
    )


def served(model: str, made_for: str, state: str = "ready") -> str:
    """Which model answers, and what it was made for; ``state="loading"`` while it is on its way."""
    spin = icon("busy") if state == "loading" else ""
    return (
        f'<div class="sdg-served {state}" role="status" aria-live="polite"><span>Model</span> '
        f"<b>{escape(model)}</b>{spin}<p>{escape(made_for)}</p></div>"
    )


def waiting(ahead: int) -> str:
    """A visitor waits in the line.

    Args:
        ahead: requests that are before.
    """
    line = "" if not ahead else f"{ahead} request{'s are' if ahead > 1 else ' is'} before yours; your turn comes."
    return verdict("busy", "Waiting", line)


def notice(text: str) -> str:
    """A plain remark above the tabs; ``text`` may hold `code` in backticks."""
    return f'<aside class="sdg-notice" role="note">{icon("notice")}<p>{_with_code(text)}</p></aside>'


def _with_code(text: str) -> str:
    """Escaped, with what stands in backticks as code."""
    parts = escape(text, quote=False).split("`")
    return "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts))


def verdict(state: str, headline: str, detail: str = "", below: str = "") -> str:
    """The one line that says how it went; each state of :data:`ICONS` has its own colour, icon and words.

    Args:
        state: of :data:`ICONS`.
        headline: what happened.
        detail: one or two sentences more; may hold `code` in backticks.
        below: HTML under them.
    """
    return (
        f'<div class="sdg-verdict {state}" data-state="{state}" role="status" aria-live="polite">{icon(state)}'
        f"<div><b>{escape(headline)}</b><p>{_with_code(detail)}</p></div>{below}</div>"
    )


def verdict_on(found: DefectSet, so: str = "") -> str:
    """The verdict on an answer.

    An answer that could not be read is never shown as a clean picture, and one on a picture from outside the model's
    world never as a finding.

    Args:
        found: the answer.
        so: what follows where it is of no use, in a sentence.
    """
    strange, so = outside_sentence(found), so and f" {so}"
    if found.parse_error:
        also = f" {strange}" if strange else ""
        return verdict(
            "unread",
            "The answer could not be read",
            f"This is a failure of the model, not a clean picture: {found.parse_error.rstrip('.')}.{also}{so}",
        )
    if strange:
        said = f"reports {_count(len(found), 'defect')}" if found else "reports no defect"
        return verdict(
            "outside",
            "This picture is outside this model's world",
            f"{strange} It {said}. `{FULL_MODEL}` is made for pictures of any kind.{so}",
        )
    seconds = found.info.get("seconds")
    took = f" Answered in {seconds:.1f} s." if isinstance(seconds, int | float) else ""
    if not found:
        return verdict("clean", "No defect found", f"The model looked at the picture and reports nothing.{took}")
    counts = [
        _count(len(group), name)
        for group, name in ((found.artifacts, "artifact"), (found.misalignments, "misalignment"))
        if group
    ]
    worst = found.by_importance()[0]
    rank = f" The most important one is {worst.tier}." if worst.tier else ""
    return verdict("found", _count(len(found), "defect"), f"{' and '.join(counts)}.{rank}{took}")


def _count(n: int, name: str) -> str:
    return f"{n} {name}{'s' * (n != 1)}"


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
