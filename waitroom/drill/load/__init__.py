"""Simulated visitors, one by one and as a crowd."""
