"""Rehearsals: a small real shop, a crowd to storm it, and the report of what happened."""

DEFAULT_SECONDS = 60.0
DEFAULT_VISITORS = 400
