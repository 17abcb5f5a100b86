"""Visitors without a pass: how they join and what they are told."""
