"""Fragments of the Refine tab: how it works, how it went, what became of each defect, and every step.

An edit is kept because the detector finds less wrong after it. Nothing here says more than that.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from sdg.calibration import outside_sentence
from sdg.defects import Defect, DefectSet
from sdg.matching import match
from sdg.refine import Refinement, Step, load
from sdg.web import html

SAME = 0.1
"""IoU from which a defect after an edit is taken for the one before it: the laxer threshold of SDG-Eval."""


def idle(local: bool, headline: str = "Ready") -> str:
    """What the tab says before anything was asked: what will happen, in three steps.

    Args:
        local: the editor leaves what lies outside the frames as it is, to the bit.
        headline: where it stands.
    """
    drawn = "inside those frames only" if local else "from an instruction that names them"
    steps = (
        ("Look", "The model frames what is wrong with the picture."),
        ("Redraw", f"The editor makes several candidates, {drawn}."),
        ("Look again", "A candidate is kept only if the model finds clearly less wrong. If none is, nothing changes."),
    )
    items = "".join(f"<li><b>{head}</b><span>{words}</span></li>" for head, words in steps)
    return html.verdict(
        "idle", headline, "Click an example, or choose a picture and press Repair.", f'<ol class="sdg-how">{items}</ol>'
    )


def told(found: DefectSet) -> str:
    """A sentence on what there is to repair."""
    count = len(found)
    return f"{count} defect{'s' if count != 1 else ''} found. The editor makes candidates, the model looks at each."


def verdict_on(refinement: Refinement) -> str:
    """How it went; each of better, nothing to repair, unreadable, out of the model's world and unchanged looks its own.

    Args:
        refinement: whose judge is the detector, which the words say.
    """
    before, after = refinement.before, refinement.after
    if refinement.changed:
        weights = f"defect load {load(before):.2f} → {load(after):.2f}"
        return html.verdict(
            "better",
            "The model finds less wrong now",
            f"{_many(before)} before, {_many(after)} after; {weights}. That is the model's own judgement: compare the "
            "two halves.",
        )
    if before.parse_error or outside_sentence(before):
        return html.verdict_on(before, "Nothing was changed.")
    if not before:
        return html.verdict("clean", "Nothing to repair", "No defect found: the picture is as it was, to the bit.")
    return html.verdict("same", "Left as it was", _why_not(refinement))


def fates(before: DefectSet, after: DefectSet | None = None) -> str:
    """What was found, numbered as on the picture, and with ``after`` what the model still finds of it, and anew."""
    if not before and not after:
        return ""
    kept = {} if after is None else {j: i for i, j, iou in match(after, before, by="iou") if iou >= SAME}
    items = ""
    for number, defect in enumerate(before.by_importance(), start=1):
        fate = "" if after is None else "left" if before.defects.index(defect) in kept else "gone"
        items += _fate(str(number), defect, fate)
    fresh = [] if after is None else [d for i, d in enumerate(after) if i not in kept.values()]
    items += "".join(_fate("+", defect, "new") for defect in fresh)
    return f'<section class="sdg-fates"><h3>What the model found</h3><ul>{items}</ul></section>'


def facts(refinement: Refinement, detector: str) -> str:
    """What it takes to get the same picture again."""
    said = refinement.settings
    return (
        f'<p class="sdg-facts">Seed <b>{said["seed"]}</b> · found by <b>{escape(detector)}</b> · edited by '
        f"<b>{escape(str(said['editor']))}</b></p>"
    )


def steps_of(steps: Sequence[Step], finished: bool = True) -> str:
    """The steps, folded once it is finished: defects, what was kept and why, the load of every candidate."""
    if not steps:
        return ""
    items = "".join(_step(number, step) for number, step in enumerate(steps, start=1))
    fold = "" if finished else " open"
    return f'<details class="sdg-steps"{fold}><summary>Step by step ({len(steps)})</summary><ol>{items}</ol></details>'


def _why_not(refinement: Refinement) -> str:
    """Why nothing was changed although there are defects."""
    steps, said = refinement.steps, refinement.settings
    if not steps:
        types = said["types"]
        if not any(defect.type.value in types for defect in refinement.before):
            can = " and ".join(f"{kind}s" for kind in types)
            return f"{_many(refinement.before)} found, but this editor repairs {can} only."
        return (
            f"{_many(refinement.before)} found, none of which counts as important and sure enough (importance from "
            f"{said['min_importance']}, confidence from {100 * said['min_confidence']:.0f} %). The options change that."
        )
    tried = [candidate for step in steps for candidate in step.candidates]
    # One of those that differ in their figures only.
    refused = {re.sub(r"[\d.]+", "", c.refused): c.refused for c in reversed(tried) if c.refused and c.load is None}
    parts = []
    looked = [(c.load - load(step.found), c) for step in steps for c in step.candidates if c.load is not None]
    if looked:
        _, best = min(looked, key=lambda one: one[0])
        several = "s" * (len(looked) != 1)
        parts.append(f"The model looked at {len(looked)} candidate{several} and took none. The best: {best.refused}.")
    if refused:
        reasons = "; ".join(list(refused.values())[:3])
        parts.append(f"{len(tried) - len(looked)} of {len(tried)} candidates could not be used: {reasons}.")
    return " ".join([*parts, "Another seed gives other candidates."])


def _many(found: DefectSet) -> str:
    return f"{len(found)} defect{'s' if len(found) != 1 else ''}" if found else "none"


def _fate(number: str, defect: Defect, fate: str) -> str:
    kind = defect.type.value
    words = {"gone": "no longer found", "left": "still found", "new": "new", "": ""}[fate]
    state = f'<span class="sdg-fate-state">{words}</span>' if words else ""
    # Without `after` the list stands beside a picture with frames, to which page.js ties it.
    tie = "" if fate else f' data-defect="{number}" tabindex="0"'
    return (
        f'<li class="sdg-fate {kind} {fate}"{tie}><span class="sdg-number"><span>{number}</span></span>'
        f"<span>{_words(defect)}</span>{state}</li>"
    )


def _words(defect: Defect) -> str:
    reason = escape(defect.reason) or "no reason given"
    tier = f' <span class="sdg-tier {defect.tier}">{defect.tier}</span>' if defect.tier else ""
    swatch = f'<i class="sdg-swatch {defect.type.value}" aria-hidden="true"></i>'
    return f"{swatch}<b>{html.NAMES[defect.type]}</b> {reason}{tier}"


def _step(number: int, step: Step) -> str:
    kept = step.chosen is not None
    what = "".join(f"<li>{_words(defect)}</li>" for defect in step.defects)
    tries = "".join(
        f'<li class="{"kept" if i == step.chosen else "refused"}" title="{escape(c.refused or "kept")}">'
        f"{'–' if c.load is None else f'{c.load:.2f}'}</li>"
        for i, c in enumerate(step.candidates)
    )
    many = len(step.candidates)
    loads = (
        f'<p class="sdg-faint">Defect load of {many} candidate{"s" * (many != 1)}; {load(step.found):.2f} before:</p>'
        f'<ul class="sdg-tries">{tries}</ul>'
        if any(candidate.load is not None for candidate in step.candidates)
        else ""
    )
    return (
        f'<li class="sdg-step {"kept" if kept else "refused"}"><p class="sdg-step-head"><b>Step {number}</b>'
        f'<span class="sdg-step-state">{"✓ kept" if kept else "left as it was"}</span></p><ul>{what}</ul>'
        f'<p class="sdg-faint">{escape(_capital(step.reason))}.</p>{loads}</li>'
    )


def _capital(sentence: str) -> str:
    return f"{sentence[:1].upper()}{sentence[1:]}"
