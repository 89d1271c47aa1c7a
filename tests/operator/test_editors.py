"""Authors of a Tenant's spec, as far as Kubernetes tells an operator."""

from __future__ import annotations

from typing import Any

from decklog_operator.reconcile import EDITORS, editors


def field(manager: str, *, spec: bool = True, **more: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {"f:spec": {}} if spec else {"f:metadata": {}}
    return {"manager": manager, "operation": "Apply", "time": "2026-01-31T12:00:00Z", "fieldsV1": fields, **more}


def test_editors_are_the_field_managers_of_the_spec() -> None:
    managed = [
        field("kubectl"),
        field("annotator", spec=False),
        field("decklog-operator", subresource="status"),
        {"manager": "x"},
    ]
    named = ("field manager kubectl (Apply, 2026-01-31T12:00:00Z)",)
    assert editors({"managedFields": managed}) == named
    assert editors({EDITORS: named}) == named
    assert editors({}) == ()


def test_editors_are_bounded() -> None:
    found = editors({"managedFields": [field("m" * 9_999, operation="o" * 999)] * 100})
    assert len(found) == 8
    assert max(map(len, found)) < 250
