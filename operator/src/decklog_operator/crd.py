"""The custom resource definition of Tenant, made from the typed spec, so that the two cannot disagree.

What a type can say (bounds, patterns, defaults, descriptions) is said once, in `decklog.domain.tenancy.spec`; what only a
comparison can say stands here as CEL rules. No rule uses `messageExpression` with numbers (it breaks the cost budget
of the whole definition), and each default names all of its keys (a rule that reads them refuses `{}`).
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
    """The object to apply, as plain JSON."""
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
    spec["description"] = "What the tenant is to have. Only retention.days must be given."
    status["description"] = "What was observed; written by the operator."
    quotas = spec["properties"]["quotas"]
    rotation = spec["properties"]["credentials"]["properties"]["rotation"]
    spec["properties"]["isolation"]["x-kubernetes-validations"] = [
        {"rule": "self == oldSelf", "message": "spec.isolation is immutable: make a new Tenant with the other isolation."}
    ]
    spec["properties"]["cell"]["x-kubernetes-validations"] = [
        {
            "rule": "self == oldSelf",
            "message": "spec.cell is immutable: the records are there. Make a new Tenant in the other cell.",
        }
    ]
    quotas["x-kubernetes-validations"] = [
        {
            "rule": "self.burst >= self.eventsPerSecond",
            "message": f"spec.quotas.burst ({Quotas().burst} where it is not given) must be at least spec.quotas.eventsPerSecond.",
            "fieldPath": ".burst",
        },
        {
            "rule": "!has(self.eventsPerDay) || self.eventsPerDay >= self.burst",
            "message": f"spec.quotas.eventsPerDay must be at least spec.quotas.burst ({Quotas().burst} where it is not given).",
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
            "message": f"spec.credentials.rotation.overlapHours ({Rotation().overlap_hours} where it is not given) must be less than "
            "the hours of spec.credentials.rotation.intervalDays: at most two keys of a role are valid at once.",
            "fieldPath": ".overlapHours",
        }
    ]
    spec["x-kubernetes-validations"] = _spec_rules()
    return {
        "description": "A customer, team or application with an audit log of its own, isolated from all others.",
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
            "message": f"metadata.name may have at most {NAME_CHARS_MAX} characters: schema, index and queue are named after it.",
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
            "message": "spec.queue is for Dedicated tenants: the queue of a Shared one belongs to its class.",
            "fieldPath": ".queue",
        },
        {
            "rule": f"{shared} || self.retention.days <= {RETENTION_CLASSES[-1]}",
            "message": f"spec.retention.days of a Shared tenant may be at most {RETENTION_CLASSES[-1]}; a Dedicated one may have more.",
            "fieldPath": ".retention.days",
        },
        {
            "rule": f"{shared} || {_class_of('self')} == {_class_of('oldSelf')}",
            "message": "spec.retention.days of a Shared tenant must stay within the class it was created in "
            f"(classes end at {classes} days): its records are stored with those of its class.",
            "fieldPath": ".retention.days",
        },
    ]


def _class_of(root: str) -> str:
    """CEL for the number of the retention class; the last one also holds what is beyond, which another rule refuses."""
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
    """The structural schema of a struct: without references, titles and what Kubernetes does by pruning."""
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
    first: Schema = {key: found.pop(key) for key in ("description", "type") if key in found}  # in the order that people read
    return {**first, **found}


def _defaults(properties: dict[str, Schema]) -> dict[str, Any]:
    return {name: schema["default"] for name, schema in properties.items() if "default" in schema}
