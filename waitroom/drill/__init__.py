"""Drills: a small real shop, simulated visitors to overload it, and a report of the result."""

DEFAULT_SECONDS = 60.0
DEFAULT_VISITORS = 400
