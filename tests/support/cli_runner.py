"""Runs the command in this process, as from a pipe or as from a terminal."""

from __future__ import annotations

import functools

import pytest
from typer import testing
from typer.testing import CliRunner, Result

from waitroom.cli import app, operations

# Typer makes the command anew for each run of it, which takes longer than most runs.
testing._get_command = functools.cache(testing._get_command)


def invoke(*arguments: object, stdin: str | None = None) -> Result:
    """Runs ``waitroom`` with these arguments."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)


class Run:
    """Runs ``waitroom`` with these arguments, against the gateway at ``url`` unless they name one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
        self._monkeypatch = monkeypatch
        self.url = url

    def __call__(self, *arguments: str, typed: str | None = None) -> Result:
        """With ``typed``, somebody sits at a terminal and types that."""
        self._monkeypatch.setattr(operations, "is_interactive", lambda: typed is not None)
        to = () if {"--admin", "--config"} & set(arguments) else ("--admin", self.url)
        return invoke(*arguments, *to, stdin=typed)
