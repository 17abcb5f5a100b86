"""Visitors without a pass: how they join, and the responses they get."""
