"""What `decklog plan` prints says all that the plan says, in lines for people and in JSON, and no secret can be in it."""

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
from tests.domain.test_plan import NOTHING, NOW, cases, converged, manifest, registered

UNREACHABLE = Trouble("Unreachable", "OpenSearch does not answer.")


def told(found: Planned) -> list[str]:
    return list(lines(found))


def actions_there_are(kind: type[Action] = Action) -> list[type[Action]]:
    return [each for below in kind.__subclasses__() for each in (below, *actions_there_are(below))]


def test_in_an_empty_world_everything_that_is_configured_is_made() -> None:
    everything = planned(manifest(), empty_world(Installation(prefix="dl"), search=True, queue=True), NOW)
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
    assert "  search       CreateIndex         index=dl-t-acme" in told(everything)
    alone = planned(manifest(isolation="Shared"), empty_world(Installation(prefix="dl"), search=False, queue=False), NOW)
    assert {action.part for action in alone.actions} == {Part.DATABASE, Part.CREDENTIALS}


def test_what_tenants_share_is_planned_where_the_reserved_tenant_is_still_to_be_made() -> None:
    shared = manifest(isolation="Shared")
    world = Observation(DatabaseSeen(), Installation(None), IndexSeen(), QueueSeen())
    assert {action.part for action in planned(shared, world, NOW).actions} == set(Part)


def test_a_tenant_in_order_has_nothing_to_do_and_its_vault_is_taken_to_hold_its_keys() -> None:
    settled = replace(converged(manifest(), NOTHING), vault=None)
    assert told(planned(manifest(), settled, NOW)) == ["acme: nothing to do"]
    assert not planned(manifest(), settled, NOW).platform_first


def test_a_changed_spec_is_named_field_by_field() -> None:
    settled = converged(manifest(), NOTHING)
    edited = manifest(generation=2, quotas={"burst": 20_000}, displayName="Acme")
    first, *rest = told(planned(edited, settled, NOW))
    assert first == "acme: 2 to do (changes spec.displayName, spec.quotas.burst)"
    assert "UpdateTenant" in rest[0]
    assert "changes=" in rest[0]
    assert "burst=20000" in rest[1]


def test_a_refusal_is_told_with_its_reason_and_nothing_is_planned() -> None:
    world = Observation(DatabaseSeen(registered(manifest(uid="another"))))
    found = planned(manifest(), world, NOW)
    assert found.actions == ()
    [line] = told(found)
    assert line.startswith("acme: refused (Conflict). ")
    assert plain(found)["refused"]["reason"] == "Conflict"


def test_a_backend_that_does_not_answer_is_named_and_the_others_are_planned() -> None:
    world = Observation(DatabaseSeen(), Installation("uid-0"), UNREACHABLE, QueueSeen())
    found = planned(manifest(), world, NOW)
    assert told(found)[-1] == "  search       not seen (Unreachable). OpenSearch does not answer."
    assert {action.part for action in found.actions} == {Part.DATABASE, Part.QUEUE, Part.CREDENTIALS}
    assert plain(found)["unseen"] == {"SearchReady": {"reason": "Unreachable", "message": "OpenSearch does not answer."}}


@given(cases())
def test_every_plan_can_be_shown_in_both_forms(case: tuple[Manifest, Observation]) -> None:
    asked, seen = case
    found = planned(asked, seen, NOW)
    shown: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(plain(found)))
    assert [action["action"] for action in shown["actions"]] == [type(action).__name__ for action in found.actions]
    assert len(told(found)) == (1 if found.refused else 1 + len(found.actions) + len(found.unseen))
    assert all("\n" not in line for line in told(found))


def test_no_action_has_room_for_a_key_or_its_hash() -> None:
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
