"""``sdg detect``: pictures, tables of captions or data sets in; tables, JSON lines, parquet or overlays out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from enum import Enum
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from sdg.cli import shared
from sdg.cli.outcomes import Failures, Overlays, Strangers, drawn, print_outcome
from sdg.cli.progress import Advance
from sdg.cli.shared import check_writable, err, out, refuse
from sdg.cli.sources import STOPPED, Captions, Images, Layout, Split, check_apart, listed, settled

if TYPE_CHECKING:
    from sdg.jobs.results import Results
    from sdg.jobs.run import Outcome, Picture

CONCURRENCY = 8
"""Requests to an endpoint that are under way at a time, where nobody says how many."""


class Bits(str, Enum):
    """How many bits weights are loaded in."""

    four = "4bit"
    eight = "8bit"


@dataclass(frozen=True)
class Asked:
    """Which detector answers: the arguments of ``load_detector``, and what of them decides the answers."""

    model: str
    endpoint: str | None
    prompt: str | None
    options: dict[str, Any]
    settings: dict[str, Any]


def detect(
    images: Images = None,
    caption: Annotated[
        str | None,
        typer.Option(help="The prompt that the pictures were made from; without it only artifacts are looked for."),
    ] = None,
    captions: Captions = None,
    model: Annotated[
        str, typer.Option(help="Embedded checkpoint, local folder or Hub id; with --endpoint, as the server names it.")
    ] = "sdg-tiny",
    endpoint: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Ask the model behind this OpenAI-compatible API; a key is in SDG_API_KEY."),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|TEXT",
            help="The instruction: `zero-shot` for models that were not trained for this, another name, a text with "
            "{caption}, or a folder or Hub id that holds one; the checkpoint's own unless given.",
        ),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of a --model on the Hub.", show_default="main")
    ] = None,
    adapter: Annotated[
        str | None, typer.Option(metavar="FOLDER|HUB-ID", help="A PEFT adapter to put on the model.")
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER|HUB-ID",
            help="How sure the model may be, of `sdg calibrate`; the checkpoint's own unless given.",
        ),
    ] = None,
    quantization: Annotated[
        Bits | None, typer.Option(help="Load the weights in 4 or 8 bits (needs bitsandbytes).", show_default=False)
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(min=1, help="Requests to --endpoint under way at a time.", show_default=str(CONCURRENCY)),
    ] = None,
    min_confidence: Annotated[
        float, typer.Option(min=0, max=1, help="Leave out defects that the model is less sure of (0..1).")
    ] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line instead of tables.")] = False,
    out_file: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE.jsonl|.parquet",
            help="Write each result as it comes, and go on from what the file holds. A parquet file is made at the "
            "end, from FILE.parquet.jsonl.",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start --out anew instead of going on.")] = False,
    retry: Annotated[
        bool, typer.Option("--retry", help="Look again at the pictures that --out holds with an error.")
    ] = False,
    overlay: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT",
            help="Write the pictures with their defects drawn: a picture file for one picture, else a folder.",
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures that the model answers at a time.")] = 8,
    on_ray: Annotated[
        bool, typer.Option("--ray", help="Hand the pictures out to the workers of a Ray cluster (docs/detect-many.md).")
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="With --ray: at most so many workers.", show_default="all that fit"),
    ] = None,
    split: Split = None,
    layout: Layout = None,
) -> None:
    """Find the defects of pictures, of one or of a million.

    A picture that fails is a line of the results, and the others go on.

    \b
    Lines of JSON hold `image` (and `id`, `generator` where known), `caption`,
    `defects`, `reasoning`, `parse_error` (why an answer could not be read, else
    null), `raw` (the model's text), `info`; or `error` where there is no answer.
    `sdg eval` reads them as predictions.

    \b
    What is on the Hub is fetched once, with the token of `hf auth login` or
    HF_TOKEN, into the cache (HF_HOME); HF_HUB_OFFLINE=1 never asks it.

    \b
    Exit code: 0; 1 where a picture failed; 2 for wrong usage and for what ends
    the job (bad input, a full disk); 130 when it is stopped with Ctrl-C.
    With --out, the same command again goes on from where it was.

    \b
    Examples:
      sdg detect picture.png --caption "a red house beside a lake"
      sdg detect renders/*.png --caption "a red house" --json > defects.jsonl
      sdg detect picture.png --caption "a red house" --overlay marked.png
      sdg detect picture.png --model P1n3/sdg-detector-grpo --quantization 4bit
      sdg detect --captions prompts.csv --out defects.jsonl
      sdg detect renders/ --captions prompts.txt --out defects.parquet
      sdg detect P1n3/SDG-30K --split test --out test.jsonl
      sdg detect renders/ --endpoint http://localhost:8000/v1 --model qwen --prompt zero-shot
    """
    loading = {
        "revision": revision,
        "adapter": adapter,
        "calibration": calibration,
        "quantization_config": None if quantization is None else quantization.value,
    }
    asked = _asked(model, endpoint, prompt, concurrency, min_confidence, loading)
    if workers is not None and not on_ray:
        raise typer.BadParameter("--workers are those of --ray, which is not given")
    if overlay is not None and on_ray:
        raise typer.BadParameter("--overlay needs the pictures here, and with --ray they stay with the workers")
    outcomes = partial(_on_ray, asked, batch_size, workers) if on_ray else partial(_here, asked, batch_size)
    journal = _journal(out_file, overwrite, retry)
    try:
        check_apart(images or [], {"--out": journal, "--overlay": overlay})
        found, total = listed(images or [], caption, captions, split, layout)
        overlays = None if overlay is None else Overlays(overlay, total == 1)
        kept = nullcontext() if journal is None else _results(journal, asked.settings, overwrite, retry)
        with kept as results:
            failed = _run(found, total, outcomes, results, overlays, as_json)
        if out_file is not None and journal is not None and out_file != journal:
            from sdg.jobs.results import write_parquet

            rows = write_parquet(journal, out_file)
            err.print(Text(f"{out_file} written: {rows} rows"))
    except KeyboardInterrupt:
        again = "" if journal is None else f"; {journal} is whole, and the same command goes on from there"
        err.print(Text(f"Stopped{again}", style="yellow"), soft_wrap=True)
        raise typer.Exit(STOPPED) from None
    except (OSError, ValueError) as error:
        refuse(str(error))
    raise typer.Exit(1 if failed else 0)


def _run(
    found: Iterable[Picture],
    total: int | None,
    outcomes: Callable[[Iterable[Picture], Callable[[], None]], Iterator[Outcome]],
    results: Results | None,
    overlays: Overlays | None,
    as_json: bool,
) -> bool:
    """Detect, show and keep; whether a picture failed, now or in a run before that is gone on with."""
    failures, strangers, there, targets = Failures(), Strangers(), [0, 0], deque[Path | None]()
    # Tables are all the progress that one needs, and a bar would be torn by lines that pass on the same terminal.
    silent = out.is_terminal if as_json else results is None
    with Advance("pictures", total, shown=not silent) as progress:

        def waiting() -> Iterator[Picture]:
            for picture in found:
                target = None if overlays is None else overlays.target(picture)
                done = None if results is None else results.take(picture)
                if done is None:
                    targets.append(target)
                    yield picture
                else:
                    there[0], there[1] = there[0] + 1, there[1] + done
                    progress.skip()

        pictures = waiting()
        first = next(pictures, None)  # a job that is done needs no model
        if first is not None:
            for outcome in outcomes(chain([first], pictures), progress.restart):
                target = targets.popleft()
                _keep(outcome if target is None else drawn(outcome, target), target, results, failures, as_json)
                strangers.add(outcome, told=total == 1 or not (as_json or results is not None))
                progress.add(outcome.failure is not None)
    if progress.done + there[0] == 0:
        refuse("there is no picture to look at")
    if failures.count and progress.done > 1:
        failures.print(progress.done)
    if strangers.count and progress.done > 1:
        strangers.print(progress.done)
    if results is not None:
        _tell(results, progress.done, there)
    return failures.count + there[1] > 0


def _here(asked: Asked, batch_size: int, pictures: Iterable[Picture], ready: Callable[[], None]) -> Iterator[Outcome]:
    """The outcomes of a detector in this process, or behind the endpoint."""
    from sdg.jobs.run import detect_many

    detector = shared.load_detector(asked.model, asked.endpoint, asked.prompt, **asked.options)
    _warn_of_its_world(detector.made_for, asked.model)
    ready()
    yield from detect_many(detector, pictures, batch_size)


def _on_ray(
    asked: Asked, batch_size: int, workers: int | None, pictures: Iterable[Picture], ready: Callable[[], None]
) -> Iterator[Outcome]:
    """The outcomes of detectors in the workers of a Ray cluster."""
    from sdg.detector import load_detector
    from sdg.jobs.run import REQUESTS_AHEAD

    try:
        from sdg.jobs.ray import detect_on_ray
    except ImportError as error:
        refuse(str(error))
    gpus = None
    if asked.endpoint is not None:
        gpus, batch_size = 0, max(batch_size, REQUESTS_AHEAD * asked.options["concurrency"])
    ready()
    load = partial(load_detector, asked.model, asked.endpoint, asked.prompt, **asked.options)
    warned = False
    for outcome in detect_on_ray(load, pictures, batch_size, workers, gpus):
        if outcome.found is not None and not warned:
            _warn_of_its_world(outcome.found.info.get("made_for"), asked.model)
            warned = True
        yield outcome


def _keep(outcome: Outcome, target: Path | None, results: Results | None, failures: Failures, as_json: bool) -> None:
    """One outcome to where it is asked for."""
    if outcome.failure is not None:
        failures.add(outcome)
    if results is not None:
        results.write(outcome)
    if as_json:
        from sdg.jobs.results import to_text

        typer.echo(to_text(outcome.to_line()))
    elif results is None:
        print_outcome(outcome)
    if target is not None and outcome.failure is None and results is None:
        err.print(Text(f"{target} written"))


def _tell(results: Results, done: int, there: list[int]) -> None:
    """What the file of results holds now."""
    before = f" ({there[0]} were there already)" if there[0] else ""
    err.print(Text(f"{results.path}: {done + there[0]} pictures{before}"), soft_wrap=True)
    if there[1]:
        again = "; --retry looks again at those with an error"
        err.print(Text(f"{there[1]} of those that were there already failed{again}"), soft_wrap=True)
    if results.left_over:
        err.print(
            Text(
                f"Warning: {results.path} has {results.left_over} lines of other pictures or captions than this job's",
                style="yellow",
            ),
            soft_wrap=True,
        )


def _journal(out_file: Path | None, overwrite: bool, retry: bool) -> Path | None:
    """The file that results are streamed to."""
    if out_file is None:
        for option, given in (("--overwrite", overwrite), ("--retry", retry)):
            if given:
                raise typer.BadParameter(f"{option} says what to do with --out, which is not given")
        return None
    if out_file.suffix.lower() not in (".jsonl", ".parquet"):
        raise typer.BadParameter(f"--out {out_file} ends neither in .jsonl nor in .parquet")
    check_writable("--out", out_file)
    return out_file if out_file.suffix.lower() == ".jsonl" else Path(f"{out_file}.jsonl")


def _results(path: Path, settings: dict[str, Any], overwrite: bool, retry: bool) -> Results:
    from sdg.jobs.results import Results

    return Results(path, settings, overwrite=overwrite, retry=retry)


def _asked(
    model: str,
    endpoint: str | None,
    prompt: str | None,
    concurrency: int | None,
    min_confidence: float,
    loading: dict[str, str | None],
) -> Asked:
    """The detector that the options name."""
    chosen = {name: value for name, value in loading.items() if value is not None}
    if chosen and endpoint is not None:
        option = next(iter(chosen)).removesuffix("_config")
        raise typer.BadParameter(f"--{option} says how weights are loaded, and those of an --endpoint are loaded there")
    if concurrency is not None and endpoint is None:
        raise typer.BadParameter("--concurrency counts requests to --endpoint, which is not given")
    if endpoint is not None and not {"@", "?"}.isdisjoint(endpoint):  # it is written beside the results
        raise typer.BadParameter("--endpoint must not hold a user, a password or a query: a key goes into SDG_API_KEY")
    if min_confidence and endpoint is not None:
        raise typer.BadParameter("--min-confidence needs confidences, and answers of an --endpoint carry none")
    if endpoint is not None:
        concurrency = concurrency or CONCURRENCY
    given = {"concurrency": concurrency, "min_confidence": min_confidence, **chosen}
    # A folder is the same wherever the command runs from.
    said = {name: value if name == "revision" else settled(value) for name, value in chosen.items()}
    decisive = {"endpoint": endpoint, "prompt": prompt, "min_confidence": min_confidence, **said}
    return Asked(
        model,
        endpoint,
        prompt,
        options={name: value for name, value in given.items() if value},
        # A file that was written before there was a choice was written without it.
        settings={"model": settled(model), **{name: value for name, value in decisive.items() if value}},
    )


def _warn_of_its_world(made_for: str | None, model: str) -> None:
    if made_for is not None:
        from sdg.detector import FULL_MODEL

        note = f"{model} was made for {made_for} only: what it says about other pictures means nothing"
        err.print(Text(f"{note} (--model {FULL_MODEL} is made for those)", style="yellow"), soft_wrap=True)
