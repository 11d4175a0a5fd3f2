"""A detector over many pictures on many machines: the batches of :mod:`sdg.jobs.run`, handed out by Ray Data.

Ray starts and stops the workers, holds back what they cannot take yet, and repeats the batch of a worker that died.
"""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import Any

import pyarrow as pa

from sdg.jobs.run import Detector, Outcome, Picture, run_batch

try:
    import ray
    import ray.data
except ImportError as error:  # pragma: no cover - the sentence is all there is to it
    raise ImportError("many machines need Ray Data: pip install 'sdg-t2i[ray]'") from error


def detect_on_ray(
    load: Callable[[], Detector],
    pictures: Iterable[Picture],
    batch_size: int = 8,
    workers: int | None = None,
    gpus: float | None = None,
) -> Iterator[Outcome]:
    """One outcome a picture, in order, as they come: what :func:`~sdg.jobs.run.detect_many` gives, without images.

    Runs on the cluster of ``RAY_ADDRESS``, else on one that was started on this machine, else on one of its own. Each
    worker works in this folder, so that paths hold: on several machines they need a file system in common. Pictures
    that are no files, but bytes of a data set, travel through Ray's object store.

    Args:
        load: makes the detector, once in each worker.
        pictures: listed before the first one is looked at.
        batch_size: pictures that a worker answers at a time.
        workers: at most so many; None takes what the cluster has room for.
        gpus: of each worker; None takes one where the cluster has any.

    Raises:
        OSError, ValueError, ImportError: what ``load`` raises in a worker; EndpointError, as in ``detect_many``;
            OSError where Ray itself fails. The outcomes before it were handed out.
    """
    own = not ray.is_initialized()
    if own:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its makers
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
        logging.getLogger("ray").setLevel(logging.ERROR)
        logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        blocks: list[Any] = [ray.put(block) for block in _blocks(pictures, batch_size)]
        if not blocks:
            return
        if gpus is None:
            gpus = 1.0 if ray.cluster_resources().get("GPU") else 0.0
        jobs = ray.data.from_arrow_refs(blocks)
        jobs.context.execution_options.preserve_order = True
        jobs.context.enable_progress_bars = False
        answers = jobs.map_batches(
            Worker,
            fn_constructor_args=(load, os.getcwd()),
            batch_size=batch_size,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=workers),
            num_gpus=gpus,
        )
        for row in answers.iter_rows():
            # What this job's own workers sent; Ray itself moves objects between them in the same way.
            answer = pickle.loads(row["outcome"])
            if isinstance(answer, Exception):
                raise answer
            yield answer
    except ray.exceptions.RayError as error:
        raise OSError(f"Ray gave up: {' '.join(str(error).split())[-600:]}") from error
    finally:
        if own:
            ray.shutdown()


class Worker:
    """An actor of Ray's: a detector, made with the first batch."""

    def __init__(self, load: Callable[[], Detector], folder: str) -> None:
        self._load = load
        self._detector: Detector | None = None
        with suppress(OSError):  # on another machine without that folder only absolute paths hold
            os.chdir(folder)

    def __call__(self, batch: pa.Table) -> pa.Table:
        pictures = [pickle.loads(picture) for picture in batch.column("picture").to_pylist()]
        answers: list[Any]
        try:
            self._detector = self._detector or self._load()
            answers = [_bare(outcome) for outcome in run_batch(self._detector, pictures)]
        except (OSError, ValueError, ImportError) as error:  # ends the job: a value, for Ray would wrap and log it
            answers = [error]
        return pa.table({"outcome": pa.array(map(pickle.dumps, answers), pa.large_binary())})


def _blocks(pictures: Iterable[Picture], batch_size: int) -> Iterator[pa.Table]:
    """The pictures as tables of one batch each: what Ray hands out, and hands out again, is a batch."""
    waiting = iter(pictures)
    while batch := list(islice(waiting, batch_size)):
        yield pa.table({"picture": pa.array(map(pickle.dumps, batch), pa.large_binary())})


def _bare(outcome: Outcome) -> Outcome:
    """The outcome without pixels: they stay where they are."""
    return replace(outcome, picture=replace(outcome.picture, source=None), image=None)
