"""All faults of a JSON value at once: what is wrong, where, what is allowed, and which field was meant.

A decoder stops at the first fault and has words of its own. So a value that it refused is compared with its type here, once more and
slowly. Nothing here accepts or refuses: a value without a fault here may still be refused by the decoder.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from itertools import islice
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType, inspect

from decklog.domain.errors import Code, DecklogError
from decklog.domain.privacy.masking import is_secret_name
from decklog.domain.times import NotATimeError, instant

FAULTS_MAX = 20
"""Faults of one value that are listed."""
SHOWN_CHARS_MAX = 80
"""Characters of a value or a name that a fault repeats."""
PATH_CHARS_MAX = 200
_GUESS_CHARS_MAX = 32
"""Longer names are not compared with those of fields: the time grows with the square of the length."""


class Fault(msgspec.Struct, frozen=True, omit_defaults=True):
    """One fault: the path of the field, the reason as a clause, and where they help its value, what is allowed and what was meant.

    The `value` is cut, and absent where a name on the path holds secrets by convention or the field is unknown.
    """

    path: str
    message: str
    value: Any = UNSET
    allowed: tuple[str, ...] | UnsetType = UNSET
    meant: str | UnsetType = UNSET

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else f"{self.message[:1].upper()}{self.message[1:]}"


class Hints(msgspec.Struct, frozen=True):
    """Names and values that other systems use: `names` lead to the path of the field that is meant, `values` by path to its value.

    Names are in small letters, without `_`, `-`, `.` and `@`; a name of a nested object has its path in front, as in `actor.email`.
    `added` are names of the outermost object that the server adds.
    """

    names: Mapping[str, str] = {}
    values: Mapping[str, Mapping[str, str]] = {}
    added: frozenset[str] = frozenset()


NO_HINTS = Hints()


def refused(code: Code, faults: Iterable[Fault], otherwise: str) -> DecklogError:
    """Return the refusal of a value with these faults, of which it lists `FAULTS_MAX`; the detail has the first.

    `otherwise` is the detail where no fault was found: the decoder refused what the comparison with its type accepts.
    """
    faults = list(islice(faults, FAULTS_MAX))
    if not faults:
        return DecklogError(code, otherwise)
    more = f" {len(faults) - 1} more in errors." if len(faults) > 1 else ""
    return DecklogError(code, f"{faults[0]}.{more}", extra={"errors": [msgspec.to_builtins(fault) for fault in faults]})


def faults_of(shape: type, value: Any, hints: Hints = NO_HINTS, path: str = "") -> Iterator[Fault]:
    """Yield the faults of decoded JSON, compared with a type of msgspec; `path` is that of the value."""
    yield from _Walk(hints).faults(_type_info(shape), value, path)


_type_info = cache(inspect.type_info)


def joined(path: str, name: str) -> str:
    """Return the path of a member, cut."""
    name = name[:SHOWN_CHARS_MAX]
    return (f"{path}.{name}" if path else name)[:PATH_CHARS_MAX]


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    for kind, word in ((str, "a text"), (int, "a number"), (float, "a number"), (dict, "an object"), (list, "an array")):
        if isinstance(value, kind):
            return word
    return "not JSON"


def shown(value: Any) -> str:
    """Return the beginning of a value, as a message has it."""
    if isinstance(value, str):
        return repr(value[:SHOWN_CHARS_MAX]) + ("…" if len(value) > SHOWN_CHARS_MAX else "")
    if isinstance(value, bool | None):
        return _kind(value)
    small = isinstance(value, int | float) and abs(value) < 10**40  # Python writes no number of more than 4,300 digits
    return f"{value}" if small else ""


def _secret(path: str) -> bool:
    return any(is_secret_name(name) for name in re.split(r"[.\[]", path))


def _normal(name: str) -> str:
    return re.sub(r"[_\-.@\s]", "", name).lower()


class _Walk:
    """Compares a value with a type. Each method yields the faults of one kind of type."""

    def __init__(self, hints: Hints) -> None:
        self._hints = hints
        self._kinds: dict[type, Callable[[Any, Any, str], Iterator[Fault]]] = {
            inspect.Metadata: self._metadata,
            inspect.UnionType: self._union,
            inspect.StructType: self._struct,
            inspect.ListType: self._list,
            inspect.StrType: self._text,
            inspect.IntType: self._number,
            inspect.FloatType: self._number,
            inspect.BoolType: self._flag,
            inspect.EnumType: self._enumeration,
            inspect.LiteralType: self._literal,
        }

    def faults(self, kind: inspect.Type, value: Any, path: str) -> Iterator[Fault]:
        compare = self._kinds.get(type(kind))
        if compare is not None:
            yield from compare(kind, value, path)

    def _fault(self, path: str, message: str, value: Any, allowed: Any = UNSET, meant: str | UnsetType = UNSET) -> Fault:
        scalar = not isinstance(value, dict | list) and shown(value) != "" and not _secret(path)
        value = (value[:SHOWN_CHARS_MAX] if isinstance(value, str) else value) if scalar else UNSET
        return Fault(path, message, value, allowed, meant)

    def _wrong_kind(self, wanted: str, value: Any, path: str) -> Fault:
        number = shown(value) if isinstance(value, int | float) and not isinstance(value, bool) and not _secret(path) else ""
        of = f" ({number})" if number else ""
        return self._fault(path, f"must be {wanted}, and is {_kind(value)}{of}", value)

    def _metadata(self, kind: inspect.Metadata, value: Any, path: str) -> Iterator[Fault]:
        if (kind.extra_json_schema or {}).get("format") == "date-time":
            yield from self._time(value, path)
        else:
            yield from self.faults(kind.type, value, path)

    def _time(self, value: Any, path: str) -> Iterator[Fault]:
        try:
            instant(value if isinstance(value, str) else shown(value) or _kind(value))
        except NotATimeError as error:
            yield self._fault(path, str(error).removesuffix("."), value)
        else:
            if not isinstance(value, str):
                yield self._wrong_kind("a time as text", value, path)

    def _union(self, kind: inspect.UnionType, value: Any, path: str) -> Iterator[Fault]:
        others = [each for each in kind.types if not isinstance(each, inspect.NoneType)]
        if value is None and len(others) < len(kind.types):
            return
        if len(others) == 1:
            yield from self.faults(others[0], value, path)

    def _struct(self, kind: inspect.StructType, value: Any, path: str) -> Iterator[Fault]:
        if not isinstance(value, dict):
            yield self._wrong_kind("an object", value, path)
            return
        fields = {field.encode_name: field for field in kind.fields}
        for field in kind.fields:
            if field.required and field.encode_name not in value:
                yield Fault(joined(path, field.encode_name), "is required, and absent")
        for name, item in value.items():
            if (known := fields.get(name)) is not None:
                yield from self.faults(known.type, item, joined(path, name))
            elif kind.forbid_unknown_fields:
                yield self._unknown(path, str(name), tuple(fields))

    def _unknown(self, path: str, name: str, allowed: tuple[str, ...]) -> Fault:
        if not path and name in self._hints.added:
            return Fault(name, "the server adds this field; it cannot be sent", allowed=allowed)
        meant = self._meant(path, name, allowed)
        end = f"; {meant} was meant" if meant else f"; allowed: {', '.join(allowed)}"
        return Fault(joined(path, name), f"there is no such field{end}", allowed=allowed, meant=meant or UNSET)

    def _meant(self, path: str, name: str, allowed: tuple[str, ...]) -> str | None:
        if len(name) > _GUESS_CHARS_MAX:
            return None
        normal = _normal(name)
        if (known := self._hints.names.get(f"{path}.{normal}" if path else normal)) is not None:
            return known
        by_normal = {_normal(each): each for each in allowed}
        close = difflib.get_close_matches(normal, by_normal, n=1, cutoff=0.75)
        return joined(path, by_normal[close[0]]) if close else None

    def _list(self, kind: inspect.ListType, value: Any, path: str) -> Iterator[Fault]:
        if not isinstance(value, list):
            yield self._wrong_kind("an array", value, path)
            return
        if kind.max_length is not None and len(value) > kind.max_length:
            yield self._fault(path, f"has {len(value)} items; at most {kind.max_length} are allowed", value)
        for index, item in enumerate(value):
            yield from self.faults(kind.item_type, item, f"{path}[{index}]")

    def _text(self, kind: inspect.StrType, value: Any, path: str) -> Iterator[Fault]:
        if not isinstance(value, str):
            yield self._wrong_kind("a text", value, path)
        elif kind.min_length is not None and len(value) < kind.min_length:
            yield self._fault(path, f"has {len(value)} characters; at least {kind.min_length} must be there", value)
        elif kind.max_length is not None and len(value) > kind.max_length:
            yield self._fault(path, f"has {len(value)} characters; at most {kind.max_length} are allowed", value)
        elif kind.pattern is not None and not re.search(kind.pattern, value):
            yield self._fault(path, f"{shown(value)} does not have the form {kind.pattern}", value, (kind.pattern,))

    def _number(self, kind: inspect.IntType | inspect.FloatType, value: Any, path: str) -> Iterator[Fault]:
        whole = isinstance(kind, inspect.IntType)
        if not isinstance(value, int if whole else (int, float)) or isinstance(value, bool):
            yield self._wrong_kind("a whole number" if whole else "a number", value, path)
            return
        least, most = (-math.inf if kind.ge is None else kind.ge), (math.inf if kind.le is None else kind.le)
        if not least <= value <= most:
            yield self._fault(
                path, f"{shown(value) or 'the number'} is not within {least} to {most}", value, (f"{least} to {most}",)
            )

    def _flag(self, _: inspect.BoolType, value: Any, path: str) -> Iterator[Fault]:
        if not isinstance(value, bool):
            yield self._wrong_kind("true or false", value, path)

    def _enumeration(self, kind: inspect.EnumType, value: Any, path: str) -> Iterator[Fault]:
        yield from self._choice(tuple(str(member.value) for member in kind.cls), value, path)

    def _literal(self, kind: inspect.LiteralType, value: Any, path: str) -> Iterator[Fault]:
        yield from self._choice(tuple(map(str, kind.values)), value, path)

    def _choice(self, allowed: tuple[str, ...], value: Any, path: str) -> Iterator[Fault]:
        if not isinstance(value, str):
            yield msgspec.structs.replace(self._wrong_kind("a text", value, path), allowed=allowed)
        elif value not in allowed:
            meant = self._hints.values.get(path, {}).get(value.lower())
            meant = meant or next((each for each in allowed if each.lower() == value.lower()), None)
            end = f"; {meant} was meant" if meant else ""
            message = f"{shown(value)} is not one of {', '.join(allowed)}{end}"
            yield self._fault(path, message, value, allowed, meant or UNSET)


def syntax(error: Exception) -> str:
    """Return why a text is not JSON in UTF-8, as a clause, from the decoder's error."""
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not UTF-8"
    if isinstance(error, json.JSONDecodeError):
        return f"it is malformed at character {error.pos}"
    if "truncated" in f"{error}":
        return "it ends too early"
    match = re.fullmatch(r"JSON is malformed: (.+) \(byte (\d+)\)", f"{error}")
    return f"{match[1]} at byte {match[2]}" if match else "it is malformed"


def loaded(text: bytes) -> Any:
    """Return JSON decoded for `faults_of`: of a repeated name the last value, and numbers of any length.

    Raises:
        ValueError: The text is not JSON.
        RecursionError: It is nested too deeply.
    """
    return json.loads(text.decode(), parse_int=_bounded_int)


def _bounded_int(digits: str) -> int | float:
    return int(digits) if len(digits) <= _DIGITS_MAX else math.inf


_DIGITS_MAX = 4_300
"""Digits of an integer that Python and the decoder convert."""
