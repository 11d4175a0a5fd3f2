"""Data sets of defects in the layouts that they are released in, read as records.

:func:`read` yields :class:`~sdg.records.Record`. A layout is one small file that says what its annotations hold; one
pipeline for all of them converts the order and space of boxes, applies the policy for bad data, counts what is wrong
and stops where the data contradict the declared order of coordinates.
"""

from sdg.readers.layouts import LAYOUTS, read, recognise
from sdg.readers.order import OrderError
from sdg.readers.raw import Layout
from sdg.readers.reading import Reading
from sdg.readers.report import Example, Report

__all__ = ["LAYOUTS", "Example", "Layout", "OrderError", "Reading", "Report", "read", "recognise"]
