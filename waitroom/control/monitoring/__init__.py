"""The state of the gateway, for operators."""
