"""Requests on their way to the shop."""
