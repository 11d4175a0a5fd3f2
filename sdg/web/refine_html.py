"""Fragments of the Refine tab: what each step was about, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from sdg.defects import Defect, DefectSet
from sdg.refine import Step, load
from sdg.web.html import NAMES


def told(found: DefectSet) -> str:
    """A sentence on what there is to repair."""
    count = len(found)
    return f"{count} defect{'s' if count != 1 else ''} found. The editor makes candidates, the model looks at each."


def steps_of(steps: Sequence[Step]) -> str:
    """The steps as a list; each names its defects, says whether it helped, and shows the load of its candidates."""
    if not steps:
        return ""
    items = "".join(_step(number, step) for number, step in enumerate(steps, start=1))
    return f'<section class="sdg-steps"><h3>Steps</h3><ol>{items}</ol></section>'


def _step(number: int, step: Step) -> str:
    kept = step.chosen is not None
    what = "".join(_defect(defect) for defect in step.defects)
    tries = "".join(
        f'<li class="{"kept" if i == step.chosen else "refused"}" title="{escape(c.refused or "kept")}">'
        f"{'–' if c.load is None else f'{c.load:.2f}'}</li>"
        for i, c in enumerate(step.candidates)
    )
    label = f"Load of {len(step.candidates)} candidates, {load(step.found):.2f} before"
    return (
        f'<li class="sdg-step {"kept" if kept else "refused"}"><p class="sdg-step-head"><b>Step {number}</b>'
        f'<span class="sdg-step-state">{"✓ repaired" if kept else "left as it was"}</span></p><ul>{what}</ul>'
        f'<p class="sdg-faint">{escape(step.reason)}</p>'
        f'<ul class="sdg-tries" aria-label="{label}">{tries}</ul></li>'
    )


def _defect(defect: Defect) -> str:
    kind = defect.type.value
    reason = escape(defect.reason) or "no reason given"
    tier = f' <span class="sdg-tier {defect.tier}">{defect.tier}</span>' if defect.tier else ""
    return f'<li><i class="sdg-swatch {kind}" role="img" aria-label="{NAMES[defect.type]}"></i>{reason}{tier}</li>'
