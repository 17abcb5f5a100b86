"""Requests on their way to the shop, and its answers on their way back."""
