"""Shops to put a gateway before."""
