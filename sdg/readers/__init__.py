"""Readers of released layouts, one a file. Each yields records and takes the order of its boxes openly."""
