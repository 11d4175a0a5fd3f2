"""Readers of released layouts, one a file. Each yields :class:`sdg.records.Record` and takes the order of its boxes openly."""
