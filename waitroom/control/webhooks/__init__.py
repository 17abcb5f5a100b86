"""Webhooks: the conditions that raise an event, and its delivery."""
