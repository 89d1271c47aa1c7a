"""Queries of tests, in the query language."""

from __future__ import annotations

from decklog.domain.search.query import Query, parse


def asked(query: str, **parameters: str) -> Query:
    """Return the query of this text and of further parameters of a search."""
    return parse([("q", query), *parameters.items()])[1]
