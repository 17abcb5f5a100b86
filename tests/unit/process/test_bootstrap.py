"""The start of our processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import typer

from waitroom.cli import app
from waitroom.process.bootstrap import child_environment, python_command

MODULE = """
import gc, json, sys

import_time = gc.isenabled()

def main():
    print(json.dumps([sys.argv[1:], import_time, gc.isenabled(), gc.get_freeze_count()]))
"""


def test_nothing_is_collected_during_imports_and_imported_objects_are_frozen(tmp_path: Path) -> None:
    (tmp_path / "begun.py").write_text(MODULE)
    command = python_command("waitroom.process.bootstrap", "begun", "1", "two")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}

    out = subprocess.run(command, check=True, capture_output=True, env=environment, timeout=60).stdout

    arguments, while_imported, afterwards, frozen = json.loads(out)
    assert arguments == ["1", "two"]
    assert (while_imported, afterwards) == (False, True)
    assert frozen > 1000


def test_the_command_and_the_module_are_the_same(tmp_path: Path) -> None:
    command = Path(sys.executable).parent / "waitroom"
    output = [
        subprocess.run([*how, "--version"], check=True, capture_output=True, cwd=tmp_path, timeout=60).stdout
        for how in (python_command("waitroom"), (str(command),))
    ]

    assert output[0] == output[1] != b""


def test_the_version_imports_neither_gateway_nor_settings(tmp_path: Path) -> None:
    """Nor their imports: a command that prints one line starts quickly."""
    program = "import sys; sys.argv[1:] = ['--version']; from waitroom.cli import main; import atexit; "
    program += "atexit.register(lambda: print(*sorted(sys.modules))); main()"

    out = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, cwd=tmp_path, timeout=60
    ).stdout

    output, _, imported = out.decode().partition("\n")
    assert output.startswith("waitroom ")
    assert not {"pydantic", "redis", "asyncio", "structlog", "jinja2", "waitroom.settings.gateway"} & set(
        imported.split()
    )


def test_every_command_is_found_in_its_module() -> None:
    group = typer.main.get_command(app)

    assert {name: group.get_command(typer.Context(group), name).name for name in group.commands} == {
        name: name for name in group.commands
    }


def test_children_inherit_no_settings() -> None:
    given = {"PATH": "/bin", "WAITROOM_REDIS_URL": "redis://:secret@127.0.0.1", "Waitroom_secrets": "x", "HOME": "/"}
    assert child_environment(given) == {"PATH": "/bin", "HOME": "/"}
