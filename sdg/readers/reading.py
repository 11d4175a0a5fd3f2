"""The one way from a layout's items to records: order and space of boxes, policy, counts, the check of the order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from sdg.boxes import BoxOrder
from sdg.defects import DefectSet
from sdg.readers import convert
from sdg.readers.convert import defect_of, numbers, scale_of
from sdg.readers.order import OrderCheck
from sdg.readers.raw import Broken, Layout, RawRecord, Raws
from sdg.readers.report import Problem, Report
from sdg.records import ImageFile, Record

Policy = Literal["raise", "skip", "mend"]
POLICIES: tuple[Policy, ...] = get_args(Policy)


@dataclass(frozen=True)
class Choices:
    """How a reading goes about it; the arguments of :func:`sdg.readers.read`."""

    order: BoxOrder | None = None
    policy: Policy = "raise"
    images: bool = True
    split: str | None = None
    check_order: bool = True


class Reading(Iterator[Record]):
    """Records, one at a time and once; to go through them again, read again.

    Attributes:
        layout: name of the layout.
        order: order of the box coordinates, declared by the layout or the caller.
        report: what was wrong; complete once the iteration ended.
    """

    def __init__(self, layout: Layout, source: str, raws: Raws, choices: Choices) -> None:
        self.layout = layout.name
        self.report = Report()
        self._layout, self._source, self._raws, self._choices = layout, source, raws, choices
        self.order: BoxOrder = self._declared()
        self._records = self._read()

    def __iter__(self) -> Reading:
        return self

    def __next__(self) -> Record:
        return next(self._records)

    def _declared(self) -> BoxOrder:
        """The order, known before anything is read."""
        order = self._layout.order
        if order is None:
            raws = (raw for raw in self._raws(True) if isinstance(raw, RawRecord))
            first = next((raw for raw in raws if raw.defects is not None), None)
            if first is not None:
                return self._order_of(first)
            order = self._choices.order or "xyxy"  # nothing to read, nothing to convert
        if self._choices.order not in (None, order):
            raise ValueError(
                f"order={self._choices.order!r} contradicts {self._layout.title}, whose boxes are {order}; leave order "
                "out"
            )
        return order

    def _order_of(self, raw: RawRecord) -> BoxOrder:
        asked, stated = self._choices.order, raw.order
        if stated is None and asked is None:
            raise ValueError(
                f"{raw.where}: {self._layout.title} does not say in which order these boxes' coordinates are; say it: "
                'order="xyxy" (x0, y0, x1, y1) or order="yxyx" (y0, x0, y1, x1, the Gemini habit)'
            )
        if stated is not None and asked not in (None, stated):
            raise ValueError(f"{raw.where}: order={asked!r} contradicts the layout: these boxes are {stated}")
        return stated or asked or "xyxy"

    def _read(self) -> Iterator[Record]:
        if self._choices.check_order and self._layout.cheap:
            self._look_ahead()
        check = OrderCheck(self._source)
        ids: set[int] = set()
        splits: set[str] = set()
        for raw in self._raws(False):
            if isinstance(raw, Broken):
                self._refuse([Problem(convert.BROKEN_LINE, "text", raw.why)], raw.where, "")
                continue
            if self._choices.split is not None and raw.split != self._choices.split:
                splits.add(raw.split or "none named")
                continue
            record = self._record(raw, ids, check)
            if self._choices.check_order:
                check.verdict(complete=False)
            if record is not None:
                self.report.n_records += 1
                self.report.n_defects += len(record.defects)
                yield record
        if self._choices.check_order:
            check.verdict(complete=True)
        if splits and not self.report.n_records and not self.report.n_skipped:
            raise ValueError(
                f"{self._source} has no record of split={self._choices.split!r}; there are: {', '.join(sorted(splits))}"
            )
        self.report.complete = True

    def _look_ahead(self) -> None:
        """Go through the annotations once, so that a wrong order stops the reading before its first record."""
        check = OrderCheck(self._source)
        for raw in self._raws(True):
            if isinstance(raw, RawRecord) and raw.defects:
                try:
                    size = self._size(raw)
                except (OSError, ValueError, ZeroDivisionError):
                    continue  # told when its turn comes
                self._collect(raw, size, check)
        check.verdict(complete=True)

    def _size(self, raw: RawRecord) -> tuple[int, int] | None:
        if raw.space == "pixels" and raw.size is None and raw.image is not None:
            return raw.image.size()
        return raw.size

    def _collect(self, raw: RawRecord, size: tuple[int, int] | None, check: OrderCheck) -> None:
        told = [(numbers(item.box), item) for item in raw.defects or ()]
        usable = [(box, item) for box, item in told if box is not None and np.isfinite(box).all()]
        thinking = _lines_about_places(raw.reasoning, len(told))
        about = {id(item): line for (_, item), line in zip(told, thinking, strict=True)}
        texts = [f"{item.reason if isinstance(item.reason, str) else ''}\n{about[id(item)]}" for _, item in usable]
        boxes = np.array([box for box, _ in usable], dtype=np.float64).reshape(-1, 4)
        check.add(raw.where, boxes, self._order_of(raw), scale_of(raw, size), texts, raw.again)

    def _record(self, raw: RawRecord, ids: set[int], check: OrderCheck) -> Record | None:
        problems: list[Problem] = []
        name = self._unique(raw, ids, problems)
        image, size = self._picture(raw, check, problems)
        items = raw.defects
        if items is None:
            problems.append(Problem(convert.DEFECTS_MISSING, "defects", None))
        defects = []
        if items and (size is not None or raw.space != "pixels"):
            self._collect(raw, size, check)
            order, scale = self._order_of(raw), scale_of(raw, size)
            made = [defect_of(item, i, self._layout, order, scale, problems.append) for i, item in enumerate(items)]
            defects = [d for d in made if d is not None]
        if problems and self._refuse(problems, raw.where, raw.id):
            return None
        assert image is not None
        kinds = tuple(item.kind or "" for item in items or ())
        picture: Any = image  # the field takes a file, too, and opens it when it is asked for
        record = Record(
            image=picture,
            caption=raw.caption,
            defects=DefectSet(tuple(defects), caption=raw.caption, reasoning=raw.reasoning, parse_error=raw.unseen),
            id=name,
            generator=raw.generator,
            split=raw.split,
            kinds=kinds if any(kinds) else (),
            **{"provenance": {"layout": self._layout.title, "where": raw.where}, **raw.extra},
        )
        if self._choices.images:
            try:
                record.image  # noqa: B018 - decodes, and keeps
            except Exception as error:  # decoders raise what they like: OSError, SyntaxError, struct.error, ValueError
                unreadable = Problem(convert.UNREADABLE_IMAGE, "image", f"{image.path} ({error})")
                self._refuse([unreadable], raw.where, raw.id, counted=bool(problems))
                return None
        return record

    def _unique(self, raw: RawRecord, ids: set[int], problems: list[Problem]) -> str:
        name, again = raw.id, 1
        while hash(name) in ids:
            again += 1
            name = f"{raw.id}#{again}"
        ids.add(hash(name))
        if name != raw.id:
            problems.append(Problem(convert.DUPLICATE_ID, "id", raw.id, f"called {name}"))
        return name

    def _picture(
        self, raw: RawRecord, check: OrderCheck, problems: list[Problem]
    ) -> tuple[ImageFile | None, tuple[int, int] | None]:
        """The picture, and the size that its boxes in pixels refer to."""
        image, stated = raw.image, raw.size
        if image is None:
            problems.append(Problem(convert.NO_IMAGE, "image", None))
            return None, stated
        if not self._choices.images and (stated is not None or raw.space != "pixels"):
            return image, stated
        try:
            actual = image.size()
        except FileNotFoundError:
            problems.append(Problem(convert.MISSING_IMAGE, "image", image.path))
            return image, stated
        except Exception as error:  # as above
            problems.append(Problem(convert.UNREADABLE_IMAGE, "image", f"{image.path} ({error})"))
            return image, stated
        if stated is None or raw.space != "pixels":
            return image, actual
        if min(stated) <= 0 or _unlike(stated, actual):
            if min(stated) > 0 and not _unlike((stated[1], stated[0]), actual):
                check.exchanged_size(raw.where, stated, actual, len(raw.defects or ()))
            if not raw.stretched:
                problems.append(Problem(convert.SIZE_DIFFERS, "size", f"{stated}, picture {actual}"))
                return image, None
        return image, stated

    def _refuse(self, problems: list[Problem], where: str, id: str, counted: bool = False) -> bool:
        """Count problems of a record, and say whether it is left out.

        Raises:
            ValueError: by policy ``raise``; FileNotFoundError for a missing picture.
        """
        for problem in problems:
            self.report.add(problem, where, id)
        if self._choices.policy == "raise":
            raise self._error(problems[0], where, id)
        if self._choices.policy == "mend" and all(problem.mended for problem in problems):
            self.report.n_mended += 1
            return False
        self.report.n_skipped += 1
        self.report.n_mended -= counted
        return True

    def _error(self, problem: Problem, where: str, id: str) -> Exception:
        named = f" ({id})" if id else ""
        mend = f", policy='mend' mends this ({problem.mended})" if problem.mended else ""
        kind = FileNotFoundError if problem.name == convert.MISSING_IMAGE else ValueError
        return kind(f"{where}{named}: {problem}. policy='skip' leaves such records out{mend}")


def _lines_about_places(reasoning: str | None, defects: int) -> list[str]:
    """Of a think text that places each defect in a line of its own, these lines; else nothing for each defect."""
    lines = [line for line in (reasoning or "").splitlines() if "image-" in line.lower()]
    return lines if len(lines) == defects else [""] * defects


def _unlike(a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Whether two sizes have another aspect ratio, beyond what rounding does."""
    return abs(a[0] * b[1] - a[1] * b[0]) > 0.02 * a[0] * b[1]
