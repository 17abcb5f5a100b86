"""What an installation puts beside other people's packages."""

from __future__ import annotations

import re
from importlib.metadata import files


def test_nothing_is_installed_under_another_name():
    found = files("waitroom")
    assert found
    # Where the checkout itself is used, one file says where it lies; ".." leads to the command.
    names = {path.parts[0] for path in found} - {"..", "_editable_impl_waitroom.pth"}
    assert {re.split("[-.]", name)[0] for name in names} <= {"waitroom", "waitroom__mypyc"}
