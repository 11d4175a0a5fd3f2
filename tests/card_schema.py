"""What the Hub asks of the head of a card, as far as its documentation says it: enough to refuse a wrong one."""

from __future__ import annotations

import re
from typing import Any

import yaml

LICENSES = {"apache-2.0", "mit", "cc-by-4.0", "cc-by-nc-4.0", "other"}
TASKS = {"image-text-to-text", "object-detection", "text-to-image"}
SIZES = {"n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B"}
CREATORS = {"found", "crowdsourced", "expert-generated", "machine-generated", "no-annotation", "other"}
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
RELATIONS = {"finetune", "adapter", "merge", "quantized"}
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def wrong(content: str, repo_type: str | None = "model") -> list[str]:
    """What is wrong with a card; nothing where the Hub would take it."""
    found = re.match(r"---\n(.*?)\n---\n", content, re.S)
    if found is None:
        return ["there is no head"]
    head = yaml.safe_load(found[1])
    if not isinstance(head, dict):
        return ["the head is no mapping"]
    said = []
    said += [f'"{name}" is required' for name in ("license",) if not head.get(name)]
    said += _of("license", _listed(head, "license"), LICENSES)
    if head.get("license") == "other" and not (head.get("license_name") and head.get("license_link")):
        said.append('"license_name" and "license_link" are required with license: other')
    for name in ("tags", "datasets", "metrics", "language", "base_model", "task_categories", "models"):
        said += [f'"{name}" must hold text: {value!r}' for value in _listed(head, name) if not isinstance(value, str)]
    said += [f'"language" must be a code: {code}' for code in _listed(head, "language") if not 2 <= len(code) <= 3]
    for name in ("datasets", "base_model", "models"):
        said += [f'"{name}" must be owner/name: {i}' for i in _listed(head, name) if not HUB_ID.fullmatch(str(i))]
    said += _of("pipeline_tag", _listed(head, "pipeline_tag"), TASKS)
    said += _of("base_model_relation", _listed(head, "base_model_relation"), RELATIONS)
    said += {"dataset": _dataset, "space": _space}.get(repo_type or "model", _model)(head)
    return said


def _model(head: dict[str, Any]) -> list[str]:
    said = []
    for model in head.get("model-index", []):
        said += [] if model.get("name") else ['"model-index[0].name" is required']
        for result in model.get("results", [{}]):
            said += [f'"model-index: {n}.type" is required' for n in ("task", "dataset") if not result[n].get("type")]
            said += [] if result["dataset"].get("name") else ['"model-index: dataset.name" is required']
            for metric in result["metrics"]:
                said += [] if metric.get("type") else ['"model-index: metrics.type" is required']
                said += [] if isinstance(metric.get("value"), int | float) else ['"model-index: value" is no number']
    return said


def _dataset(head: dict[str, Any]) -> list[str]:
    said = _of("size_categories", _listed(head, "size_categories"), SIZES)
    said += _of("task_categories", _listed(head, "task_categories"), TASKS)
    for name in ("annotations_creators", "language_creators"):
        said += _of(name, _listed(head, name), CREATORS)
    for config in head.get("configs", []):
        said += [] if config.get("config_name") else ['"configs: config_name" is required']
        said += [f"no path in {file}" for file in config["data_files"] if not (file.get("split") and file.get("path"))]
    return said


def _space(head: dict[str, Any]) -> list[str]:
    said = [f'"{name}" is required' for name in ("sdk",) if not head.get(name)]
    said += _of("sdk", _listed(head, "sdk"), {"gradio", "docker", "static"})
    for name in ("colorFrom", "colorTo"):
        said += _of(name, _listed(head, name), COLOURS)
    short = head.get("short_description", "")
    return said + ([f'"short_description" has {len(short)} characters, more than 60'] if len(short) > 60 else [])


def _listed(head: dict[str, Any], name: str) -> list[Any]:
    value = head.get(name)
    return [] if value is None else value if isinstance(value, list) else [value]


def _of(name: str, values: list[Any], known: set[str]) -> list[str]:
    return [f'"{name}" must be one of {", ".join(sorted(known))}: {v!r}' for v in values if v not in known]
