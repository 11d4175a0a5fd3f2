"""Structured Defect Grounding for text-to-image models: where, what, why and how much a picture fails.

Importing this package is light: torch, transformers and gradio are loaded by the names that need them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "BoxFlowGRPOConfig": "sdg.boxflow.config",
    "BoxFlowGRPOTrainer": "sdg.boxflow.trainer",
    "Defect": "sdg.defects",
    "DefectRefiner": "sdg.refine",
    "DefectSet": "sdg.defects",
    "DefectType": "sdg.defects",
    "DetectorReward": "sdg.rewards",
    "parse_response": "sdg.response",
    "render_response": "sdg.response",
    "ResponseFormatError": "sdg.response",
    "SDGDetector": "sdg.detector",
    "SDGEval": "sdg.evaluation",
}

__all__ = [
    "BoxFlowGRPOConfig",
    "BoxFlowGRPOTrainer",
    "Defect",
    "DefectRefiner",
    "DefectSet",
    "DefectType",
    "DetectorReward",
    "ResponseFormatError",
    "SDGDetector",
    "SDGEval",
    "parse_response",
    "render_response",
]

if TYPE_CHECKING:
    from sdg.boxflow.config import BoxFlowGRPOConfig
    from sdg.boxflow.trainer import BoxFlowGRPOTrainer
    from sdg.defects import Defect, DefectSet, DefectType
    from sdg.detector import SDGDetector
    from sdg.evaluation import SDGEval
    from sdg.refine import DefectRefiner
    from sdg.response import ResponseFormatError, parse_response, render_response
    from sdg.rewards import DetectorReward


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(import_module(_HOME[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'sdg' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
