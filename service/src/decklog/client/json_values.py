"""Split text into its JSON values, however they are written: lines, indented, one after the other, arrays, or documents of many.

Memory is bounded by the largest value, never by the file: an array or a document with many events is split while it is read. What
is not JSON becomes a piece of its own, and reading goes on at the next line that begins like a value.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator
from enum import Enum, auto

import msgspec

VALUE_CHARS_MAX = 16 * 1024 * 1024
"""Characters of one value. A record has at most 256 KiB."""
CHUNK_BYTES = 1024 * 1024
"""Bytes that are read at a time."""
ENVELOPES = frozenset({"Records", "records", "items", "Events", "logEvents"})
"""Members of a document that hold many events: CloudTrail, Azure, Kubernetes, `lookup-events`, CloudWatch Logs."""

_NESTED_MAX = 3
"""Arrays and documents within each other whose items are events."""
_SEPARATORS = re.compile(r"[\s,\x1e]*")
"""Between values. U+001E begins each value of a JSON text sequence (RFC 7464)."""
_BLANKS = re.compile(r"[ \t\r\n]*")
_NEWLINE = re.compile(r"\n")
_TAIL_CHARS = 16
"""An error this near to the end of what has been read may be a value that goes on: `-Infinity` has 9 characters."""
ERRORS = "surrogateescape"
"""How bytes that are no text are decoded, so that they can be encoded again."""
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))

# Only the end of a value counts here, so numbers need no value: an integer of 5,000 digits would raise ValueError.
_scan = json.JSONDecoder(parse_int=bool, parse_float=bool).raw_decode


class Piece(msgspec.Struct, frozen=True):
    """The JSON of one event, which is not checked yet, and its place in the file.

    `line` counts from 1; `item` counts from 1 within an array or a document that begins on the same line. `raw` is None where
    nothing could be read, and `problem` then says why.
    """

    line: int
    raw: bytes | None
    item: int | None = None
    problem: str = ""

    @property
    def place(self) -> str:
        """Return line and item as text."""
        return f"{self.line}" if self.item is None else f"{self.line} (item {self.item})"


class _Unread(Enum):
    """Why a value could not be taken from the text."""

    MALFORMED = auto()
    TOO_LARGE = auto()


def encoding_of(first: bytes) -> tuple[str, int]:
    """Return the encoding of text that begins with these bytes, and the length of its byte order mark. Without one it is UTF-8."""
    return next(((name, len(mark)) for mark, name in _MARKS if first.startswith(mark)), ("utf-8", 0))


def decoder(encoding: str) -> codecs.IncrementalDecoder:
    """Return a decoder. Bytes that are not UTF-8 become lone surrogates, and so stay with the value that holds them."""
    return codecs.getincrementaldecoder(encoding)(ERRORS)


def encoded(text: str) -> bytes:
    """Return text as the bytes from which it was decoded; lone surrogates of UTF-16 become bytes that are not UTF-8."""
    return text.encode("utf-8", "surrogateescape")


class Values:
    """The values of a text. `read` returns up to so many bytes, and none at the end; the text begins on line `line`."""

    def __init__(self, read: Callable[[int], bytes], line: int = 1) -> None:
        self._read = read
        self._decoder: codecs.IncrementalDecoder | None = None
        self._text = ""
        self._at = 0
        """Where the value in work begins; what is before it has been given."""
        self._line = line
        self._indent: str | None = ""
        """The blanks between the beginning of the line and the value; None where something else is in between."""
        self._ended = False
        self._broken = False
        """The array in work cannot be followed any further: what follows is read as values of their own."""

    def __iter__(self) -> Iterator[Piece]:
        """Yield the pieces in order. Raises what `read` raises."""
        while self._next():
            self._broken = False
            yield from self._value(None, _NESTED_MAX)

    # The text

    def _more(self) -> bool:
        """Read more, at least as much as is held, so that a large value is scanned only a few times. Return False at the end."""
        if self._ended:
            return False
        data = self._read(max(CHUNK_BYTES, len(self._text) - self._at))
        if self._decoder is None:
            name, mark = encoding_of(data)
            self._decoder, data = decoder(name), data[mark:]
        self._ended = not data
        self._text = self._text[self._at :] + self._decoder.decode(data, final=self._ended)
        self._at = 0
        return True

    def _advance(self, end: int) -> None:
        self._line += self._text.count("\n", self._at, end)
        self._at = end

    def _taken(self, end: int) -> str:
        """Return the text up to `end`, and advance."""
        text = self._text[self._at : end]
        self._indent = None
        self._advance(end)
        return text

    def _next(self) -> bool:
        """Advance to the next value, and return False at the end."""
        while True:
            end = _SEPARATORS.match(self._text, self._at).end()  # type: ignore[union-attr]  # it matches nothing, too
            _, newline, blanks = self._text[self._at : end].rpartition("\n")
            if newline:
                self._indent = blanks
            elif self._indent is not None:
                self._indent += blanks
            self._advance(end)
            if end < len(self._text):
                return True
            if not self._more():
                return False

    def _peek(self, offset: int) -> int | None:
        """Return the offset of the next character that is no blank, counted from the value in work; None at the end."""
        while True:
            end = _BLANKS.match(self._text, self._at + offset).end()  # type: ignore[union-attr]  # it matches nothing, too
            if end < len(self._text):
                return end - self._at
            if not self._more():
                return None

    def _char(self, offset: int) -> str:
        return self._text[self._at + offset]

    def _end_of(self, offset: int = 0, limit: int | None = None) -> tuple[object, int] | _Unread:
        """Return the value at this offset from the value in work, and the offset of its end: at most `limit` characters are held."""
        while True:
            try:
                value, end = _scan(self._text, self._at + offset)
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated string") or error.pos >= len(self._text) - _TAIL_CHARS
                if not cut or self._ended:
                    return _Unread.MALFORMED
            except RecursionError:
                return _Unread.MALFORMED
            else:
                if end < len(self._text) or self._text[end - 1] in '}]"' or self._ended:
                    return value, end - self._at
            if len(self._text) - self._at > (limit or VALUE_CHARS_MAX):
                return _Unread.TOO_LARGE
            self._more()

    # Values

    def _value(self, item: int | None, depth: int) -> Iterator[Piece]:
        """Yield the pieces of the value in work: one, or those of an array or of a document with many events."""
        opens = self._char(0)
        if opens == "[" and depth:
            yield from self._array(depth)
            return
        splits = opens == "{" and depth > 0
        found = self._end_of(limit=CHUNK_BYTES if splits else None)
        if splits and (isinstance(found, _Unread) or _holds_many(found[0])):
            if (start := self._array_among_members(1)) is not None and start[0]:
                yield from self._document(start[1], depth)
                return
            found = self._end_of()
        if not isinstance(found, _Unread) and found[1] > VALUE_CHARS_MAX:
            found = _Unread.TOO_LARGE
        if isinstance(found, _Unread):
            yield self._unread(found, item)
        else:
            yield Piece(self._line, encoded(self._taken(self._at + found[1])), item)

    def _array(self, depth: int) -> Iterator[Piece]:
        first, number = self._line, 0
        self._taken(self._at + 1)
        while self._next():
            if self._char(0) == "]":
                self._taken(self._at + 1)
                return
            number += 1
            yield from self._value(number if self._line == first else None, depth - 1)
            if self._broken:
                return
        yield Piece(self._line, None, problem="the file ends within an array of events")

    def _document(self, start: int, depth: int) -> Iterator[Piece]:
        """Yield the events of a document: those of its array at `start`, and of further ones. Its other members are ignored."""
        found: tuple[bool, int] | None = (True, start)
        while found is not None and found[0]:
            self._taken(self._at + found[1])
            yield from self._array(depth)
            found = None if self._broken else self._array_among_members(0)
        if found is not None:
            self._taken(self._at + found[1])

    def _array_among_members(self, offset: int) -> tuple[bool, int] | None:
        """Walk over members of the object in work.

        Returns:
            True and the offset of the next array of many events, False and the offset after the object, or None for what is not JSON.
        """
        while (at := self._peek(offset)) is not None:
            if self._char(at) == "}":
                return False, at + 1
            if self._char(at) == ",":
                offset = at + 1
                continue
            name = self._end_of(at)
            if isinstance(name, _Unread) or (colon := self._peek(name[1])) is None or self._char(colon) != ":":
                return None
            if (value := self._peek(colon + 1)) is None:
                return None
            if self._char(value) == "[" and name[0] in ENVELOPES:
                return True, value
            if isinstance(found := self._end_of(value), _Unread):
                return None
            offset = found[1]
        return None

    # What cannot be read

    def _unread(self, why: _Unread, item: int | None) -> Piece:
        """Skip what cannot be read: to the next line, or after an opening bracket to the next line that begins as the value does."""
        line, self._broken = self._line, self._indent is None
        indent = "[ \t]*" if self._indent is None else re.escape(self._indent)
        pattern = re.compile(rf"\n(?={indent}[{{\[])") if self._char(0) in "{[" else _NEWLINE
        parts = [self._taken(self._skip_to(pattern))]
        while self._at == len(self._text) and self._more():
            parts = []  # it is too large to be kept
            self._taken(self._skip_to(pattern))
        if why is _Unread.TOO_LARGE or not parts or len(parts[0]) > VALUE_CHARS_MAX:
            return Piece(line, None, item, f"the value has more than {VALUE_CHARS_MAX} characters")
        return Piece(line, encoded(parts[0].rstrip()), item)

    def _skip_to(self, pattern: re.Pattern[str]) -> int:
        """Return where the pattern matches, or the end of the text where it does not within `VALUE_CHARS_MAX` characters."""
        while True:
            found = pattern.search(self._text, self._at)
            if found is not None:
                return found.start()
            if len(self._text) - self._at > VALUE_CHARS_MAX or not self._more():
                return len(self._text)


def _holds_many(value: object) -> bool:
    return isinstance(value, dict) and any(isinstance(value.get(name), list) for name in ENVELOPES)
