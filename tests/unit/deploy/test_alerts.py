"""The alert rules: each fires on what it is for and is quiet on what it isn't, as promtool sees it."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.gateway_process import needs

pytestmark = pytest.mark.interpreted

ROOT = Path(__file__).parents[3]
RULES = ROOT / "deploy" / "alerts.yml"
ALERTS = re.findall(r"^ +- alert: (\w+)$", RULES.read_text(), re.MULTILINE)

# A room in which everything is well: a sample every 15 s for an hour, as Prometheus' notation has it.
GATEWAY = {
    "up": "1x240",
    "waitroom_workers_wanted": "2x240",
    "waitroom_workers_alive": "2x240",
    "waitroom_store_may_evict": "0x240",
    "waitroom_gateways_with_other_secrets": "0x240",
    "waitroom_clock_offset_seconds": "0.1x240",
}
ROOM = {
    "waitroom_store_up": "1x240",
    "waitroom_last_tick_timestamp_seconds": "0+15x240",
    "waitroom_waiting_visitors": "5000x240",
    "waitroom_called_visitors": "20x240",
    "waitroom_active_sessions": "500x240",
    "waitroom_max_active_sessions": "1000x240",
    "waitroom_rate_per_minute": "600x240",
    'waitroom_room_state{state="open"}': "1x240",
    'waitroom_room_state{state="paused"}': "0x240",
    "waitroom_admitted_total": "0+150x240",
    "waitroom_limit_overshoot_total": "3x240",
    "waitroom_recoveries_total": "1x240",
    "waitroom_upstream_request_seconds_count": "0+1500x240",
    "waitroom_upstream_failures_total": "0+1x240",
    "waitroom_eta_error_seconds_count": "0+150x240",
    'waitroom_eta_error_seconds_bucket{le="30"}': "0+145x240",
    'waitroom_eta_error_seconds_bucket{le="60"}': "0+149x240",
    'waitroom_eta_error_seconds_bucket{le="300"}': "0+150x240",
    'waitroom_eta_error_seconds_bucket{le="+Inf"}': "0+150x240",
    'waitroom_wait_seconds_bucket{le="300"}': "0+10x240",
    'waitroom_wait_seconds_bucket{le="600"}': "0+150x240",
    'waitroom_wait_seconds_bucket{le="+Inf"}': "0+150x240",
}
# How it may be otherwise, from the tenth minute on.
PAUSED = {'waitroom_room_state{state="open"}': "1x40 0x200", 'waitroom_room_state{state="paused"}': "0x40 1x200"}
NOBODY_GOES_IN = {"waitroom_admitted_total": "0+150x40 6000x200"}
FULL = {"waitroom_active_sessions": "500x40 1000x200", "waitroom_called_visitors": "20x40 0x200"}
FEW_GO_IN = {"waitroom_admitted_total": "0+150x40 6000+75x200"}
STORE_DOWN = {"waitroom_store_up": "1x40 0x200"}
OFF_BY_MINUTES = {
    'waitroom_eta_error_seconds_bucket{le="30"}': "0+10x240",
    'waitroom_eta_error_seconds_bucket{le="60"}': "0+20x240",
}


@dataclass(frozen=True)
class Case:
    """One alert on one course of things: does it fire at the 25th minute?"""

    alert: str
    course: dict[str, str]
    fires: bool
    of_room: bool = True


CASES = {
    "the gateway can't be asked": Case("WaitroomGatewayDown", {"up": "1x40 0x200"}, True, of_room=False),
    "no worker is alive": Case("WaitroomGatewayDown", {"waitroom_workers_alive": "2x40 0x200"}, True, of_room=False),
    "one of two workers is alive": Case("WaitroomGatewayDown", {"waitroom_workers_alive": "1x240"}, False),
    "another program can't be asked": Case("WaitroomGatewayDown", {'up{job="other"}': "0x240"}, False),
    "one worker is missing": Case("WaitroomWorkerMissing", {"waitroom_workers_alive": "2x40 1x200"}, True, False),
    "no worker is left, which another alert says": Case(
        "WaitroomWorkerMissing", {"waitroom_workers_alive": "2x40 0x200"}, False
    ),
    "a worker was replaced at once": Case("WaitroomWorkerMissing", {"waitroom_workers_alive": "2x97 1 2x200"}, False),
    "the store is down": Case("WaitroomStoreDown", STORE_DOWN, True),
    "the store was down": Case("WaitroomStoreDown", {"waitroom_store_up": "1x40 0x40 1x160"}, False),
    "ticks stop": Case("WaitroomTicksStopped", {"waitroom_last_tick_timestamp_seconds": "0+15x40 600x200"}, True),
    "ticks go on": Case("WaitroomTicksStopped", {}, False),
    "ticks stop with the store": Case(
        "WaitroomTicksStopped", {"waitroom_last_tick_timestamp_seconds": "0+15x40 600x200", **STORE_DOWN}, False
    ),
    "nobody goes in": Case("WaitroomQueueStuck", NOBODY_GOES_IN, True),
    "nobody goes in, though called": Case(
        "WaitroomQueueStuck",
        {**NOBODY_GOES_IN, "waitroom_active_sessions": "0x240", "waitroom_called_visitors": "1000x240"},
        True,
    ),
    "nobody goes into a full shop": Case("WaitroomQueueStuck", {**NOBODY_GOES_IN, **FULL}, False),
    "nobody goes into a paused room": Case("WaitroomQueueStuck", {**NOBODY_GOES_IN, **PAUSED}, False),
    "nobody goes in, the store is down": Case("WaitroomQueueStuck", {**NOBODY_GOES_IN, **STORE_DOWN}, False),
    "nobody goes in at one an hour": Case(
        "WaitroomQueueStuck", {**NOBODY_GOES_IN, "waitroom_rate_per_minute": "0.02x240"}, False
    ),
    "nobody waits": Case("WaitroomQueueStuck", {**NOBODY_GOES_IN, "waitroom_waiting_visitors": "0x240"}, False),
    "some go in": Case("WaitroomQueueStuck", FEW_GO_IN, False),
    "half of the rate": Case("WaitroomRateNotReached", FEW_GO_IN, True),
    "all of the rate": Case("WaitroomRateNotReached", {}, False),
    "half of the rate, the shop is full": Case("WaitroomRateNotReached", {**FEW_GO_IN, **FULL}, False),
    "half of the rate, no more wait": Case(
        "WaitroomRateNotReached", {**FEW_GO_IN, "waitroom_waiting_visitors": "40x240"}, False
    ),
    "half of the rate, paused": Case("WaitroomRateNotReached", {**FEW_GO_IN, **PAUSED}, False),
    "a tenth of the requests fail": Case(
        "WaitroomShopFailing", {"waitroom_upstream_failures_total": "0x40 0+167x200"}, True
    ),
    "one in 1500 requests fails": Case("WaitroomShopFailing", {}, False),
    "two of three requests a minute fail": Case(
        "WaitroomShopFailing",
        {
            "waitroom_upstream_request_seconds_count": "0+0.75x240",
            "waitroom_upstream_failures_total": "0+0.5x240",
        },
        False,
    ),
    "waits are off by minutes": Case("WaitroomEtaOff", OFF_BY_MINUTES, True),
    "waits are off by a few seconds": Case("WaitroomEtaOff", {}, False),
    "waits of hours are off by minutes": Case(
        "WaitroomEtaOff",
        {
            **OFF_BY_MINUTES,
            'waitroom_wait_seconds_bucket{le="300"}': "0x240",
            'waitroom_wait_seconds_bucket{le="600"}': "0x240",
            'waitroom_wait_seconds_bucket{le="3600"}': "0+150x240",
        },
        False,
    ),
    "the waits of a few are off": Case(
        "WaitroomEtaOff", {**OFF_BY_MINUTES, "waitroom_eta_error_seconds_count": "0+0.1x240"}, False
    ),
    "more than max_active": Case("WaitroomOvershoot", {"waitroom_limit_overshoot_total": "3x90 5x150"}, True),
    "more than max_active long ago": Case("WaitroomOvershoot", {"waitroom_limit_overshoot_total": "3x20 5x220"}, False),
    "the store lost data": Case("WaitroomStoreLostData", {"waitroom_recoveries_total": "1x90 2x150"}, True),
    "the store lost data long ago": Case("WaitroomStoreLostData", {"waitroom_recoveries_total": "1x20 2x220"}, False),
    "the store may evict": Case("WaitroomStoreMayEvict", {"waitroom_store_may_evict": "0x40 1x200"}, True, False),
    "the store could evict": Case("WaitroomStoreMayEvict", {"waitroom_store_may_evict": "1x40 0x200"}, False),
    "other secrets": Case("WaitroomSecretsDiffer", {"waitroom_gateways_with_other_secrets": "1x240"}, True, False),
    "a rotation of secrets": Case(
        "WaitroomSecretsDiffer", {"waitroom_gateways_with_other_secrets": "0x90 1x15 0x135"}, False
    ),
    "a clock 3 s behind": Case("WaitroomClockOff", {"waitroom_clock_offset_seconds": "-3x240"}, True, False),
    "a clock 1 s behind": Case("WaitroomClockOff", {"waitroom_clock_offset_seconds": "-1x240"}, False),
}


def promtool(*arguments: str | Path) -> str:
    done = subprocess.run([needs("promtool"), *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def try_rules(folder: Path, test: dict[str, object]) -> None:
    file = folder / "test.yml"
    # JSON is YAML as well.
    file.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "15s", "tests": [test]}))
    promtool("test", "rules", file)


def series(name: str, course: dict[str, str]) -> list[dict[str, str]]:
    """The course of things in a room and its gateway, with the labels that Prometheus and the room give."""
    return [
        {
            "series": labelled(metric, name, "" if metric.partition("{")[0] in GATEWAY else f'room="{name}"'),
            "values": values,
        }
        for metric, values in course.items()
    ]


def labelled(metric: str, name: str, room: str) -> str:
    metric, _, labels = metric.rstrip("}").partition("{")
    given = [part for part in (labels, room, f'instance="{name}:8081"') if part]
    if "job=" not in labels:
        given.append('job="waitroom"')
    return f"{metric}{{{','.join(given)}}}"


def rule_test(cases: dict[str, Case]) -> dict[str, object]:
    """A test of several cases at the same time, each with a room and a gateway of its own name."""
    return {
        "interval": "15s",
        "input_series": [
            one for name, case in cases.items() for one in series(name, {**GATEWAY, **ROOM, **case.course})
        ],
        "promql_expr_test": [expectation(name, case) for name, case in cases.items()],
    }


def expectation(name: str, case: Case) -> dict[str, object]:
    severity = re.search(rf"alert: {case.alert}\n(?:.*\n)*?.*severity: (\w+)", RULES.read_text())
    assert severity
    labels = {"alertname": case.alert, "alertstate": "firing", "job": "waitroom", "severity": severity[1]}
    if case.of_room:
        labels["room"] = name
    if not case.of_room or case.alert == "WaitroomStoreDown":
        labels["instance"] = f"{name}:8081"
    told = ",".join(f'{label}="{value}"' for label, value in labels.items())
    firing = f'ALERTS{{alertname="{case.alert}",alertstate="firing"'
    return {
        "expr": f'{firing},room="{name}"}} or {firing},instance="{name}:8081"}}',
        "eval_time": "25m",
        "exp_samples": [{"labels": f"ALERTS{{{told}}}", "value": 1}] if case.fires else [],
    }


def test_an_alert_fires_when_it_should_and_only_then(tmp_path: Path) -> None:
    """All cases in one run, because starting promtool and its database takes longer than a case."""
    try_rules(tmp_path, rule_test(CASES))


def test_a_case_that_fails_is_named(tmp_path: Path) -> None:
    cases = {
        "sale": Case("WaitroomStoreDown", {}, False),
        "the wrong one": Case("WaitroomStoreDown", STORE_DOWN, False),
    }
    with pytest.raises(AssertionError, match=r"FAILED:\n *expr: .*the wrong one") as failed:
        try_rules(tmp_path, rule_test(cases))
    assert str(failed.value).count("expr: ") == 1


def test_all_is_quiet_while_all_is_well(tmp_path: Path) -> None:
    test = rule_test({"sale": Case("WaitroomStoreDown", {}, False)})
    test["promql_expr_test"] = [
        {"expr": 'ALERTS{alertstate="firing"}', "eval_time": f"{at}m", "exp_samples": []} for at in range(1, 60)
    ]
    try_rules(tmp_path, test)


def test_an_alert_says_what_is_wrong_and_where(tmp_path: Path) -> None:
    test = rule_test({"sale": CASES["the store is down"]})
    del test["promql_expr_test"]
    description = (
        "The control process of sale:8081 gets no reply from the store for room sale. No new visitors are admitted; "
        "admitted visitors keep shopping."
    )
    expected = {
        "exp_labels": {"severity": "critical", "room": "sale", "job": "waitroom", "instance": "sale:8081"},
        "exp_annotations": {
            "summary": "The store doesn't answer for room sale",
            "description": description,
            "runbook_url": "docs/runbook.md#store-down",
        },
    }
    test["alert_rule_test"] = [{"eval_time": "25m", "alertname": "WaitroomStoreDown", "exp_alerts": [expected]}]
    try_rules(tmp_path, test)


def test_the_rules_are_rules() -> None:
    assert f"{len(ALERTS)} rules found" in promtool("check", "rules", RULES)


def test_every_alert_is_tried_both_ways() -> None:
    tried = {(case.alert, case.fires) for case in CASES.values()}
    assert tried == {(alert, fires) for alert in ALERTS for fires in (True, False)}


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_says_how_bad_it_is_and_where_its_runbook_is(alert: str) -> None:
    text = RULES.read_text().partition(f"alert: {alert}\n")[2].partition("- alert:")[0]
    for key in ("severity", "summary", "description", "runbook_url"):
        assert re.search(rf"^ +{key}: \S", text, re.MULTILINE), key
    assert re.search("severity: (critical|warning)$", text, re.MULTILINE)
    section = re.search(r"runbook_url: (\S+)#(\S+)$", text, re.MULTILINE)
    assert section
    headings = re.findall(r"^## (.*)$", (ROOT / section[1]).read_text(), re.MULTILINE)
    assert section[2] in {heading.lower().replace(" ", "-") for heading in headings}
