"""Forwards requests to the shop, and its responses to clients."""
