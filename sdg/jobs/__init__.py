"""Detection of many pictures as a job: where they come from, one batch after another, and results that survive a stop.

:mod:`~sdg.jobs.pictures` names the pictures, :mod:`~sdg.jobs.run` shows them to a detector, and
:mod:`~sdg.jobs.results` keeps the answers on disk.
"""
