"""Alerts fire on their conditions and are quiet otherwise, as Prometheus evaluates them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.alerts import firing
from tests.support.charts import CHART, MATRIX, Helm, of

MINUTES = 120
TOLD = (CHART / "files/alerts.yaml").read_text().replace("RELEASE_NAMESPACE", "here").replace("BEHIND_RECORDS", "100000")
RULES: dict[str, dict[str, Any]] = {rule["alert"]: rule for group in yaml.safe_load(TOLD)["groups"] for rule in group["rules"]}
AWAY = {"DecklogOperatorAway", "DecklogWorkersAway"}
"""They fire where nothing is told at all."""

# For each alert: series with which it fires, and series with which it does not. `a+bxn` grows n times by b, once a minute.
CASES: dict[str, tuple[list[str], list[str]]] = {
    "DecklogRequestsFail": (
        ['decklog_http_requests_total{status="201"} 0+600x120', 'decklog_http_requests_total{status="503"} 0+20x120'],
        ['decklog_http_requests_total{status="201"} 0+6000x120', 'decklog_http_requests_total{status="429"} 0+6000x120'],
    ),
    "DecklogRecordsDamaged": (
        ['decklog_records_damaged_total{read="single"} 0+0x9 1+0x120', 'decklog_records_damaged_total{read="list"} 0+0x120'],
        ['decklog_records_damaged_total{read="single"} 3+0x120', 'decklog_records_damaged_total{read="list"} 0+0x120'],
    ),
    "DecklogCommitsSlow": (
        ['decklog_append_group_seconds_bucket{le="1"} 0+10x120', 'decklog_append_group_seconds_bucket{le="5"} 0+100x120',
         'decklog_append_group_seconds_bucket{le="+Inf"} 0+100x120'],
        ['decklog_append_group_seconds_bucket{le="1"} 0+1000x120', 'decklog_append_group_seconds_bucket{le="5"} 0+1001x120',
         'decklog_append_group_seconds_bucket{le="+Inf"} 0+1001x120'],
    ),
    "DecklogCertificateExpires": (
        ['decklog_http_certificate_expiry_timestamp_seconds{pod="a"} 600000+0x120',
         'decklog_http_certificate_expiry_timestamp_seconds{pod="b"} 9000000+0x120'],
        ['decklog_http_certificate_expiry_timestamp_seconds{pod="a"} 9000000+0x120',
         'decklog_http_certificate_expiry_timestamp_seconds{pod="b"} 0+0x120'],
    ),
    "DecklogSearchBehind": (
        ['decklog_consumer_behind_records{consumer="indexer", pod="a"} 200000+0x120',
         'decklog_consumer_behind_records{consumer="indexer", pod="b"} 190000+0x120'],
        # All workers report the same records, so the number of workers does not multiply the lag.
        [f'decklog_consumer_behind_records{{consumer="indexer", pod="{pod}"}} 90000+0x120' for pod in "abcdef"],
    ),
    "DecklogWorkersAway": (
        ["decklog_keeper_progress_timestamp_seconds 1+0x10 stale"],
        ['decklog_keeper_progress_timestamp_seconds{pod="a"} 1+0x10 stale', 'decklog_keeper_progress_timestamp_seconds{pod="b"} 1+0x120'],
    ),
    "DecklogConsumerFails": (
        ['decklog_consumer_failures_total{consumer="indexer"} 0+2x120', 'decklog_consumer_batches_total{consumer="indexer"} 7+0x120'],
        ['decklog_consumer_failures_total{consumer="indexer"} 0+2x120', 'decklog_consumer_batches_total{consumer="indexer"} 0+9x120'],
    ),
    "DecklogSearchGaps": (
        ['decklog_search_gap_records_total{pod="a"} 0+0x9 40+0x120', 'decklog_search_gap_unrepaired_spans_total{pod="a"} 0+0x130'],
        ['decklog_search_gap_records_total{pod="a"} 40+0x130', 'decklog_search_gap_unrepaired_spans_total{pod="a"} 3+0x130'],
    ),
    "DecklogPartitionsNotMade": (
        [f"decklog_keeper_progress_timestamp_seconds -{6 * 3600 + 60}+0x120"],
        ["decklog_keeper_progress_timestamp_seconds -3000+60x120"],
    ),
    "DecklogWakeUpsFail": (
        ["decklog_wake_ups_failed_total 0+1x120"],
        ["decklog_wake_ups_failed_total 5+0x120", "decklog_wake_ups_sent_total 0+100x120"],
    ),
    "DecklogArchiveFails": (
        ["decklog_archive_failures_total 0+1x120"],
        ["decklog_archive_failures_total 0+1x120", "decklog_archive_parts_total 0+3x120"],
    ),
    "DecklogOperatorAway": (
        ['decklog_operator_leader{pod="a"} 0+0x120', 'decklog_operator_leader{pod="b"} 0+0x120'],
        ['decklog_operator_leader{pod="a"} 1+0x120', 'decklog_operator_leader{pod="b"} 0+0x120'],
    ),
    "DecklogTenantsNotReady": (
        ['decklog_operator_tenants{ready="True"} 9+0x120', 'decklog_operator_tenants{ready="False"} 1+0x120'],
        ['decklog_operator_tenants{ready="True"} 9+0x120', 'decklog_operator_tenants{ready="False"} 0+0x120'],
    ),
    "DecklogTenantsOverQuota": (["decklog_operator_tenants_over_quota 1+0x120"], ["decklog_operator_tenants_over_quota 0+0x120"]),
    "DecklogRotationsDue": (["decklog_operator_rotations_due 2+0x120"], ["decklog_operator_rotations_due 0+0x120"]),
}  # fmt: skip


def placed(series: str, namespace: str) -> str:
    """Return the series with the label of its namespace."""
    name, braced, rest = series.partition("{")
    if braced:
        return f'{name}{{namespace="{namespace}", {rest}'
    name, _, values = series.partition(" ")
    return f'{name}{{namespace="{namespace}"}} {values}'


def fires(program: Path, alert: str, series: list[str], namespace: str = "here") -> bool:
    """Return whether the alert fires at any minute."""
    return any(firing(program, RULES[alert], [placed(each, namespace) for each in series], MINUTES))


def test_every_alert_has_a_case() -> None:
    assert CASES.keys() == RULES.keys()


@pytest.mark.parametrize("alert", CASES)
def test_alert_fires_on_its_condition_and_not_before(promql: Path, alert: str) -> None:
    bad, good = CASES[alert]
    assert fires(promql, alert, bad)
    assert not fires(promql, alert, good)


@pytest.mark.parametrize("alert", sorted(CASES.keys() - AWAY))
def test_alert_ignores_series_of_another_release(promql: Path, alert: str) -> None:
    assert not fires(promql, alert, CASES[alert][0], namespace="elsewhere")


@pytest.mark.parametrize(
    ("alert", "series"),
    [
        ("DecklogOperatorAway", "decklog_operator_leader 1+0x120"),
        ("DecklogWorkersAway", "decklog_keeper_progress_timestamp_seconds 1+0x120"),
    ],
)
def test_alert_fires_when_a_target_reports_nothing(promql: Path, alert: str, series: str) -> None:
    assert fires(promql, alert, [series], namespace="elsewhere")
    assert not fires(promql, alert, [series])


@pytest.mark.parametrize("values", [values for values in MATRIX if values != "operator"])
def test_release_contains_the_alerts_of_its_components(chart: Helm, values: str) -> None:
    [rule] = of(chart.render(values, "--set", "metrics.prometheusRule.enabled=true"), "PrometheusRule")
    told = {each["alert"] for group in rule["spec"]["groups"] for each in group["rules"]}
    runs = {"api", "worker"} if values == "owned" else {"api", "worker", "operator"}
    assert told == {alert for alert, each in RULES.items() if each["labels"]["component"] in runs}
