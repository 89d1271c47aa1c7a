"""The definition of Tenant stays compatible with the release: accepted objects stay accepted, stored objects stay valid."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from decklog_operator.crd import custom_resource_definition
from tests.operator.test_definition import GOOD_SPECS
from tests.support.operators import Json, Kubernetes, until

pytestmark = pytest.mark.xdist_group("kubernetes")

LEAST = ("minimum", "minLength", "minItems", "minProperties")
MOST = ("maximum", "maxLength", "maxItems", "maxProperties")
GROUP = "released.decklog.dev"
PLURAL = "releasedtenants"
"""The definition under another name, so that nobody else's Tenants are touched."""


@pytest.fixture(scope="module")
def definition(release: Path) -> Json:
    """The definition of the release."""
    found: Json = yaml.safe_load((release / "tree/manifests/crd.yaml").read_text())
    return found


def schema(definition: Json) -> Json:
    [version] = definition["spec"]["versions"]
    found: Json = version["schema"]["openAPIV3Schema"]
    return found


def narrowed(before: Json, after: Json, place: str = "") -> list[str]:
    """Return why `after` might reject an object that `before` accepts, or drop a field of it.

    Every new or changed rule is a reason, because its effect cannot be derived."""
    found = [
        f"{place}: was {before[word]}, is {after.get(word)}" for word in ("type", "format") if before.get(word) != after.get(word)
    ]
    found += [f"{place}: {word} is new or greater" for word in LEAST if after.get(word, -1) > before.get(word, -1)]
    most = float("inf")
    found += [f"{place}: {word} is new or less" for word in MOST if after.get(word, most) < before.get(word, most)]
    if after.get("pattern") not in (None, before.get("pattern")):
        found.append(f"{place}: the pattern is new or another one")
    if "enum" in after:
        gone = set(before.get("enum", ["anything"])) - set(after["enum"])
        found += [f"{place}: {value!r} is not among the values any more" for value in sorted(gone)]
    found += [
        f"{place}.{name}: must be given now" for name in after.get("required", []) if name not in before.get("required", [])
    ]
    if before.get("default") != after.get("default") and "default" in before:
        added = {
            name: value for name, value in _as_object(after.get("default")).items() if name not in _as_object(before["default"])
        }
        if not added or {**_as_object(before["default"]), **added} != after.get("default"):
            found.append(
                f"{place}: what is taken where nothing is given was {before['default']!r} and is {after.get('default')!r}"
            )
    rules = [rule["rule"] for rule in before.get("x-kubernetes-validations", [])]
    new = {name for name in after.get("properties", {}) if name not in before.get("properties", {})}
    for rule in after.get("x-kubernetes-validations", []):
        if rule["rule"] not in rules and not any(f"!has(self.{name})" in rule["rule"] for name in new):
            found.append(f"{place}: the rule {rule['rule']!r} is new or another one")
    for name, inside in before.get("properties", {}).items():
        there = after.get("properties", {}).get(name)
        found += [f"{place}.{name}: is gone"] if there is None else narrowed(inside, there, f"{place}.{name}")
    for word in ("items", "additionalProperties"):
        if isinstance(before.get(word), dict):
            found += narrowed(before[word], after.get(word) or {}, f"{place}[]")
    return found


def _as_object(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def spec_of(definition: Json) -> Json:
    found: Json = schema(definition)["properties"]["spec"]
    return found


def test_definition_accepts_and_keeps_everything_that_the_release_accepts(definition: Json) -> None:
    assert narrowed(schema(definition), schema(custom_resource_definition())) == []
    before, after = definition["spec"], custom_resource_definition()["spec"]
    assert [before[name] for name in ("group", "scope", "names")] == [after[name] for name in ("group", "scope", "names")]
    [was], [now] = before["versions"], after["versions"]
    assert [was[name] for name in ("name", "served", "storage", "subresources")] == [
        now[name] for name in ("name", "served", "storage", "subresources")
    ]
    columns = [(column["name"], column["jsonPath"]) for column in now["additionalPrinterColumns"]]
    assert {(column["name"], column["jsonPath"]) for column in was["additionalPrinterColumns"]} <= set(columns)


def _changed(path: str, **change: Any) -> Json:
    """Return the current definition with one changed property of the spec; None removes it."""
    made = deepcopy(custom_resource_definition())
    place = spec_of(made)
    for name in path.split(".") if path else ():
        place = place["properties"][name]
    for name, value in change.items():
        if value is None:
            del place[name]
        else:
            place[name] = value
    return made


@pytest.mark.parametrize(
    ("after", "told"),
    [
        (_changed("displayName", type="integer"), ".spec.displayName: was string, is integer"),
        (_changed("displayName", maxLength=127), ".spec.displayName: maxLength is new or less"),
        (_changed("retention.days", minimum=2), ".spec.retention.days: minimum is new or greater"),
        (_changed("isolation", enum=["Shared"]), ".spec.isolation: 'Dedicated' is not among the values any more"),
        (_changed("displayName", enum=["a"]), ".spec.displayName: 'anything' is not among the values any more"),
        (_changed("displayName", pattern="^a"), ".spec.displayName: the pattern is new or another one"),
        (_changed("", required=["retention", "displayName"]), ".spec.displayName: must be given now"),
        (_changed("suspend", default=True), ".spec.suspend: what is taken where nothing is given was False and is True"),
        (_changed("quotas", properties={}), ".spec.quotas.burst: is gone"),
        (
            _changed("displayName", **{"x-kubernetes-validations": [{"rule": "self == oldSelf"}]}),
            ".spec.displayName: the rule 'self == oldSelf' is new or another one",
        ),
    ],
)
def test_comparison_names_every_narrowing_of_a_definition(after: Json, told: str) -> None:
    assert told in narrowed(schema(custom_resource_definition()), schema(after))


def _under(definition: Json) -> Json:
    made = deepcopy(definition)
    made["metadata"] = {"name": f"{PLURAL}.{GROUP}"}
    names = {"kind": "ReleasedTenant", "listKind": "ReleasedTenantList", "plural": PLURAL, "singular": "releasedtenant"}
    made["spec"] |= {"group": GROUP, "names": names}
    return made


def _known(value: Any, inside: Json) -> bool:
    """Return whether a definition has all of these fields with their values."""
    if not isinstance(value, dict):
        return value in inside.get("enum", [value])
    fields = inside.get("properties", {})
    return all(name in fields and _known(each, fields[name]) for name, each in value.items())


@pytest.fixture
def stored(kubernetes: Kubernetes, definition: Json) -> Iterator[list[Json]]:
    """Tenants stored by the release's definition, with the objects that the API server returned."""
    kubernetes("apply", "-f", "-", stdin=json.dumps(_under(definition)))
    kubernetes("wait", "--for=condition=Established", f"crd/{PLURAL}.{GROUP}", "--timeout=60s")
    specs = [spec for spec in GOOD_SPECS if _known(spec, spec_of(definition))]
    objects = [
        {"apiVersion": f"{GROUP}/v1", "kind": "ReleasedTenant", "metadata": {"name": f"t{number}"}, "spec": spec}
        for number, spec in enumerate(specs)
    ]
    try:
        until("the definition is served", lambda: PLURAL in kubernetes("api-resources", f"--api-group={GROUP}", "-o", "name"))
        kubernetes.apply(*objects)
        yield objects
    finally:
        kubernetes("delete", "crd", f"{PLURAL}.{GROUP}", "--timeout=120s")


def test_tenants_stored_by_the_release_stay_readable_and_writable(kubernetes: Kubernetes, stored: list[Json]) -> None:
    def read() -> dict[str, Json]:
        items = json.loads(kubernetes("get", PLURAL, "-o", "json"))["items"]
        return {each["metadata"]["name"]: each["spec"] for each in items}

    before = read()
    assert len(before) == len(stored) > 10
    kubernetes("apply", "-f", "-", stdin=json.dumps(_under(custom_resource_definition())))
    until("the definition of now is served", lambda: "driftPolicy" in kubernetes("explain", f"{PLURAL}.spec"))
    after = read()
    for name, spec in before.items():
        assert _merged(after[name], spec) == after[name], name  # every given and stored value is unchanged
    words = ("label", PLURAL, "--all", "upgraded=yes")
    assert kubernetes(*words).count("labeled") == len(stored)
    for each in stored:  # as a user who applies the manifest again
        each["metadata"]["labels"] = {"again": "yes"}
    assert kubernetes.apply(*stored).count("configured") == len(stored)


def _merged(whole: Any, part: Any) -> Any:
    if not (isinstance(whole, dict) and isinstance(part, dict)):
        return part
    return {**whole, **{name: _merged(whole.get(name), value) for name, value in part.items()}}
