"""Generate the custom resource definition of Tenant from the typed spec, so that the two cannot differ.

Bounds, patterns, defaults and descriptions come from `decklog.domain.tenancy.spec`. Rules that compare fields are CEL rules
in this module. No rule may use `messageExpression` with numbers, which exceeds the cost budget of the whole definition. Each
default must name all of its keys, because a rule that reads them rejects `{}`.
"""

from __future__ import annotations

from typing import Any, cast

import msgspec

from decklog.domain.tenancy.columns import COLUMNS
from decklog.domain.tenancy.manifest import KIND
from decklog.domain.tenancy.names import NAME_CHARS_MAX, NAME_PATTERN
from decklog.domain.tenancy.spec import RETENTION_CLASSES, Quotas, Rotation, TenantSpec
from decklog.domain.tenant import PLATFORM_TENANT, Isolation
from decklog_operator.names import DEFINITION, GROUP, PLURAL, VERSION
from decklog_operator.status import TenantStatusView

Schema = dict[str, Any]


def custom_resource_definition() -> dict[str, Any]:
    """Return the definition as plain JSON, ready to apply."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": DEFINITION, "labels": {"app.kubernetes.io/name": "decklog", "app.kubernetes.io/part-of": "decklog"}},
        "spec": {
            "group": GROUP,
            "scope": "Cluster",
            "names": {"kind": KIND, "listKind": f"{KIND}List", "plural": PLURAL, "singular": KIND.lower()},
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": _tenant()},
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": _columns(),
                }
            ],
        },
    }


def _tenant() -> Schema:
    spec, status = structural(TenantSpec), structural(TenantStatusView)
    spec["description"] = "Wanted state of the tenant. Only retention.days is required."
    status["description"] = "Observed state, written by the operator."
    quotas = spec["properties"]["quotas"]
    rotation = spec["properties"]["credentials"]["properties"]["rotation"]
    spec["properties"]["isolation"]["x-kubernetes-validations"] = [
        {"rule": "self == oldSelf", "message": "spec.isolation is immutable: create another Tenant with the other isolation."}
    ]
    spec["properties"]["cell"]["x-kubernetes-validations"] = [
        {
            "rule": "self == oldSelf",
            "message": "spec.cell is immutable, because it stores the records. Create another Tenant in the other cell.",
        }
    ]
    quotas["x-kubernetes-validations"] = [
        {
            "rule": "self.burst >= self.eventsPerSecond",
            "message": f"spec.quotas.burst (default {Quotas().burst}) must be at least spec.quotas.eventsPerSecond.",
            "fieldPath": ".burst",
        },
        {
            "rule": "!has(self.eventsPerDay) || self.eventsPerDay >= self.burst",
            "message": f"spec.quotas.eventsPerDay must be at least spec.quotas.burst (default {Quotas().burst}).",
            "fieldPath": ".eventsPerDay",
        },
    ]
    spec["properties"]["retention"]["x-kubernetes-validations"] = [
        {
            "rule": "!has(self.searchDays) || self.searchDays <= self.days",
            "message": "spec.retention.searchDays must be at most spec.retention.days.",
            "fieldPath": ".searchDays",
        }
    ]
    rotation["x-kubernetes-validations"] = [
        {
            "rule": "self.intervalDays == 0 || self.overlapHours < self.intervalDays * 24",
            "message": f"spec.credentials.rotation.overlapHours (default {Rotation().overlap_hours}) must be less than "
            "the hours of spec.credentials.rotation.intervalDays: at most two keys of a role are valid at once.",
            "fieldPath": ".overlapHours",
        }
    ]
    spec["x-kubernetes-validations"] = _spec_rules()
    return {
        "description": "A customer, team or application with its own audit log, isolated from all others.",
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": status,
        },
        "x-kubernetes-validations": _name_rules(),
    }


def _name_rules() -> list[dict[str, Any]]:
    return [
        {
            "rule": f"size(self.metadata.name) <= {NAME_CHARS_MAX}",
            "message": f"metadata.name may have at most {NAME_CHARS_MAX} characters: it names the schema, the index and the queue.",
        },
        {
            "rule": f"self.metadata.name.matches('{NAME_PATTERN}')",
            "message": "metadata.name must be made of a-z, 0-9 and '-', start with a letter and not end in '-'.",
        },
        {
            "rule": f"self.metadata.name != '{PLATFORM_TENANT}'",
            "message": f"metadata.name {PLATFORM_TENANT} is reserved for the platform's own audit log.",
        },
    ]


def _spec_rules() -> list[dict[str, Any]]:
    dedicated = f"self.isolation == '{Isolation.DEDICATED.value}'"
    shared = f"self.isolation != '{Isolation.SHARED.value}'"
    classes = ", ".join(map(str, RETENTION_CLASSES))
    return [
        {
            "rule": f"{dedicated} || !has(self.queue)",
            "message": "spec.queue is for Dedicated tenants only: Shared tenants use the queue of their class.",
            "fieldPath": ".queue",
        },
        {
            "rule": f"{shared} || self.retention.days <= {RETENTION_CLASSES[-1]}",
            "message": f"spec.retention.days of a Shared tenant may be at most {RETENTION_CLASSES[-1]}; Dedicated tenants may have more.",
            "fieldPath": ".retention.days",
        },
        {
            "rule": f"{shared} || {_class_of('self')} == {_class_of('oldSelf')}",
            "message": "spec.retention.days of a Shared tenant must stay within the class that it was created in, which stores its "
            f"records (classes end at {classes} days).",
            "fieldPath": ".retention.days",
        },
    ]


def _class_of(root: str) -> str:
    """Return CEL for the number of the retention class. Larger values count as the last class; another rule rejects them."""
    expression = str(len(RETENTION_CLASSES) - 1)
    for number in reversed(range(len(RETENTION_CLASSES) - 1)):
        expression = f"({root}.retention.days <= {RETENTION_CLASSES[number]} ? {number} : {expression})"
    return expression


def _columns() -> list[dict[str, Any]]:
    return [
        {
            "name": column.name,
            "type": column.kind,
            "jsonPath": column.path,
            "description": column.description,
            **({"priority": 1} if column.wide else {}),
        }
        for column in COLUMNS
    ]


def structural(struct: type[msgspec.Struct]) -> Schema:
    """Return the structural schema of a struct.

    It has no references and no titles, and no `additionalProperties`, because Kubernetes prunes unknown fields.
    """
    (root,), components = msgspec.json.schema_components([struct])
    return _resolved(root, components)


def _resolved(schema: Schema, components: dict[str, Any]) -> Schema:
    found = dict(schema)
    if reference := found.pop("$ref", None):
        found = {**components[reference.rpartition("/")[2]], **found}
    for left_out in ("title", "additionalProperties"):
        found.pop(left_out, None)
    if "enum" in found:
        found.setdefault("type", "string")
    if not found.get("required", True):
        del found["required"]
    if properties := found.get("properties"):
        found["properties"] = {name: _resolved(each, components) for name, each in properties.items()}
        if "default" in found:
            found["default"] = {**_defaults(found["properties"]), **found["default"]}
    if items := found.get("items"):
        found["items"] = _resolved(cast("Schema", items), components)
    first: Schema = {key: found.pop(key) for key in ("description", "type") if key in found}  # people read these first
    return {**first, **found}


def _defaults(properties: dict[str, Schema]) -> dict[str, Any]:
    return {name: schema["default"] for name, schema in properties.items() if "default" in schema}
