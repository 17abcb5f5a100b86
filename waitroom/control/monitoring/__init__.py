"""The state of the gateway as operators see it."""
