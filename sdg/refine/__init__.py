"""Repairs that touch only what is broken: detect, edit, detect again, and keep an edit only where it is better."""

from sdg.refine.editors import EditError, Editor, Task
from sdg.refine.feedback import Feedback
from sdg.refine.refiner import DefectRefiner
from sdg.refine.results import Candidate, Refinement, Step, load

__all__ = ["Candidate", "DefectRefiner", "EditError", "Editor", "Feedback", "Refinement", "Step", "Task", "load"]
