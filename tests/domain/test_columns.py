"""The table of tenants has the format of kubectl: ages, padding, one line for each tenant."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from decklog.domain.tenancy.columns import COLUMNS, age, table
from decklog.domain.tenancy.spec import parse_spec
from decklog.domain.tenancy.status import Condition, TenantListing
from decklog.domain.tenant import Isolation, State

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ACME = TenantListing(
    name="acme",
    uid="uid-1",
    isolation=Isolation.DEDICATED,
    retention_days=365,
    state=State.ACTIVE,
    display_name="Acme",
    generation=1,
    created_at=NOW - timedelta(days=4, hours=2),
    deleted_at=None,
    schema="t_acme",
    index="decklog-t-acme",
    queue="decklog-t-acme-wake",
    cell="default",
    spec=parse_spec({"retention": {"days": 365}}),
    conditions=(
        Condition("Ready", "True", "Ready", "The tenant can be used.", 1, "2026-02-01T00:00:00Z"),
        Condition("SearchReady", "True", "Provisioned", "", 1, "2026-02-01T00:00:00Z"),
        Condition("QueueReady", "True", "NotConfigured", "", 1, "2026-02-01T00:00:00Z"),
    ),
)


def changed(**values: Any) -> TenantListing:
    return msgspec.structs.replace(ACME, **values)


@pytest.mark.parametrize(
    ("span", "told"),
    [
        (timedelta(seconds=-5), "0s"),
        (timedelta(), "0s"),
        (timedelta(seconds=119.9), "119s"),
        (timedelta(minutes=2), "2m"),
        (timedelta(minutes=9, seconds=59), "9m59s"),
        (timedelta(minutes=179, seconds=59), "179m"),
        (timedelta(hours=3), "3h"),
        (timedelta(hours=7, minutes=30), "7h30m"),
        (timedelta(hours=47, minutes=59), "47h"),
        (timedelta(hours=48), "2d"),
        (timedelta(days=7, hours=23), "7d23h"),
        (timedelta(days=8, hours=23), "8d"),
        (timedelta(days=729), "729d"),
        (timedelta(days=730), "2y"),
        (timedelta(days=731), "2y1d"),
        (timedelta(days=365 * 8 + 100), "8y"),
    ],
)
def test_age_is_formatted_as_in_kubectl(span: timedelta, told: str) -> None:
    assert age(span) == told


def test_table_has_a_line_per_tenant_and_three_blanks_between_columns() -> None:
    assert table([ACME, changed(name="a-much-longer-name", conditions=())], NOW) == (
        "NAME                 READY   REASON   ISOLATION   RETENTION   AGE\n"
        "acme                 True    Ready    Dedicated   365         4d2h\n"
        "a-much-longer-name                    Dedicated   365         4d2h\n"
    )


def test_wide_table_leaves_out_names_of_unconfigured_backends() -> None:
    header, row = table([ACME], NOW, wide=True).splitlines()
    assert header.split() == ["NAME", *(column.name.upper() for column in COLUMNS)]
    assert row.split()[6:9] == ["default", "t_acme", "decklog-t-acme"]
    assert "decklog-t-acme-wake" not in row


def test_table_strips_line_breaks_and_control_characters() -> None:
    nasty = Condition("Ready", "False", "NotReady", "\x1b[2Jgone\nsecond line", 1, "2026-02-01T00:00:00Z")
    lines = table([changed(conditions=(nasty,))], NOW, wide=True).splitlines()
    assert len(lines) == 2
    assert lines[1].endswith("?[2Jgone...")


def test_listing_shows_spec_as_in_manifest_and_no_storage_names() -> None:
    shown = ACME.shown()
    assert (shown["state"], shown["spec"]) == ("active", {"retention": {"days": 365}})
    assert shown["conditions"][0]["observedGeneration"] == 1
    assert not {"uid", "schema", "index", "queue", "cell"} & shown.keys()
