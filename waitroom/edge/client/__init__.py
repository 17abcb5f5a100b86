"""Clients' connections on the public port."""
