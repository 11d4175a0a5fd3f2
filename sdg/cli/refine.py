"""``sdg refine``: broken pictures in, mended ones out, and a line on each that says what was done and why."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from sdg.cli import shared
from sdg.cli.progress import Advance
from sdg.cli.shared import err, out, refuse
from sdg.cli.sources import STOPPED, Captions, Images, Layout, Split, check_apart, listed, settled

if TYPE_CHECKING:
    from sdg.jobs.pictures import Names
    from sdg.jobs.results import Results
    from sdg.jobs.run import Picture
    from sdg.refine.many import Refined

RESULTS = "results.jsonl"


ELSEWHERE = {
    "api_key": "set SDG_API_KEY",
    "token": "set HF_TOKEN, or log in with hf auth login",
    "endpoint": "give --editor-endpoint",
}
"""Options of editors that --editor-options does not take: they are kept beside the results. And what to do instead."""


def _limit(help: str) -> Any:
    """An option of which the editor has a limit of its own, 0..1."""
    return typer.Option(min=0, max=1, help=f"{help}; the editor's own limit.", show_default=False)


def _editor_options(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not JSON ({error})") from None
    if not isinstance(value, dict):
        raise typer.BadParameter(f"{text!r} is not a JSON object")
    for name in ELSEWHERE.keys() & value.keys():
        raise typer.BadParameter(f"{name} does not belong here: {ELSEWHERE[name]}")
    return value


def refine(
    images: Images = None,
    out_folder: Annotated[
        Path, typer.Option("--out", metavar="FOLDER", help="Where pictures go, as PNG, and results.jsonl.")
    ] = Path("refined"),
    caption: Annotated[
        str | None,
        typer.Option(help="The prompt that the pictures were made from; without it only artifacts are repaired."),
    ] = None,
    captions: Captions = None,
    editor: Annotated[
        str,
        typer.Option(
            help="What edits: the embedded generator, folder or Hub id of a diffusers pipeline (inpainting, or editing "
            "by instruction); with --editor-endpoint, the model as that server names it."
        ),
    ] = "sdg-tiny-t2i",
    editor_endpoint: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Edit by this OpenAI-compatible images API; a key is in SDG_API_KEY."),
    ] = None,
    model: Annotated[
        str, typer.Option(help="The detector: embedded checkpoint, local folder or Hub id; or as --endpoint names it.")
    ] = "sdg-tiny",
    endpoint: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Detect by the model behind this OpenAI-compatible API."),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(metavar="NAME|TEXT", help="The detector's instruction; its own unless given."),
    ] = None,
    feedback: Annotated[
        str, typer.Option(help="What the editor is told: boxes+text, boxes, text, or fixed (the caption only).")
    ] = "boxes+text",
    rounds: Annotated[int, typer.Option(min=1, help="Of detecting and editing.")] = 2,
    candidates: Annotated[int, typer.Option(min=1, help="Edits of a step; the best is kept, if it is better.")] = 4,
    min_importance: Annotated[int, typer.Option(min=1, max=100, help="Leave less important defects alone.")] = 1,
    min_confidence: Annotated[float, typer.Option(min=0, max=1, help="Leave less sure defects alone.")] = 0.5,
    max_spread: Annotated[float | None, _limit("In how much of what they do candidates may differ")] = None,
    min_gain: Annotated[float | None, _limit("Share of a place's defect load that has to go")] = None,
    min_better: Annotated[float | None, _limit("Share of a step's candidates that have to be better")] = None,
    min_similarity: Annotated[
        float,
        typer.Option(min=0, max=1, help="Least similarity outside the boxes, for editors that redraw all (SSIM)."),
    ] = 0.8,
    editor_options: Annotated[
        dict[str, Any],
        typer.Option(
            parser=_editor_options, metavar="JSON", help='Further options of the editor, such as {"paste": true}.'
        ),
    ] = "{}",  # type: ignore[assignment]  # typer parses the default, too
    seed: Annotated[int, typer.Option(min=0, help="Of the candidates.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start --out anew instead of going on.")] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Try the pictures again that failed before.")] = False,
    split: Split = None,
    layout: Layout = None,
) -> None:
    """Repair the defects of pictures and leave everything else as it is.

    A picture gets better or comes back as it was: an edit is kept only if the
    detector finds less wrong afterwards. Outside the boxes, grown a little, no
    pixel changes; or, with an editor that redraws the whole picture, the rest
    has to stay similar.

    \b
    FOLDER gets a PNG a picture (unchanged ones, too) and results.jsonl, whose
    lines hold `image`, `out`, `caption`, `changed`, `reason`, `load` and the
    defects before and after, and `steps` with each candidate; or `error`.

    \b
    Exit code: 0; 1 where a picture failed; 2 for wrong usage and for what ends
    the job; 130 when it is stopped with Ctrl-C. The same command again goes on
    from where it was.

    \b
    Examples:
      sdg refine picture.png --caption "a red house beside a lake"
      sdg refine renders/ --captions prompts.csv --out mended
      sdg refine photo.png --caption "two cats" --model P1n3/sdg-detector-grpo \\
        --editor black-forest-labs/FLUX.1-Fill-dev
    """
    options = {
        "feedback": feedback,
        "rounds": rounds,
        "candidates": candidates,
        "min_importance": min_importance,
        "min_confidence": min_confidence,
        "min_similarity": min_similarity,
    }
    limits = {"max_spread": max_spread, "min_gain": min_gain, "min_better": min_better}
    options |= {name: limit for name, limit in limits.items() if limit is not None}
    settings = {"model": settled(model), "editor": settled(editor), "seed": seed, **options}
    settings |= {k: v for k, v in {"endpoint": endpoint, "editor_endpoint": editor_endpoint}.items() if v}
    settings |= {k: v for k, v in {"prompt": prompt, "editor_options": editor_options}.items() if v}

    def refiner() -> Any:
        detector = shared.load_detector(model, endpoint, prompt)
        return _refiner(detector, editor, {"endpoint": editor_endpoint, **editor_options}, options)

    try:
        from sdg.jobs.pictures import Names
        from sdg.jobs.results import Results, files_of

        _options_of(options)
        check_apart(images or [], {"--out": out_folder})
        found, total = listed(images or [], caption, captions, split, layout)
        out_folder.mkdir(parents=True, exist_ok=True)
        mended = files_of(out_folder / RESULTS)
        names = Names(out_folder, taken=() if overwrite else mended, replaced=mended if overwrite else ())
        with Results(out_folder / RESULTS, settings, overwrite=overwrite, retry=retry) as results:
            failed = _run(found, total, names, refiner, results, seed)
    except KeyboardInterrupt:
        err.print(Text("Stopped; the same command goes on from there", style="yellow"))
        raise typer.Exit(STOPPED) from None
    except (OSError, ValueError) as error:
        refuse(str(error))
    raise typer.Exit(1 if failed else 0)


def _run(
    pictures: Iterable[Picture], total: int | None, names: Names, refiner: Any, results: Results, seed: int
) -> bool:
    """Repair, keep and tell; whether a picture failed, now or in a run before that is gone on with."""
    from sdg.refine.many import refine_many

    there = failed_before = changed = 0
    with Advance("pictures", total) as progress:

        def waiting() -> Iterator[tuple[Picture, Path]]:
            nonlocal there, failed_before
            for picture in pictures:
                done = results.take(picture)
                if done is None:
                    yield picture, names.take(picture)
                else:
                    there, failed_before = there + 1, failed_before + done
                    progress.skip()

        left = waiting()
        first = next(left, None)  # a job that is done needs no model
        if first is not None:
            mender = refiner()
            progress.restart()
            for refined in refine_many(mender, chain([first], left), seed):
                results.write(refined)
                changed += refined.refinement is not None and refined.refinement.changed
                progress.add(refined.failure is not None)
                _tell(refined)
    if progress.done + there == 0:
        refuse("there is no picture to look at")
    before = f" ({there} were there already)" if there else ""
    err.print(Text(f"{results.path}: {progress.done + there} pictures{before}; {changed} changed now"), soft_wrap=True)
    if failed_before:
        again = "; --retry tries those with an error again"
        err.print(Text(f"{failed_before} of those that were there already failed{again}"), soft_wrap=True)
    return progress.failed + failed_before > 0


def _tell(refined: Refined) -> None:
    name = Text(refined.picture.name.encode("utf-8", "backslashreplace").decode(), style="bold")
    if refined.failure is not None or refined.refinement is None:
        out.print(name + Text(f": {refined.failure}", style="red not bold"), soft_wrap=True)
        return
    style = "green not bold" if refined.refinement.changed else "not bold"
    out.print(name + Text(f": {refined.refinement.reason}", style=style), soft_wrap=True)


def _options_of(options: dict[str, Any]) -> None:
    """Refuse options out of range before anything is loaded."""
    from sdg.refine.refiner import Options

    Options(**options)


def _refiner(detector: Any, editor: str, editor_options: dict[str, Any], options: dict[str, Any]) -> Any:
    from sdg.refine import DefectRefiner
    from sdg.refine.loading import load_editor

    try:
        return DefectRefiner(detector, load_editor(editor, **editor_options), **options)
    except TypeError as error:
        if editor_options.keys() <= {"endpoint"}:
            raise
        refuse(f"--editor-options: {error}")  # one that the editor does not have
    except (OSError, ValueError, ImportError) as error:
        refuse(str(error))
