"""The scope of a viewer token: which records of a tenant its holder may read, and which of their fields."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import cached_property
from typing import Annotated

import msgspec
from msgspec import Meta

from decklog.domain.errors import invalid_parameter
from decklog.domain.json_body import decoded
from decklog.domain.records import projection
from decklog.domain.records.canonical import UNSTORABLE
from decklog.domain.records.visible import Visible
from decklog.domain.search import syntax, tree
from decklog.domain.search.query import Query

SCOPE_BYTES_MAX = 4_096
"""Bytes of query, fields and subject together. A token is an HTTP header, so it has at most 8 KiB."""
SCOPE_CLAUSES_MAX = 64
"""Words, phrases and values of the query of a scope; the others of a query are its holder's."""
SECONDS_MIN, SECONDS_MAX, SECONDS_DEFAULT = 60, 3_600, 900
SUBJECT_CHARS_MAX = 256
_PATH_CHARS_MAX = 256
_UNSHOWN = ("digest",)
"""Fields that no list of fields may name: the digest of a whole record confirms guesses of its hidden fields."""


class Scope(msgspec.Struct, frozen=True, dict=True):
    """The part of the `events` log that a viewer token shows.

    `token` is its id, `key` the id of the API key that minted it. Records that satisfy `query` are visible, with these `fields`;
    without fields, whole records are.
    """

    token: str
    key: str
    query: Query
    fields: tuple[str, ...] = ()

    @cached_property
    def visible(self) -> Visible | None:
        """The visible fields, None for whole records."""
        return Visible(self.fields) if self.fields else None

    def shows(self, path: str) -> bool:
        """Return whether the field at this path is visible."""
        return self.visible is None or self.visible.shows(path)


class ViewerInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The scope that a client asks a viewer token for."""

    query: Annotated[str, Meta(min_length=1, description="Query in the query language that every visible record satisfies.")]
    fields: Annotated[
        list[str] | None,
        Meta(
            description="Paths of the visible fields, as in `fields` of an export; without it, whole records are visible. "
            "`digest` is not allowed.",
        ),
    ] = None
    expires_in: Annotated[int, Meta(ge=SECONDS_MIN, le=SECONDS_MAX, description="Life of the token in seconds.")] = (
        SECONDS_DEFAULT
    )
    subject: Annotated[
        Annotated[str, Meta(min_length=1, max_length=SUBJECT_CHARS_MAX)] | None,
        Meta(description="For whom the token is, as the access log names its reads; without it, the id of the token."),
    ] = None


class ViewerClaims(msgspec.Struct, frozen=True):
    """The claims of a viewer token, by their names in it.

    `key` is the id of the API key that minted it, `tenant` the tenant's number. Times are in seconds since 1970; relative times of the
    query refer to `issued_at`.
    """

    id: str = msgspec.field(name="jti")
    subject: str = msgspec.field(name="sub")
    key: str
    tenant: int
    query: str
    fields: list[str] | None
    issued_at: int = msgspec.field(name="iat")
    expires_at: int = msgspec.field(name="exp")


def read_viewer_input(body: bytes) -> ViewerInput:
    """Return what a client asks a viewer token for.

    Raises:
        DecklogError: `invalid-json`, `invalid-parameter` with the name of the member, and `invalid-query`.
    """
    found = decoded(body, ViewerInput)
    if found.subject is not None and (not found.subject.isprintable() or UNSTORABLE.search(found.subject)):
        raise invalid_parameter("subject", "must have printable characters only.")
    if len(msgspec.json.encode((found.query, found.fields, found.subject))) > SCOPE_BYTES_MAX:
        raise invalid_parameter("query", f"query, fields and subject may have {SCOPE_BYTES_MAX} bytes together. Shorten them.")
    checked_fields(found.fields)
    return found


def checked_fields(fields: Sequence[str] | None) -> tuple[str, ...]:
    """Return the visible fields of a scope, none for whole records. Raises `invalid-parameter`."""
    if fields is None:
        return ()
    if not fields:
        raise invalid_parameter("fields", "must name at least one field. Without `fields`, whole records are visible.")
    for path in fields:
        if path in _UNSHOWN:
            raise invalid_parameter("fields", f"{path!r} would confirm guesses of hidden fields. Leave it out.")
        if len(path) > _PATH_CHARS_MAX:
            raise invalid_parameter("fields", f"{path[:80]!r}… has more than {_PATH_CHARS_MAX} characters.")
    return projection.checked(fields)


def scope_query(text: str, now: datetime) -> Query:
    """Return the query of a scope; `now` is what its relative times refer to. Raises `invalid-query`."""
    if UNSTORABLE.search(text):
        raise invalid_parameter("query", "must not contain U+0000 or a lone surrogate.")
    query = Query(syntax.read(text, now))
    if sum(1 for _ in tree.leaves(query.root)) > SCOPE_CLAUSES_MAX:
        raise invalid_parameter("query", f"at most {SCOPE_CLAUSES_MAX} words, phrases and values are allowed.")
    return query
