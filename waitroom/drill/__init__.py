"""Rehearsals: a small real shop, a crowd to storm it, and the report of what happened."""
