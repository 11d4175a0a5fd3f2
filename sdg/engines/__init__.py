"""Where the detector's text comes from. :mod:`sdg.engines.base` says what an engine is."""
