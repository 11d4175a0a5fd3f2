"""``sdg calibrate``: a checkpoint and annotated pictures in; its confidence and its world out."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table
from rich.text import Text

from sdg.cli import shared
from sdg.cli.shared import err, out

MICROWORLD = "microworld"
"""In place of a file: pictures that are drawn on the spot."""

WORLD_SEED, DATA_SEED = 30_000, 31_000
WORLD_PICTURES = 2000


def calibrate(
    model: Annotated[str, typer.Argument(help="Embedded checkpoint, local folder or Hub id.", show_default=False)],
    data: Annotated[
        str,
        typer.Argument(
            help="Annotated pictures that the model was not trained on, in a known layout (docs/data.md), or "
            "`microworld`.",
            show_default=False,
        ),
    ],
    world: Annotated[
        str | None,
        typer.Option(
            help="Pictures that it was trained on (a data set, or `microworld`); half of DATA unless given. Their "
            "annotations are not read.",
        ),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Which split of DATA; all where it is left out.")] = None,
    layout: Annotated[str | None, typer.Option(help="DATA's layout, where it is not recognised.")] = None,
    order: Annotated[
        shared.Order | None, typer.Option(help="Order of DATA's box coordinates, where its layout does not say.")
    ] = None,
    n: Annotated[int, typer.Option(min=20, help="At most so many pictures of DATA.")] = 1000,
    n_world: Annotated[int, typer.Option(min=20, help="At most so many pictures of the world.")] = WORLD_PICTURES,
    false_alarms: Annotated[
        float, typer.Option(help="Share of pictures from its world that may be called outside.", min=0.0001, max=0.5)
    ] = 0.01,
    folder: Annotated[
        Path | None,
        typer.Option("--out", metavar="FOLDER", help="Where to write; the checkpoint's folder unless given."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="OUT.png", help="Draw reliability, precision and recall, false alarms.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="OUT", help="Write the numbers as JSON.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures that the model answers at a time.")] = 32,
) -> None:
    """Teach a checkpoint how sure it may be, and which pictures it does not know.

    Writes calibration.json and world.safetensors beside the checkpoint's weights; loading finds them there. The printed
    numbers are cross-fitted: each picture is judged by a calibration that has not seen it.

    Exit code: 0, or 2 for wrong usage and bad input.

    \b
    Examples:
      sdg calibrate sdg-tiny microworld --world microworld --plot confidence.png
      sdg calibrate runs/mine data/validation --world data/train
      sdg calibrate P1n3/sdg-detector-grpo SDG-30K --split validation --out calibration
    """
    for option, path in (("--plot", plot), ("--json", json_file)):
        if path is not None and not path.absolute().parent.is_dir():
            raise typer.BadParameter(f"{option} {path}: the folder {path.parent} does not exist")
    if plot is not None:
        shared.writable_picture(plot)
    target = _target(model, folder)
    try:
        records = _records(data, n, split, layout, None if order is None else order.value)
        judged, written = _calibrated(model, data, records, world, n_world, false_alarms, target, batch_size)
        if plot is not None:
            from sdg.calibration.plot import plot_confidence

            plot_confidence(judged, f"{model} on {len(judged.true)} pictures, cross-fitted").savefig(plot, dpi=150)
            written.append(plot)
        if json_file is not None:
            json_file.write_text(json.dumps(_plain(judged.summary()), indent=1) + "\n", encoding="utf-8")
            written.append(json_file)
    except (OSError, ValueError, ModuleNotFoundError) as error:
        err.print(Text(f"Error: {error}", style="red"), soft_wrap=True)
        raise typer.Exit(2) from None
    _print(judged)
    for path in written:
        err.print(Text(f"{path} written"), soft_wrap=True)


def _target(model: str, folder: Path | None) -> Path:
    """The folder to write to, there and writable."""
    from sdg.engines.places import locate

    try:
        place = folder or Path(locate(model))
    except OSError as error:
        err.print(Text(f"Error: {error}", style="red"), soft_wrap=True)
        raise typer.Exit(2) from None
    if folder is None and not place.is_dir():
        raise typer.BadParameter(f"{model} is on the Hub, where nothing can be written: name a folder with --out")
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise typer.BadParameter(f"--out {place} cannot be made a folder: {error}") from None
    return place


def _calibrated(
    model: str,
    data: str,
    records: Sequence[Any],
    world: str | None,
    n_world: int,
    false_alarms: float,
    target: Path,
    batch_size: int,
) -> tuple[Any, list[Path]]:
    """The defects of DATA with cross-fitted confidences, and the files that were written."""
    from sdg import embedded
    from sdg.calibration.trust import Trust
    from sdg.calibration.world import World
    from sdg.detector.observe import look_at, observe

    learnt = None if world is None else _pictures(world, n_world)
    detector = shared.load_detector(model)
    detector.trust = Trust()
    with err.status(f"{len(records)} pictures are answered"):
        answers = observe(detector, records, batch_size=batch_size)
    unread = sum(found.parse_error is not None for found in answers.found)
    if unread:
        err.print(Text(f"{unread} of {len(records)} answers could not be read; they count as empty.", style="yellow"))
    judged = answers.cross_judged()
    calibration = answers.calibration({"model": detector.engine.name, "data": data})

    here = [picture for picture in answers.pictures if picture is not None]
    region = None
    if here:
        if learnt is None:
            seen, held_out, words = here[::2], here[1::2], data
        else:
            with err.status("pictures of its world are looked at"):
                seen = [picture for picture in look_at(detector, learnt) if picture is not None]
            held_out, words = here, str(world)
        region = World.fit(seen, held_out, false_alarms, f"{len(seen)} pictures of {words}")
    else:
        err.print(Text("The model has no vision tower of a known shape: no world is written.", style="yellow"))
    written = Trust(calibration, region).save(target)
    embedded.renew(target)
    return judged, written


def _records(
    source: str,
    n: int,
    split: str | None = None,
    layout: str | None = None,
    order: Literal["xyxy", "yxyx"] | None = None,
) -> list[Any]:
    """At most ``n`` annotated pictures; records with something wrong are left out, and counted on stderr."""
    if source == MICROWORLD:
        return list(_drawn("validation", DATA_SEED, n))
    from sdg.readers import read

    reading = read(source, layout, split=split, order=order, policy="skip")
    records = list(islice(reading, n))
    if reading.report.n_skipped:
        err.print(Text("\n".join(reading.report.lines()), style="yellow"), soft_wrap=True)
    if not records:
        raise ValueError(f"{source} has no record that can be used")
    return records


def _pictures(source: str, n: int) -> Iterator[Any]:
    """At most ``n`` pictures that the model was trained on; those that cannot be opened are left out."""
    if source == MICROWORLD:
        return (record.image for record in _drawn("train", WORLD_SEED, n))
    return islice(_opened(source), n)


def _opened(source: str) -> Iterator[Any]:
    from sdg.engines.images import ImageError, open_image
    from sdg.jobs.pictures import from_data_set

    for picture in from_data_set(source)[0]:
        try:
            if picture.error is None:
                yield open_image(picture.source)
        except (OSError, ImageError):
            continue


def _drawn(split: str, seed: int, n: int) -> Iterator[Any]:
    """Pictures of the microworld as training shows them: every second one went through blur, noise or the like."""
    from dataclasses import replace

    import numpy as np

    from sdg.microworld import generate
    from sdg.training.degrade import degrade

    rng = np.random.default_rng(seed)
    for index, record in enumerate(generate(n, seed, split)):  # type: ignore[arg-type]
        yield replace(record, image=degrade(record.image, rng)) if index % 2 else record


def _print(judged: Any) -> None:
    numbers = judged.summary()
    table = Table(
        title=f"{numbers['defects']} predicted defects on {numbers['pictures']} pictures", title_justify="left"
    )
    for column in ("min_confidence", "kept", "precision", "recall", "F1", "false alarms"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in numbers["thresholds"]:
        shares = [row[name] for name in ("precision", "recall", "f1", "false_alarm")]
        table.add_row(f"{row['threshold']:g}", str(row["kept"]), *map(_number, shares))
    out.print(table)
    out.print(
        Text(
            f"Right at IoU 0.5: {_number(numbers['right'])}. ECE {_number(numbers['ece'])}, Brier score"
            f" {_number(numbers['brier'])}, AUROC of right against wrong {_number(numbers['auroc'])}."
            f" False alarms: share of the {numbers['clean_pictures']} clean pictures with a defect."
        ),
        soft_wrap=True,
    )


def _number(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:.3f}"


def _plain(value: Any) -> Any:
    """JSON values; NaN becomes null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
