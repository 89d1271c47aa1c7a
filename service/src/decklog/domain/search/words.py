"""The words of a text: the one tokenizer, of records and of queries.

A word is a run of letters, digits, marks and `_`, close to the words of Unicode Standard Annex #29; other characters separate words.
Words are compared without case, accents and compatibility forms. Scripts that put no blanks between words have overlapping pairs of
characters instead, so any two characters of a sentence are found, and longer texts as phrases of such pairs.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

TOKEN_CHARS_MAX = 120
"""Characters of one token, so that it has less than the 255 UTF-16 units at which OpenSearch splits. A longer run is several tokens one
after another, and a query for it is a phrase of the same tokens."""

_SEPARATOR = "\0"
"""Between texts that are split at once. Records cannot contain it."""
_BLANK = " "
_KEPT_LIGATURES = frozenset("\ufdfa\ufdfb")
"""Ligatures of whole sentences. Written out they have up to 18 characters, which would let a record grow by that factor."""
_ACCENTS = (
    (0x0300, 0x036F),  # Latin, Greek, Cyrillic
    (0x0483, 0x0489),  # Cyrillic numerals
    (0x0591, 0x05C7),  # Hebrew points
    (0x0610, 0x061A),
    (0x064B, 0x065F),  # Arabic vowels
    (0x0670, 0x0670),
    (0x06D6, 0x06ED),
    (0x1AB0, 0x1AFF),
    (0x1DC0, 0x1DFF),
    (0x20D0, 0x20FF),
    (0xFE20, 0xFE2F),
)
"""Ranges whose marks are accents. In other scripts (Devanagari, Thai, kana) a mark makes another letter, so it stays."""
_STROKES = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "ħ": "h", "ŧ": "t", "ı": "i", "æ": "ae", "œ": "oe", "ð": "d", "þ": "th"})
"""Letters whose stroke Unicode does not treat as an accent, and their plain spelling."""
_UNSPACED = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f"  # Myanmar
    "\u1780-\u17ff"  # Khmer
    "\u1950-\u19ff\u1a20-\u1aaf\uaa80-\uaadf"  # Tai
    "\ua980-\ua9df\u1b00-\u1b7f"  # Javanese, Balinese
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3038-\u303b\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
    "\u3041-\u30ff\u31f0-\u31ff\U0001aff0-\U0001b16f"  # Hiragana, Katakana
    "\u3100-\u312f\u31a0-\u31bf"  # Bopomofo
)
_RUN = re.compile(f"[{_UNSPACED}]+|[^{_UNSPACED}]+")
_HAS_UNSPACED = re.compile(f"[{_UNSPACED}]")
_PIECE = re.compile(f"(?s).{{1,{TOKEN_CHARS_MAX}}}")


def _is_accent(character: str) -> bool:
    code = ord(character)
    return any(first <= code <= last for first, last in _ACCENTS) and unicodedata.category(character)[0] == "M"


def _in_word(character: str) -> bool:
    return character == "_" or unicodedata.category(character)[0] in "LNM"


def _folded(character: str) -> str:
    """Return what stands for one character: letters without case and accents, a blank between words, nothing if ignorable."""
    if character in _KEPT_LIGATURES:
        return character
    if unicodedata.category(character) == "Cf":  # joiners, soft hyphens and marks of direction: invisible within a word
        return ""
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", character).casefold())
    kept = "".join(each for each in plain if not _is_accent(each)).translate(_STROKES)
    return "".join(each if _in_word(each) else _BLANK for each in unicodedata.normalize("NFC", kept))


class _Folding(dict[int, str]):
    """What stands for each character, by its code point; computed once for each that occurs."""

    def __missing__(self, code: int) -> str:
        folded = self[code] = _folded(chr(code))
        return folded


_FOLDING = _Folding({ord(_SEPARATOR): _SEPARATOR})
_ASCII = {code: _SEPARATOR if code == 0 else _folded(chr(code)) for code in range(128)}


def tokens(text: str) -> tuple[str, ...]:
    """Return the tokens of a text, in order."""
    if text.isascii():
        return _split(text.translate(_ASCII).replace(_SEPARATOR, _BLANK))
    return _split(text.translate(_FOLDING).replace(_SEPARATOR, _BLANK))


def tokens_of(texts: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Return the tokens of each text that has some, in order. Much faster than one after the other."""
    plain = [text for text in texts if text.isascii()]
    if len(plain) != len(texts):
        return tuple(filter(None, map(tokens, texts)))
    split = _SEPARATOR.join(plain).translate(_ASCII).split(_SEPARATOR)
    if max(map(len, split)) <= TOKEN_CHARS_MAX:  # as most are; a call for each would cost more than the rest
        return tuple([tuple(found) for part in split if (found := part.split())])
    return tuple(filter(None, map(_split, split)))


def _split(folded: str) -> tuple[str, ...]:
    found = folded.split()
    if folded.isascii():
        if len(folded) <= TOKEN_CHARS_MAX or len(max(found, key=len, default="")) <= TOKEN_CHARS_MAX:
            return tuple(found)
        return tuple(piece for run in found for piece in _PIECE.findall(run))
    return tuple(token for run in found for token in ((run,) if run.isascii() and len(run) <= TOKEN_CHARS_MAX else _tokens(run)))


def _tokens(run: str) -> list[str]:
    """Return the tokens of one run of word characters."""
    found: list[str] = []
    for part in _RUN.findall(run if run.isascii() else _composed(run)):
        if len(part) > 1 and _HAS_UNSPACED.match(part):
            found += [part[at : at + 2] for at in range(len(part) - 1)]
        else:
            found += _PIECE.findall(part)
    return found


def _composed(run: str) -> str:
    """Return a run with its marks composed, in short pieces: the time grows with the square of the marks in a row."""
    return "".join(unicodedata.normalize("NFC", piece) for piece in _PIECE.findall(run))


def unspaced(token: str) -> bool:
    """Return whether a token is of a script without blanks between words: a pair of its characters, or a single one."""
    return _HAS_UNSPACED.match(token) is not None


class Located(NamedTuple):
    """A token, and the part of its text that it stands for: from the character `start` up to, but not including, `end`."""

    token: str
    start: int
    end: int


def located(text: str) -> list[Located]:
    """Return the tokens of a text, the same as `tokens` does, each with its place. Slower by far."""
    folded = [_FOLDING[ord(character)].replace(_SEPARATOR, _BLANK) for character in text]
    origins = [at for at, found in enumerate(folded) for _ in found]
    return [
        Located(token, first, _end(folded, last))
        for run in _WORD.finditer("".join(folded))
        for token, first, last in _located_run(run[0], origins[run.start() : run.end()])
    ]


_WORD = re.compile(f"[^{_BLANK}]+")


def _end(folded: Sequence[str], last: int) -> int:
    """Return the end of a token: behind its last character, and behind what nothing stands for, such as an accent."""
    last += 1
    while last < len(folded) and not folded[last]:
        last += 1
    return last


def _located_run(run: str, origins: Sequence[int]) -> Iterator[tuple[str, int, int]]:
    """Yield the tokens of one run of word characters, each with the first and the last character of the text that it is made of."""
    firsts = lasts = origins
    if not run.isascii():
        run, firsts, lasts = _located_composed(run, origins)
    for part in _RUN.finditer(run):
        start, end = part.span()
        paired = end - start > 1 and _HAS_UNSPACED.match(run, start)
        steps = ((at, at + 2) for at in range(start, end - 1)) if paired else _pieces(start, end)
        for first, last in steps:
            yield run[first:last], firsts[first], lasts[last - 1]


def _pieces(start: int, end: int) -> Iterator[tuple[int, int]]:
    return ((at, min(at + TOKEN_CHARS_MAX, end)) for at in range(start, end, TOKEN_CHARS_MAX))


def _located_composed(run: str, origins: Sequence[int]) -> tuple[str, list[int], list[int]]:
    """Return a run with its marks composed, and the first and the last origin of each of its characters."""
    composed, firsts, lasts = "", [], []
    for start, end in _pieces(0, len(run)):
        for first, last in _composed_alone(run, start, end):
            made = unicodedata.normalize("NFC", run[first:last])
            composed += made
            firsts += [origins[first]] * len(made)
            lasts += [origins[last - 1]] * len(made)
    return composed, firsts, lasts


def _composed_alone(run: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the parts of a piece each of which is composed without the others."""
    if unicodedata.is_normalized("NFC", run[start:end]):
        yield from ((at, at + 1) for at in range(start, end))
        return
    first = start
    for at in range(start + 1, end):
        before = unicodedata.normalize("NFC", run[first:at])
        if not unicodedata.combining(run[at]) and unicodedata.normalize("NFC", run[first : at + 1]) == before + run[at]:
            yield first, at
            first = at
    yield first, end
