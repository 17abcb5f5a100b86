"""The store: connections to it and the scripts that run in it."""
