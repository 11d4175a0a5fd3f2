"""The models that a page offers: loaded when they are chosen, a few kept, and none that its owner did not allow."""

from __future__ import annotations

import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePath
from typing import Any, Protocol

from sdg.defects import DefectSet
from sdg.detector import FULL_MODEL, load_detector
from sdg.web.gpu import placed
from sdg.web.served import Served, describe

log = logging.getLogger(__name__)

KEEP = 2
"""Chosen models that stay in memory, besides the page's own; the one that waited longest for a visitor goes first."""


class Stream(Protocol):
    """Pieces of text, and once they have all come the set that they make up."""

    @property
    def result(self) -> DefectSet: ...
    def __iter__(self) -> Iterator[str]: ...
    def close(self) -> None: ...


class Named(Protocol):
    """Where the text comes from; the name is the model's."""

    @property
    def name(self) -> str: ...


class Detector(Protocol):
    """What the page asks of a detector; :class:`sdg.SDGDetector` is one."""

    @property
    def engine(self) -> Named: ...
    @property
    def made_for(self) -> str | None: ...
    def __call__(self, images: Any, captions: str | None = None) -> DefectSet: ...
    def stream(self, image: Any, caption: str | None = None) -> Stream: ...


class Models:
    """What answers on a page: its own detector, and others that visitors may choose.

    Visitors know a model by its label: the name without the folder that it lies in or the server that serves it.

    Args:
        own: the page's own detector, in memory already.
        offered: further ones by name: embedded, local folder, Hub id, or ``model@http://host/v1`` for one of an
            OpenAI-compatible server. The owner's list: each visitor may have any of them loaded.
        anything: visitors may also type a name that is not on the list. For a page that nobody else can open: whoever
            can has this machine read folders, download models and ask addresses.
        load: what loads, with the arguments of :func:`~sdg.detector.load_detector`, which is the default.
        keep: chosen models that stay in memory; one more while the next one loads.

    Raises:
        ValueError: for two models of one label.
    """

    def __init__(
        self,
        own: Detector,
        offered: Sequence[str] = (),
        *,
        anything: bool = False,
        load: Callable[..., Detector] | None = None,
        keep: int = KEEP,
    ):
        self.own, self.anything = own, anything
        self.default = describe(own.engine.name, own.made_for).name
        self._names: dict[str, str] = {}
        for name in offered:
            shown = label(name)
            if shown in self._names and self._names[shown] != name.strip():
                raise ValueError(f"two of the models offered are called {shown}: rename one, visitors choose by that")
            self._names[shown] = name.strip()
        self._load, self._keep = load or load_detector, keep
        self._kept: OrderedDict[str, Detector] = OrderedDict()
        self._loading, self._shelf = threading.Lock(), threading.Lock()
        self.turn = threading.Semaphore(self.at_a_time)
        """Held by whatever has a model of this process at work; who has left may hold it until the step is done."""

    @property
    def labels(self) -> list[str]:
        """What visitors choose from, the page's own first."""
        return list(dict.fromkeys([self.default, *self._names]))

    @property
    def at_a_time(self) -> int:
        """Pictures that the page's own detector works on at once: one, where it does not say that it takes more."""
        return int(getattr(self.own.engine, "concurrency", 1))

    def ready(self, chosen: str | None) -> bool:
        """Whether a model is in memory."""
        chosen = (chosen or "").strip()
        return chosen in ("", self.default) or chosen in self._kept

    def get(self, chosen: str | None = None) -> Detector:
        """The detector of that label, loaded where it is not in memory; None or blank is the page's own.

        Raises:
            ValueError: in a sentence for the visitor: it is not offered, or it could not be loaded.
        """
        chosen = (chosen or "").strip()
        if chosen in ("", self.default):
            return self.own
        typed = chosen not in self._names
        if typed and not self.anything:
            raise ValueError(f"{chosen[:100]!r} is not offered here. The models are: {', '.join(self.labels)}.")
        if (detector := self._taken(chosen)) is None:
            with self._loading:  # one at a time; those who wait for what another visitor has loaded find it here
                detector = self._taken(chosen) or self._loaded(chosen, typed)
                self._put(chosen, detector)
        return detector

    def load_all(self) -> None:
        """Load every model that is offered, and let none go.

        Raises:
            ValueError: as :meth:`get`.
        """
        self._keep = max(self._keep, len(self._names))
        for name in self.labels:
            self.get(name)

    def served(self, chosen: str | None = None) -> Served:
        """What the head of the page says of a model, loading it where that is needed.

        Raises:
            ValueError: as :meth:`get`.
        """
        detector = self.get(chosen)
        return describe(detector.engine.name, detector.made_for, FULL_MODEL in self.labels)

    def _taken(self, chosen: str) -> Detector | None:
        with self._shelf:
            if chosen in self._kept:
                self._kept.move_to_end(chosen)
            return self._kept.get(chosen)

    def _put(self, chosen: str, detector: Detector) -> None:
        with self._shelf:
            self._kept[chosen] = detector
            while len(self._kept) > self._keep:
                self._kept.popitem(last=False)

    def _loaded(self, chosen: str, typed: bool) -> Detector:
        model, address = _parted(self._names.get(chosen, chosen))
        # The server's key is its owner's: it goes to no address that a visitor types.
        options = {"api_key": "none"} if typed and address else placed(address)
        try:
            return self._load(model, address, None, **options)
        except (OSError, ValueError, ImportError, RuntimeError) as error:
            log.warning("%s could not be loaded: %s", chosen, error)
            if self.anything:
                raise ValueError(f"{chosen} could not be loaded: {error}") from error
            # Paths and addresses of the server are not its visitors' business.
            raise ValueError(
                f"{chosen} could not be loaded on this server; its log says why. The model before it goes on serving."
            ) from error


def label(name: str) -> str:
    """What visitors see of a model's name: no folders of the server, and no address."""
    model, address = _parted(name.strip())
    return PurePath(model).name if address is None and os.path.isdir(model) else describe(model).name


def _parted(name: str) -> tuple[str, str | None]:
    """Model and address of ``model@http://host/v1``; without an address, the name as it is."""
    for scheme in ("@http://", "@https://"):
        model, found, rest = name.partition(scheme)
        if found and model:
            return model, scheme[1:] + rest
    return name, None
