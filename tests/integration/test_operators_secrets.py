"""What other users and processes of the machine can learn: from files, command lines and environments."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from support.gateway_process import Gateway

pytestmark = pytest.mark.slow

SECRET = "only-in-the-environment-0123456789"
PASSWORD_HASH = "$argon2id$v=19$m=65536,t=3,p=4$c2FsdHNhbHRzYWx0$2sVVrR6BbQ0hM1dLVfmXgkXV3hsDxs4TAYL5cbIYzcM"
WEBHOOK_SECRET = "the receiver knows this one, too"
TOP = {
    "secrets": None,
    "workers": 1,
    "users": [{"name": "anna", "role": "operator", "password_hash": PASSWORD_HASH}],
    "webhooks": [{"url": "http://127.0.0.1:9/", "secret": WEBHOOK_SECRET}],
}
ROOM = {"name": "shop", "upstream": "http://127.0.0.1:9"}


def disclosed(pid: int) -> bytes:
    """The environment and the command line of a process."""
    return b"".join(Path(f"/proc/{pid}/{name}").read_bytes() for name in ("environ", "cmdline"))


async def test_files_command_lines_and_environments_disclose_no_secret(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    restored = tmp_path / "data" / "people.json"
    restored.write_text('{"users": {}, "tokens": {}}')
    restored.chmod(0o644)
    gateway = Gateway(tmp_path, TOP, [ROOM], environment={"WAITROOM_SECRETS": SECRET})
    before = os.umask(0)
    try:
        await gateway.start()
        os.umask(before)
        children = [one for one in gateway.processes() if one.parent == gateway.process.pid]  # type: ignore[union-attr]
        assert len(children) == 3, "an edge worker, the control process and the store"
        for child in children:
            told = disclosed(child.pid)
            assert b"WAITROOM_" not in told
            for secret in (SECRET, PASSWORD_HASH, WEBHOOK_SECRET):
                assert secret.encode() not in told
        wide = {
            str(path.relative_to(gateway.data_dir)): oct(path.lstat().st_mode)
            for path in gateway.data_dir.rglob("*")
            if stat.S_IMODE(path.lstat().st_mode) & 0o077
        }
        assert wide == {}
    finally:
        os.umask(before)
        await gateway.close()
    assert "made private" in gateway.log
