"""Numbers and SQLSTATEs of refusals in the SQL files, compared with `Refusal`."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from importlib.resources import files

import pytest

from decklog.domain.errors import DecklogError
from decklog.domain.log import LogName
from decklog.domain.records.append import AppendRequest, Rate, Status
from decklog.timescale.records.refusals import ADMITTED, KNOWN_ID, Refusal, refusal
from tests.support.memory import make_tenant
from tests.support.records import prepared

FILES = {
    path.name: path.read_text() for path in files("decklog.timescale").joinpath("sql").iterdir() if path.name.endswith(".sql")
}
NUMBERED = r"(\d)(?:::smallint)?;? +-- ([A-Z_]+)$"


def admission() -> str:
    """Return the body of `decklog.admission`."""
    [body] = re.findall(r"FUNCTION decklog\.admission\(.*?\$\$(.*?)\$\$", FILES["cell.sql"], re.DOTALL)
    return str(body)


def test_refusals_are_the_numbers_that_the_admission_function_returns() -> None:
    named = {(name, int(number)) for number, name in re.findall(rf"THEN {NUMBERED}", admission(), re.MULTILINE)}
    assert named == {(each.name, each.value) for each in Refusal}
    assert {int(number) for number in re.findall(r"(?:THEN|ELSE) (\d)", admission())} == {ADMITTED, *Refusal}


def test_append_functions_take_refusals_from_the_admission_function_only() -> None:
    """Numbers in comparisons have their names beside them."""
    for name in ("cell.sql", "relations.sql"):
        assert re.findall(r"refused := (.{18})", FILES[name]) == ["decklog.admission("]
        for numbers, names in re.findall(r"refused IN \(([^)]*)\).*-- (.*)$", FILES[name], re.MULTILINE):
            assert [Refusal(int(number)).name for number in numbers.split(",")] == names.split(", ")
        compared = re.findall(r"refused (?:IN|=|<>|>|<) ?(\S+)", FILES[name])
        assert set(compared) <= {"0", "(7,"}


def test_own_sqlstates_are_known() -> None:
    raised = {code for text in FILES.values() for code in re.findall(r"ERRCODE = '([A-Z]{2}\d+)'", text)}
    assert raised == {KNOWN_ID}


def test_item_statuses_are_those_of_the_domain() -> None:
    assert "item_status := array_fill(0::smallint" in FILES["relations.sql"]
    assert "item_status[i] := CASE WHEN f_same[i] THEN 1 ELSE 2 END" in FILES["relations.sql"]
    assert (Status.STORED, Status.DUPLICATE, Status.CONFLICT) == (0, 1, 2)


@pytest.mark.parametrize("code", [ADMITTED, *Refusal])
def test_every_refusal_but_a_conflict_has_its_own_error(code: int) -> None:
    """Receipts describe a conflict."""
    request = AppendRequest(make_tenant("acme"), LogName.EVENTS, [prepared()])
    error = refusal(code, request, Rate(1.0, 1, 0.0), datetime.now(UTC))
    if code in (ADMITTED, Refusal.CONFLICT):
        assert error is None
    else:
        assert isinstance(error, DecklogError)
        assert "does not know" not in error.detail
