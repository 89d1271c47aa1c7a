"""A Tenant object: its name, UID, generation and spec, and the form in which `kubectl apply` and the API take it."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from decklog.domain.errors import Code, DecklogError
from decklog.domain.faults import faults_of, loaded, refused, shown, syntax
from decklog.domain.tenancy.names import NAME_CHARS_MAX, NAME_PATTERN, check_name
from decklog.domain.tenancy.spec import TenantSpec, parse_spec
from decklog.domain.tenant import PLATFORM_TENANT
from decklog.domain.unique_names import RepeatedNameError, refuse_repeated

API_VERSION = "decklog.dev/v1"
KIND = "Tenant"
ROTATE = "decklog.dev/rotate"
"""Annotation of a Tenant: each new value asks for new API keys once."""
REQUEST_PATTERN = r"[ -~]{0,64}"
"""Pattern of a request such as `Manifest.rotate`, which is stored and shown in the status."""


class Manifest(msgspec.Struct, frozen=True):
    """A Tenant as it is asked for.

    `uid` distinguishes objects of one name: Kubernetes' UID, or one made by Decklog. `rotate` asks for new API keys, once for
    each new value; empty asks for nothing. `requested_by` names who asked, as far as that is known, for the records of what is done.
    """

    name: str
    uid: str
    generation: int
    spec: TenantSpec
    rotate: str = ""
    requested_by: tuple[str, ...] = ()


class TenantAnnotations(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`metadata.annotations` of a Tenant that is sent to the API."""

    rotate: Annotated[
        str,
        Meta(max_length=64, pattern=f"^{REQUEST_PATTERN}$", description="Each new value asks for new API keys once."),
    ] = msgspec.field(default="", name=ROTATE)


class TenantMetadata(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`metadata` of a Tenant that is sent to the API. Fields that Decklog would not store are refused."""

    name: Annotated[
        str,
        Meta(
            max_length=NAME_CHARS_MAX,
            pattern=NAME_PATTERN,
            description="Name of the tenant. Its schema, index and queue are named after it.",
        ),
    ]
    annotations: Annotated[TenantAnnotations, Meta(description="One-time requests.")] = TenantAnnotations()


class TenantManifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    """A Tenant as `kubectl apply` takes it."""

    api_version: Literal["decklog.dev/v1"]
    kind: Literal["Tenant"]
    metadata: TenantMetadata
    spec: TenantSpec


def check_request(rotate: str) -> str:
    """Return the request to rotate. Raises `invalid-tenant` where it has other characters or too many."""
    if not re.fullmatch(REQUEST_PATTERN, rotate):
        raise DecklogError(
            Code.INVALID_TENANT,
            "The request to rotate must have at most 64 characters, all of them printable ASCII, for example the current time.",
        )
    return rotate


def decode_manifest(body: bytes) -> TenantManifest:
    """Return a manifest from JSON. Raises `invalid-json`, and `invalid-tenant` with the path of each fault."""
    try:
        refuse_repeated(body, msgspec.json.decode(body))
        return msgspec.json.decode(body, type=TenantManifest)
    except msgspec.ValidationError:
        faults = faults_of(TenantManifest, loaded(body))
        raise refused(Code.INVALID_TENANT, faults, "The body does not have the form of a Tenant.") from None
    except RepeatedNameError as error:
        raise DecklogError(Code.INVALID_TENANT, f"The Tenant: {error}; each name may occur once.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DecklogError(Code.INVALID_JSON, f"The body is not valid JSON in UTF-8: {syntax(error)}.") from None
    except RecursionError:
        raise DecklogError(Code.INVALID_JSON, "The body is nested too deeply.") from None


def parse_manifest(value: Any) -> tuple[str, TenantSpec]:
    """Return name and spec of a manifest, given as a decoded YAML document. Raises `invalid-tenant`."""
    if not isinstance(value, dict) or value.get("apiVersion") != API_VERSION or value.get("kind") != KIND:
        raise DecklogError(Code.INVALID_TENANT, f"The manifest must have apiVersion {API_VERSION} and kind {KIND}.")
    metadata = value.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if name is None:
        raise DecklogError(Code.INVALID_TENANT, "The manifest has no metadata.name.")
    if not isinstance(name, str):
        raise DecklogError(
            Code.INVALID_TENANT,
            f"metadata.name is {shown(name) or 'no text'}, and must be a text. "
            "YAML reads no, off, yes, on and numbers as other values: put the name in quotes.",
        )
    if name == PLATFORM_TENANT:
        raise DecklogError(
            Code.INVALID_TENANT,
            f"metadata.name {PLATFORM_TENANT} is reserved for the platform's own audit log. Use another name.",
        )
    return check_name(name), parse_spec(value.get("spec"))
