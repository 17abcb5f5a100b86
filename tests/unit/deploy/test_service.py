"""The systemd unit: its sandbox as systemd itself judges it, and the settings that depend on the gateway's."""

from __future__ import annotations

import subprocess
from configparser import ConfigParser
from pathlib import Path

from support.gateway_process import needs
from waitroom.process.liveness import REPLACING_SECONDS
from waitroom.settings import RoomSettings, Settings

UNIT = Path(__file__).parents[3] / "deploy" / "waitroom.service"
MOST_EXPOSED = 15  # tenths; services without a sandbox have 92 to 96


def test_systemd_finds_the_sandbox_tight() -> None:
    command = [needs("systemd-analyze"), "security", "--no-pager", "--offline=true", f"--threshold={MOST_EXPOSED}"]
    judged = subprocess.run([*command, str(UNIT)], check=False, capture_output=True, text=True, timeout=60)
    assert judged.returncode == 0, judged.stdout + judged.stderr
    assert "Overall exposure level" in judged.stdout


def test_times_and_rights_fit_the_gateway() -> None:
    parser = ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNIT)
    service = parser["Service"]
    defaults = Settings(rooms=(RoomSettings(name="shop", upstream="http://127.0.0.1:3000"),))
    assert (service["Type"], service["UMask"], service["StateDirectoryMode"]) == ("notify", "0077", "0700")
    assert int(service["WatchdogSec"]) >= 2 * defaults.stuck_after_seconds
    assert int(service["WatchdogSec"]) >= REPLACING_SECONDS
    assert int(service["TimeoutStopSec"]) > defaults.grace_seconds
