"""The layouts by name, and which of them a path holds."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sdg.boxes import BoxOrder, reorder
from sdg.hub import HUB_ID, HubError, HubOptions, download
from sdg.readers.coco import COCO
from sdg.readers.folder import FOLDER
from sdg.readers.genblemish import GENBLEMISH_27K
from sdg.readers.hadm import HADM
from sdg.readers.own import RECORDS
from sdg.readers.raw import Layout
from sdg.readers.reading import POLICIES, Choices, Policy, Reading
from sdg.readers.richhf import RICHHF_18K
from sdg.readers.sdg30k import SDG_30K

_ALL = (RECORDS, SDG_30K, COCO, HADM, GENBLEMISH_27K, RICHHF_18K, FOLDER)

LAYOUTS: Mapping[str, Layout] = MappingProxyType({layout.name: layout for layout in _ALL})
"""The layouts by name, in the order in which :func:`recognise` tries them."""


def recognise(source: str | Path, name: str | Path | None = None) -> str:
    """Name of the layout that a file or folder is in, found by names of files and first lines.

    Args:
        source: the file or folder.
        name: how messages name it; None is ``source``.

    Raises:
        FileNotFoundError: where there is nothing.
        ValueError: where it looks like none, saying what was looked for.
    """
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f"{source}: no file or folder of that name")
    found = next((known for known, layout in LAYOUTS.items() if layout.recognise(path)), None)
    if found is None:
        looked = "".join(f"\n  {known}: {layout.looks_like}" for known, layout in LAYOUTS.items())
        raise ValueError(f"{name or source} is in no layout that is known; say which with layout=. Looked for:{looked}")
    return found


def read(
    source: str | Path,
    layout: str | None = None,
    *,
    split: str | None = None,
    order: BoxOrder | None = None,
    policy: Policy = "raise",
    images: bool = True,
    check_order: bool = True,
    **options: Any,
) -> Reading:
    """Records of a released layout, one at a time.

    Args:
        source: a file, a folder, or the id of a data set on the Hub, which is downloaded first.
        layout: one of :data:`LAYOUTS`; None recognises it.
        split: ``train``, ``validation`` or ``test``; None reads all there is.
        order: the order of box coordinates, where the layout does not declare it; one that contradicts it is an error.
        policy: what becomes of a record with something wrong: ``raise`` stops there, ``skip`` leaves it out, ``mend``
            mends what can honestly be mended and leaves out the rest.
        images: False leaves pictures unopened until ``record.image`` is asked for.
        check_order: whether data that contradict the order of their boxes stop the reading.
        **options: what the layout takes besides (``docs/data.md``); for the Hub ``revision``, ``token``, ``cache_dir``,
            ``local_files_only`` and ``force_download``.

    Returns:
        The records, as an iterator; its ``report`` counts what was wrong.

    Raises:
        ValueError: for arguments that are none, and an order that is missing or contradicts the layout. While reading:
            by policy ``raise``, and OrderError where the data contradict the order.
        FileNotFoundError: where there is nothing to read.

    Example:
        >>> reading = read("SDG-30K", policy="skip")  # doctest: +SKIP
        >>> clean = sum(len(record.defects) == 0 for record in reading)  # doctest: +SKIP
    """
    if policy not in POLICIES:
        raise ValueError(f"policy={policy!r} is none of {', '.join(POLICIES)}")
    if order is not None:
        reorder([], order)
    path = locate(source, HubOptions(**{f.name: options.pop(f.name) for f in fields(HubOptions) if f.name in options}))
    name = recognise(path, source) if layout is None else layout
    if name not in LAYOUTS:
        raise ValueError(f"layout={name!r} is none of {', '.join(LAYOUTS)}")
    chosen = LAYOUTS[name]
    known = [p for p in inspect.signature(chosen.open).parameters if p not in ("path", "split")]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(f"{name} takes no option {', '.join(unknown)}; it takes {', '.join(known) or 'none'}")
    raws = chosen.open(path, split, **options)
    return Reading(chosen, str(source), raws, Choices(order, policy, images, split, check_order))


def locate(source: str | Path, hub: HubOptions | None = None) -> Path:
    """A path here for a path, or for the id of a data set on the Hub, which is downloaded.

    Args:
        source: the path or id.
        hub: how files of the Hub are found.

    Raises:
        FileNotFoundError: where it is neither, or the Hub does not give it, saying why and what to do.
    """
    path = Path(source)
    if path.exists():
        return path
    if not HUB_ID.fullmatch(str(source)):
        raise FileNotFoundError(f"{source}: no file or folder of that name")
    try:
        return download(str(source), hub or HubOptions(), "dataset")
    except HubError as error:
        raise FileNotFoundError(f"{source} is no file or folder here, and could not be fetched: {error}") from error
