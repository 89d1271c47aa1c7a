"""The words of a question, with their places."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import msgspec

from decklog.domain.search.terms import parse_network

WORDS_MAX = 120
"""Words of one question."""
_ROUGH = re.compile(r'"[^"]*"|“[^”]*”|„[^“”]*[“”]|(?<!\w)\'[^\']*\'(?!\w)|,|\S+')
_OPENING, _CLOSING = "([{<", ")]}>,;:!?."
_POSSESSIVE = re.compile(r"(?<=\w)['’]s$|(?<=s)['’]$", re.IGNORECASE)
_NEGATIVE = re.compile(r"(?<=\w)n['’]t$", re.IGNORECASE)
_QUOTES = "\"“„'"


class Token(msgspec.Struct, frozen=True):
    """A word of a question, in characters from `start` up to, but not including, `end`.

    `text` is what it says without quotes, `word` that in small letters. A quoted text is one token, and so
    are the `'s` behind a name and the `n't` behind a verb.
    """

    start: int
    end: int
    text: str
    word: str
    quoted: bool = False


def tokens_of(question: str) -> list[Token]:
    """Return the words of a question. A comma is a word, other punctuation is none."""
    return [token for rough in _ROUGH.finditer(question) for token in _tokens(rough.group(), rough.start())]


def _tokens(text: str, start: int) -> Iterator[Token]:
    if len(text) > 1 and text[0] in _QUOTES:
        yield Token(start, start + len(text), text[1:-1], text[1:-1].lower(), quoted=True)
        return
    while text and text[0] in _OPENING:
        text, start = text[1:], start + 1
    kept = text if text == "," or parse_network(text) else text.rstrip(_CLOSING)
    if kept.strip("-–—…&"):
        yield from _parted(kept, start)
    if text.endswith(",") and kept != text:
        yield _token(",", start + len(text) - 1)


def _parted(text: str, start: int) -> Iterator[Token]:
    """Yield a word, and apart from it what is written together with it: the `'s` of a name, and `n't`."""
    if text.endswith("'") and text.count("'") == 1 and not text.endswith("s'"):
        text = text[:-1]
    for pattern in (_POSSESSIVE, _NEGATIVE):
        if (found := pattern.search(text)) is not None:
            yield _token(text[: found.start()], start)
            ending = "'s" if pattern is _POSSESSIVE else "n't"
            yield Token(start + found.start(), start + len(text), found.group(), ending)
            return
    yield _token(text, start)


def _token(text: str, start: int) -> Token:
    return Token(start, start + len(text), text, text.lower().replace("’", "'"))


def words(tokens: Sequence[Token], first: int, count: int) -> str:
    """Return so many words from a place on, in small letters with blanks between them; fewer at the end."""
    return " ".join(token.word for token in tokens[first : first + count])
