"""``waitroom sale-link``, against a stand-in for the admin API."""

from __future__ import annotations

from support.cli_runner import Run
from support.fake_admin_api import AT, StandIn
from waitroom.cli.console import ExitCode


def test_only_the_link_goes_to_standard_output(run: Run, there: StandIn) -> None:
    result = run("sale-link", "sale", "--hours", "3", "--note", "screen in the office")
    assert result.exit_code == ExitCode.SUCCESS
    assert result.stdout == f"{there.url}/sale/sale/ttt\n"
    assert AT in result.stderr
    assert there.calls("POST")[-1].body == {"hours": 3, "note": "screen in the office"}


def test_a_link_works_for_seven_days_by_default(run: Run, there: StandIn) -> None:
    assert run("sale-link", "sale").exit_code == ExitCode.SUCCESS
    assert there.calls("POST")[-1].body == {"hours": 168}


def test_links_are_revoked(run: Run, there: StandIn) -> None:
    result = run("sale-link", "sale", "--revoke")
    assert (result.exit_code, result.stdout) == (
        ExitCode.SUCCESS,
        "Done: links to the sale page of sale no longer work.\n",
    )
    (asked,) = there.calls("DELETE")
    assert (asked.path, asked.body) == ("/api/v1/rooms/sale/sale-links", None)


def test_contradictions_and_unknown_rooms_are_explained(run: Run, there: StandIn) -> None:
    assert run("sale-link", "sale", "--revoke", "--hours", "3").exit_code == ExitCode.INVALID_INPUT
    assert run("sale-link", "sale", "--hours", "0").exit_code == ExitCode.INVALID_INPUT
    result = run("sale-link", "sael")
    assert result.exit_code == ExitCode.INVALID_INPUT
    assert "did you mean sale?" in result.stderr
    assert there.calls("DELETE") == []
