"""Cards: what a model, an adapter or a data set says of itself on the Hub.

A card is written from a template with what is known: the files beside the weights, the recipe, a file of measured
results. What is not known is left out or said to be so; no figure is made up.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sdg.cards.recipe import RECIPE_FILE, read_recipe, write_recipe
from sdg.cards.results import Results, eval_results, read_results
from sdg.upload import FROM_NOTHING

if TYPE_CHECKING:
    from huggingface_hub import CardData

__all__ = [
    "BOXES",
    "RECIPE_FILE",
    "About",
    "Results",
    "Subject",
    "card_files",
    "eval_results",
    "read_recipe",
    "read_results",
    "render",
    "size_category",
    "write_card",
    "write_recipe",
]

Subject = Literal["detector", "lora", "generator", "dataset"]
"""What templates there are for things of other people; ``generator`` is a transformer that a recipe belongs to."""

BOXES = (
    "Boxes are `x0, y0, x1, y1` in whole numbers on a grid of 0 to 1000 relative to the picture: x to the right, y\n"
    "down, 1000 is its full width or height."
)
"""The one convention of boxes, as every card says it."""

TEMPLATES = Path(__file__).parent / "templates"
CARD = "README.md"
EVAL_RESULTS = ".eval_results/sdg-eval.yaml"

PLACE = "OWNER/NAME"
"""What stands in cards of this library for where they will lie."""

UNFILLED = ("# Model Card for Model ID", "[More Information Needed]")
"""What stands in the cards that training libraries leave behind, which say nothing."""

TAGS = {
    "detector": ["text-to-image", "evaluation", "defect-detection", "visual-grounding"],
    "lora": ["text-to-image", "diffusers", "lora"],
    "generator": ["text-to-image"],
    "dataset": ["text-to-image", "evaluation", "defect-detection"],
}


@dataclass(frozen=True)
class About:
    """What somebody says of what they publish, because no file beside it does.

    Args:
        license: an identifier of the Hub, such as ``"apache-2.0"``; with ``license_link`` any name.
        license_link: address of a licence that the Hub has no identifier for.
        base_model: Hub id of what it was trained from, where the recipe or the adapter names none.
        dataset: Hub id of the data set that it was trained on.
        measured_on: Hub id of the data set that its figures were measured on.
        results: file of ``sdg eval --json`` or ``benchmarks/detector_quality.py``.
    """

    license: str | None = None
    license_link: str | None = None
    base_model: str | None = None
    dataset: str | None = None
    measured_on: str | None = None
    results: str | os.PathLike[str] | None = None

    @property
    def said(self) -> dict[str, str]:
        """What is said, but for the data sets, by the name of its option."""
        names = ("license", "license_link", "base_model", "results")
        return {name: os.fspath(value) for name in names if (value := getattr(self, name)) is not None}


def card_files(
    folder: str | os.PathLike[str],
    subject: Subject,
    repo_id: str,
    about: About | None = None,
    counts: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """What belongs beside a folder's files on the Hub: its card, where it has none, and measured results.

    A card that a training library left unfilled counts as none. Without a licence no card is written: nobody but the
    owner knows it.

    Args:
        folder: of weights or data.
        subject: what it holds.
        repo_id: ``"owner/name"``.
        about: what no file says.
        counts: for a data set, what :meth:`sdg.statistics.Statistics.to_json` counted in it.

    Returns:
        text by path in the repository; empty where the folder's own card says all.

    Raises:
        ValueError: for a file of results, a recipe or a card that cannot be read, and for details that the folder's own
            card tells already.
        OSError: where the file of results cannot be opened.
    """
    from huggingface_hub import DatasetCard, ModelCard

    about = about or About()
    card: Any = None
    own = Path(folder, CARD)
    text = own.read_text(encoding="utf-8") if own.is_file() else None
    if text is not None and not any(words in text for words in UNFILLED):
        if about.said:
            raise ValueError(
                f"README.md, the card, is there: write {', '.join(about.said)} into it, or take it away and have"
                " another one made"
            )
        if about == About() and PLACE not in text:
            return {}
        card = (DatasetCard if subject == "dataset" else ModelCard)(text.replace(PLACE, repo_id))
        if about.dataset is not None:
            card.data.datasets = list(dict.fromkeys([*(card.data.get("datasets") or []), about.dataset]))
    elif about.license is None or (subject == "dataset" and counts is None):
        return {}
    else:
        results = None if about.results is None else read_results(about.results)
        data, values = _known(Path(folder), subject, repo_id, about, results, counts)
        card = render(subject, data, **values)
    if about.measured_on is None:
        return {CARD: str(card)}
    entries = card.data.get("eval_results")
    if not entries:
        raise ValueError(
            f"measured_on={about.measured_on!r}, and there is no figure: name a file of results, or give the card a"
            " model-index"
        )
    return {CARD: str(card), EVAL_RESULTS: eval_results(entries, about.measured_on)}


def write_card(
    folder: str | os.PathLike[str],
    beside: str | os.PathLike[str],
    subject: Subject,
    repo_id: str,
    about: About | None = None,
    counts: Mapping[str, Any] | None = None,
) -> None:
    """Write what :func:`card_files` says into a folder, which may be the same one."""
    for path, text in card_files(folder, subject, repo_id, about, counts).items():
        place = Path(beside, path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text.rstrip("\n") + "\n", encoding="utf-8")


def render(template: str, data: CardData, **values: Any) -> Any:
    """A card from a template, as an object of huggingface_hub's card classes.

    Args:
        template: name of a file in ``model_cards/templates``, without its ending.
        data: the head.
        **values: what the template asks for.
    """
    from huggingface_hub import DatasetCard, DatasetCardData, ModelCard

    card_class: Any = DatasetCard if isinstance(data, DatasetCardData) else ModelCard
    return card_class.from_template(data, template_path=str(TEMPLATES / f"{template}.md"), boxes=BOXES, **values)


def size_category(n: int) -> str:
    """The Hub's name for the size of a data set of ``n`` rows."""
    if n < 1000:
        return "n<1K"
    steps = ("1K", "10K", "100K", "1M", "10M", "100M", "1B")
    low = min(len(str(n)) - 4, len(steps) - 2)
    return f"{steps[low]}<n<{steps[low + 1]}"


def _known(
    folder: Path, subject: Subject, repo_id: str, about: About, results: Results | None, counts: Any
) -> tuple[CardData, dict[str, Any]]:
    """The head of a card, and what its template asks for."""
    from huggingface_hub import DatasetCardData, ModelCardData

    name = repo_id.split("/")[-1]
    known: dict[str, Any] = {"license": about.license, "language": "en", "tags": list(TAGS[subject])}
    if about.license_link is not None:
        known |= {"license": "other", "license_name": about.license, "license_link": about.license_link}
    if subject == "dataset":
        data = DatasetCardData(
            **known,
            pretty_name=name,
            size_categories=[size_category(counts["images"])],
            task_categories=["image-text-to-text", "object-detection"],
        )
        return data, {"name": name, "repo_id": repo_id, "counts": counts}
    recipe, adapter = read_recipe(folder), _read_json(folder / "adapter_config.json")
    started = about.base_model or adapter.get("base_model_name_or_path") or recipe.get("base_model")
    base = str(started) if started and _is_hub_id(str(started)) else None
    from_nothing = bool(recipe) and not started
    if from_nothing:
        known["tags"] = [*TAGS[subject], FROM_NOTHING]
    measured: dict[str, Any] = {}
    if results is not None:
        entries = results.model_index(about.measured_on)
        metrics = sorted({entry.metric_type for entry in entries})
        measured = {"model_name": name, "eval_results": entries, "metrics": metrics}
    library = "diffusers" if subject != "detector" else "peft" if adapter else "transformers"
    head = ModelCardData(
        library_name=library,
        pipeline_tag="image-text-to-text" if subject == "detector" else "text-to-image",
        base_model=base,
        base_model_relation=("adapter" if adapter or subject == "lora" else "finetune") if base else None,
        datasets=[about.dataset] if about.dataset else None,
        **known,
        **measured,
    )
    values = {
        "name": name,
        "repo_id": repo_id,
        "base": base,
        "from_nothing": from_nothing,
        "adapter": adapter,
        "recipe": recipe,
        "settings": dict(_shown(recipe.get("settings") or {})),
        "results": results,
        "made_for": _read_json(folder / "sdg_config.json").get("made_for"),
    }
    return head, values


def _shown(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        yield name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _is_hub_id(name: str) -> bool:
    """Whether it may be ``"owner/name"``: a folder of this machine is nothing to anybody else."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return name.count("/") == 1 and not Path(name).exists()


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    return found if isinstance(found, dict) else {}
