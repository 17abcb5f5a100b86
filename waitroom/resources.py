"""Finds Waitroom's folders of files other than Python: the pages' templates and the example settings."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from waitroom.errors import StartError

_PACKAGE = Path(__file__).resolve().parent


def resource_path(name: Literal["templates", "config"]) -> Path:
    """Return a resource folder: from the installed wheel, or from the repository in an editable install.

    Raises:
        StartError: It is in neither, so the installation is incomplete.
    """
    for folder in (_PACKAGE / "_data" / name, _PACKAGE.parent / name):
        if folder.is_dir():
            return folder
    raise StartError(f'The folder "{name}" is missing from the installation: reinstall Waitroom.')
