"""`decklog plan` prints the whole plan as text and as JSON, and no secret can be in it."""

from __future__ import annotations

from typing import Any, get_type_hints

import msgspec
from hypothesis import given
from msgspec.structs import replace

from decklog.domain.tenancy.manifest import Manifest
from decklog.domain.tenancy.observation import Observation
from decklog.domain.tenancy.parts.part import Action, Installation
from decklog.domain.tenancy.parts.queue import QueueSeen
from decklog.domain.tenancy.parts.search import IndexSeen
from decklog.domain.tenancy.preview import Planned, empty_world, lines, plain, planned
from decklog.domain.tenancy.registered import DatabaseSeen, Row
from decklog.domain.tenancy.status import Part
from decklog.domain.tenancy.trouble import Trouble
from tests.domain.test_decision import NOTHING, NOW, cases, converged, manifest, registered

UNREACHABLE = Trouble("Unreachable", "OpenSearch does not answer.")


def told(found: Planned) -> list[str]:
    return list(lines(found))


def actions_there_are(kind: type[Action] = Action) -> list[type[Action]]:
    return [each for below in kind.__subclasses__() for each in (below, *actions_there_are(below))]


def test_preview_of_empty_backends_creates_everything_configured() -> None:
    everything = planned(manifest(), empty_world(Installation(prefix="dl"), search=3, queue=True), NOW)
    parts = [line.split()[:2] for line in told(everything)[1:]]
    assert parts == [
        ["database", "CreateRelations"],
        ["database", "MakePartitions"],
        ["database", "RegisterTenant"],
        ["database", "SetHeads"],
        ["search", "CreateIndex"],
        ["queue", "CreateQueue"],
        ["credentials", "IssueKeys"],
    ]
    assert told(everything)[0] == "acme: 7 to do"
    assert everything.platform_first
    assert "  search       CreateIndex         index=dl-t-acme generation=v3-1 starts=2026-01-02" in told(everything)
    alone = planned(manifest(isolation="Shared"), empty_world(Installation(prefix="dl"), search=None, queue=False), NOW)
    assert {action.part for action in alone.actions} == {Part.DATABASE, Part.CREDENTIALS}


def test_preview_plans_shared_backends_before_the_reserved_tenant_exists() -> None:
    shared = manifest(isolation="Shared")
    world = Observation(DatabaseSeen(), Installation(None), IndexSeen(), QueueSeen())
    assert {action.part for action in planned(shared, world, NOW).actions} == set(Part)


def test_preview_is_empty_for_converged_tenant_without_vault() -> None:
    settled = replace(converged(manifest(), NOTHING), vault=None)
    assert told(planned(manifest(), settled, NOW)) == ["acme: nothing to do"]
    assert not planned(manifest(), settled, NOW).platform_first


def test_preview_names_changed_fields_of_spec() -> None:
    settled = converged(manifest(), NOTHING)
    edited = manifest(generation=2, quotas={"burst": 20_000}, displayName="Acme")
    first, *rest = told(planned(edited, settled, NOW))
    assert first == "acme: 2 to do (changes spec.displayName, spec.quotas.burst)"
    assert "UpdateTenant" in rest[0]
    assert "changes=" in rest[0]
    assert "burst=20000" in rest[1]


def test_preview_shows_refusal_and_no_actions() -> None:
    world = Observation(DatabaseSeen(registered(manifest(uid="another"))))
    found = planned(manifest(), world, NOW)
    assert found.actions == ()
    [line] = told(found)
    assert line.startswith("acme: refused (Conflict). ")
    assert plain(found)["refused"]["reason"] == "Conflict"


def test_preview_names_unseen_backend_and_plans_the_others() -> None:
    world = Observation(DatabaseSeen(), Installation("uid-0"), UNREACHABLE, QueueSeen())
    found = planned(manifest(), world, NOW)
    assert told(found)[-1] == "  search       not seen (Unreachable). OpenSearch does not answer."
    assert {action.part for action in found.actions} == {Part.DATABASE, Part.QUEUE, Part.CREDENTIALS}
    assert plain(found)["unseen"] == {"SearchReady": {"reason": "Unreachable", "message": "OpenSearch does not answer."}}


@given(cases())
def test_preview_renders_every_plan_as_text_and_json(case: tuple[Manifest, Observation]) -> None:
    asked, seen = case
    found = planned(asked, seen, NOW)
    shown: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(plain(found)))
    assert [action["action"] for action in shown["actions"]] == [type(action).__name__ for action in found.actions]
    assert len(told(found)) == (1 if found.refused else 1 + len(found.actions) + len(found.unseen))
    assert all("\n" not in line for line in told(found))


def test_actions_have_no_field_for_a_key_or_hash() -> None:
    def kinds_in(struct: type[msgspec.Struct]) -> set[Any]:
        found = set[Any]()
        for hint in get_type_hints(struct).values():
            pending = [hint]
            while pending:
                kind = pending.pop()
                pending += getattr(kind, "__args__", ())
                found.add(kind)
                if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind is not Row:
                    found |= kinds_in(kind)
        return found

    assert len(actions_there_are()) > 10
    for kind in actions_there_are():
        assert bytes not in kinds_in(kind), kind
    assert bytes not in kinds_in(Row)
