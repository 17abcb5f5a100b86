"""Shops and crowds in arithmetic, for the autopilot."""
