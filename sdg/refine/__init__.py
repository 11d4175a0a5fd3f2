"""Repairs that touch only what is broken: detect, edit, detect again, and keep an edit only where it is better."""
