"""Exit codes of the verbs that ask a server: 0 found or done, 1 nothing found or refused, 2 wrong use, 3 no answer now."""

from __future__ import annotations

from decklog.domain.errors import Code, DecklogError

FOUND, NOTHING, WRONG_USE, UNREACHABLE = 0, 1, 2, 3
EXITS = "0 (found, or done), 1 (nothing was found, or the server refused), 2 (wrong use), 3 (the server does not answer now)"
"""The codes in the words of `--help`."""

ASKING = frozenset(
    {"login", "use", "whoami", "send", "tail", "search", "show", "top", "story", "export", "ask", "keys", "retention"}
)
"""Verbs with these codes. The others have 0, 1 and 2, as their help says."""

_WRONG_USE = frozenset(
    {Code.MISCONFIGURED, Code.INVALID_QUERY, Code.INVALID_PARAMETER, Code.UNKNOWN_PARAMETER, Code.QUESTION_NOT_UNDERSTOOD}
)
_NO_ANSWER = frozenset(
    {
        Code.STORAGE_UNAVAILABLE,
        Code.SEARCH_UNAVAILABLE,
        Code.ACCESS_LOG_UNAVAILABLE,
        Code.ISSUER_UNAVAILABLE,
        Code.REGISTRY_STALE,
        Code.CLOCK_BEHIND,
        Code.OUTCOME_UNKNOWN,
        Code.OVERLOADED,
        Code.RATE_LIMITED,
        Code.TOO_MANY_CONNECTIONS,
        Code.TOO_MANY_STREAMS,
        Code.REQUEST_TIMEOUT,
        Code.READER_TOO_SLOW,
        Code.INTERNAL,
    }
)
"""Refusals that say nothing about the request: the same one may succeed later."""


def code_of(error: DecklogError) -> int:
    """Return the exit code for an error of a verb that asks a server."""
    if error.code in _WRONG_USE:
        return WRONG_USE
    return UNREACHABLE if error.code in _NO_ANSWER else NOTHING
