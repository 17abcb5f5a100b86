"""The ``waitroom`` command."""

from waitroom.cli.main import app, main

__all__ = ["app", "main"]
