"""The gateway, the shops, files and limits; exit codes; and the list of findings in the documentation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from waitroom.control.monitoring.gateways import ClockReading, gateway_hints
from waitroom.doctor.facts import FileFacts, GatewayFacts, UpstreamFacts
from waitroom.doctor.findings import Finding, exit_code, ordered
from waitroom.doctor.system_checks import check_files, check_gateway, check_upstreams
from waitroom.settings import RoomSettings, Settings
from waitroom.store.eviction import eviction_warning

ROOT = Path(__file__).parents[3]
SETTINGS = Settings(rooms=(RoomSettings(name="shop", upstream="http://127.0.0.1:3000"),), client_connections=1000)


@pytest.mark.parametrize(
    ("gateway", "ids"),
    [
        (GatewayFacts(admin=True, serving=True), []),
        (GatewayFacts(admin=False, serving=False), ["gateway-unreachable"]),
        (GatewayFacts(admin=True, serving=False), ["gateway-not-serving"]),
        (GatewayFacts(admin=True, serving=True, hints=(("shop", "Most visitors come from 10.0.0.1."),)), ["room-hint"]),
    ],
)
def test_the_gateway(gateway: GatewayFacts, ids: list[str]) -> None:
    assert [finding.id for finding in check_gateway(gateway, SETTINGS)] == ids


def test_hints_that_are_findings_of_their_own_are_not_repeated() -> None:
    hints = [eviction_warning("allkeys-lru"), *gateway_hints(ClockReading(9.0, 0.0), True, ["gw2"])]
    gateway = GatewayFacts(admin=True, serving=True, hints=tuple(("shop", hint) for hint in hints))
    assert list(check_gateway(gateway, SETTINGS)) == []


@pytest.mark.parametrize(
    ("upstream", "ids"),
    [
        (UpstreamFacts("shop", "http://a:1", "/", status=200, seconds=0.1), []),
        (UpstreamFacts("shop", "http://a:1", "/", status=404), []),
        (UpstreamFacts("shop", "http://a:1", "/", failure="Connection refused"), ["upstream-unreachable"]),
        (UpstreamFacts("shop", "http://a:1", "/", status=503), ["upstream-failing"]),
        (UpstreamFacts("shop", "http://a:1", "/", status=200, seconds=2.5), ["upstream-slow"]),
    ],
)
def test_the_shops(upstream: UpstreamFacts, ids: list[str]) -> None:
    assert [finding.id for finding in check_upstreams([upstream])] == ids


@pytest.mark.parametrize(
    ("files", "ids"),
    [
        (FileFacts(modes={"/d": 0o700, "/d/secret": 0o600}, free_bytes=1 << 40, open_files=100_000), []),
        (FileFacts(modes={"/d": 0o755, "/d/secret": 0o640}), ["file-mode", "file-mode"]),
        (FileFacts(free_bytes=1 << 20), ["disk-space"]),
        (FileFacts(open_files=1024), ["open-files"]),
        (FileFacts(open_files=1384), []),
    ],
)
def test_files_and_limits(files: FileFacts, ids: list[str]) -> None:
    assert [finding.id for finding in check_files(files, SETTINGS)] == ids


def finding(level: str, id_: str = "x") -> Finding:
    return Finding(id_, level, "What.", "Do.")  # type: ignore[arg-type]


def test_exit_codes_and_order() -> None:
    note, warning, error = finding("note"), finding("warning"), finding("error")
    assert [exit_code(found) for found in ([], [note], [note, warning], [error])] == [0, 0, 1, 1]
    assert exit_code([finding("error", "store-unreachable"), warning]) == 3
    assert exit_code([finding("error", "gateway-unreachable")]) == 3
    assert ordered([note, error, warning]) == [error, warning, note]


def test_the_documentation_lists_every_finding() -> None:
    source = "".join(path.read_text() for path in (ROOT / "waitroom" / "doctor").glob("*.py"))
    ids = set(re.findall(r'Finding\(\s*"([a-z-]+)"', source))
    listed = re.findall(r"^\| `([a-z-]+)` \|", (ROOT / "docs" / "doctor.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(ids)
