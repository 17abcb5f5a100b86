"""Runs the command in this process, as from a pipe or as from a terminal."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner, Result

from waitroom.cli import app, change


class Run:
    """Runs ``waitroom`` with these arguments, against the gateway at ``url`` unless they name one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
        self._monkeypatch = monkeypatch
        self.url = url

    def __call__(self, *arguments: str, typed: str | None = None) -> Result:
        """With ``typed``, somebody sits at a terminal and types that."""
        self._monkeypatch.setattr(change, "at_a_terminal", lambda: typed is not None)
        to = () if {"--admin", "--config"} & set(arguments) else ("--admin", self.url)
        return CliRunner().invoke(app, [*arguments, *to], input=typed)
