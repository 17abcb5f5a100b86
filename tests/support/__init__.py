"""Shared test helpers: stand-ins, clients, servers and readers."""
