"""The query language: what each form means, what is refused with which place and suggestion, and its laws."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decklog.domain.errors import Code, DecklogError
from decklog.domain.search import grammar, syntax, tree
from decklog.domain.search.conditions import PATTERN_CHARS_MAX, PATTERNS_MAX, PHRASE_WORDS_MAX, WILDCARDS_MAX
from decklog.domain.search.grammar import CLAUSES_MAX, DEPTH_MAX, QUERY_CHARS_MAX
from decklog.domain.search.written import written
from tests.support.questions import Questions
from tests.support.strategies import records, terms_of

NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)


def canonical(query: str) -> str:
    return written(syntax.read(query, NOW))


def refused(query: str) -> DecklogError | None:
    try:
        syntax.read(query, NOW)
    except DecklogError as error:
        return error
    return None


def refusal(query: str) -> DecklogError:
    with pytest.raises(DecklogError) as error:
        syntax.read(query, NOW)
    assert error.value.code is Code.INVALID_QUERY
    return error.value


@pytest.mark.parametrize(
    ("query", "meaning"),
    [
        ("alice", "alice"),
        ("Alice M\u00fcller", "alice AND muller"),
        ("a AND b OR c", "(a AND b) OR c"),
        ("a b OR c d", "(a AND b) OR (c AND d)"),
        ("a (b OR -c)", "a AND (b OR NOT c)"),
        ("-kms", "NOT kms"),
        ("NOT NOT kms", "kms"),
        ("-(a OR b)", "NOT (a OR b)"),
        ("a a", "a"),
        ('"disk full"', '"disk full"'),
        ('"and"', '"and"'),
        ('"a \\"b\\" c"', '"a b c"'),
        ("10.0.0.1", '"10 0 0 1"'),
        ("alice@example.org", '"alice example org"'),
        ("d-17", '"d 17"'),
        ("foo\\:bar", '"foo bar"'),
        ("\\-a", "a"),
        ("u_*", "u_*"),
        ("w?rd", "w?rd"),
        ("*ROLE", "*role"),
        ("\u6771\u4eac", "\u6771\u4eac"),
        ("\u6771", "\u6771 OR \u6771? OR ?\u6771"),
        ("login to prod", 'login AND "to" AND prod'),
        ("actor:alice", "actor.id:alice"),
        ("actor.id:alice", "actor.id:alice"),
        ("actor:(a OR b)", "actor.id:a OR actor.id:b"),
        ("actor:(NOT a)", "NOT actor.id:a"),
        ("related:(a b)", "related.id:a AND related.id:b"),
        ("action:user.*", "action:user.*"),
        ("action:user\\*", 'action:"user*"'),
        ('action:"user.*"', 'action:"user.*"'),
        ("action:a**b", "action:a*b"),
        ("resource.id:arn:aws:s3:::b/*", "resource.id:arn\\:aws\\:s3\\:\\:\\:b/*"),
        ("metadata.a\\ b:1", "metadata.a\\ b:1"),
        ("metadata.state:OR", 'metadata.state:"OR"'),
        ("metadata.n:>=1000", "metadata.n:>=1e3"),
        ("metadata.n:[1 TO 5}", "metadata.n:[1 TO 5}"),
        ("metadata.n:{-1.50 TO *]", "metadata.n:>-15e-1"),
        ("metadata.n:(>=1 AND <5)", "metadata.n:>=1 AND metadata.n:<5"),
        ("before.role:viewer after.role:admin", "before.role:viewer AND after.role:admin"),
        ("message:disk*", "message:disk*"),
        ('message:("disk full" OR quota)', 'message:"disk full" OR message:quota'),
        ("severity:>=ERROR", "severity:ERROR OR severity:CRITICAL"),
        ("severity:[INFO TO ERROR}", "severity:INFO OR severity:WARNING"),
        ("ip:10.1.2.3/8", "source.ip:10.0.0.0/8"),
        ("ip:2001:db8::1", "source.ip:2001:db8::1/128"),
        ("ip:[::1]:443", None),
        ("since:24h", "since:now-24h"),
        ("until:now", "until:now"),
        ("from:2026-11-01 to:2026-12-01", "occurred_at:>=2026-11-01T00:00:00Z AND occurred_at:<2026-12-01T00:00:00Z"),
        ("occurred_at:2026-11-01", "occurred_at:>=2026-11-01T00:00:00Z AND occurred_at:<2026-11-02T00:00:00Z"),
        ("occurred_at:<=2026-11-01", "occurred_at:<2026-11-02T00:00:00Z"),
        ("occurred_at:>2026-11-01T00:00:00+01:00", "occurred_at:>=2026-10-31T23:00:00.000001Z"),
        ("occurred_at:[now-7d TO *]", "since:now-7d"),
        ("seq:42", "seq:42"),
        ("seq:(1 OR >=40)", "seq:1 OR seq:>=40"),
        ("seq:[10 TO 20]", "seq:[10 TO 20]"),
        ("seq:{10 TO 20}", "seq:[11 TO 19]"),
        ("seq:<=4 -seq:0", "seq:<5 AND NOT seq:0"),
        ("seq:[* TO 0]", "seq:0"),
        ("seq:>=0", "seq:>=0"),
        ("received_at:2026-11-01", "received_at:>=2026-11-01T00:00:00Z AND received_at:<2026-11-02T00:00:00Z"),
        ("received_at:[2026-11-01 TO now]", "received_at:>=2026-11-01T00:00:00Z AND received_at:<now"),
        ("NOT received_at:>now-2h", "NOT received_at:>=now-2h"),
        ("exists:metadata.reason", "exists:metadata.reason"),
        ("exists:(session_id OR before)", "exists:session_id OR exists:before"),
        ("NOT exists:actor", "NOT exists:actor.id"),
        ("masked:/metadata/password", "masked:/metadata/password"),
    ],
)
def test_query_means_its_canonical_text(query: str, meaning: str | None) -> None:
    if meaning is None:
        refusal(query)
        return
    assert canonical(query) == meaning
    assert canonical(meaning) == meaning


@pytest.mark.parametrize(
    ("query", "marked", "suggestion"),
    [
        ("", "", None),
        ("   ", " ", None),
        ("NOT", "NOT", None),
        ("seq>=42", "seq>=42", "seq:>=42"),
        ("seq:-1", "-1", None),
        ("seq:4*", "4*", None),
        ("seq:1e3", "1e3", None),
        ("seq:{4 TO 5}", "4", None),
        ("seq:[5 TO 4]", "5", None),
        ("exists:seq", "seq", None),
        ("exists:received_at", "received_at", None),
        ("received_at:24h", "24h", None),
        ("sequence:4", "sequence", "seq"),
        ("ingested:2026-01-01", "ingested", "received_at"),
        ("a AND", "AND", None),
        ("AND a", "AND", '"AND"'),
        ("a AND OR b", "OR", '"OR"'),
        ("a TO b", "TO", '"TO"'),
        ("a or b", "or", "OR"),
        ("not found", "not", "NOT"),
        ("a && b", "&&", "AND"),
        ("a | b", "|", "OR"),
        ("- a", "-", None),
        ("+a", "+a", "a"),
        ("!a", "!a", "-a"),
        ("!!!", "!!!", None),
        ("(a", "(", None),
        ("a)", ")", None),
        ("()", ")", None),
        ('"abc', '"', None),
        ('say "no', '"', None),
        ('foo"bar"', '"bar"', None),
        ("'a b'", "'a", '"a"'),
        ("\u201calice\u201d", "\u201calice\u201d", '"alice"'),
        ("roam~2", "roam~2", "roam"),
        ("alice^4", "alice^4", "alice"),
        ("x\\", "\\", "\\\\"),
        ("[a]", "[", None),
        ("*", "*", None),
        ("?", "?", None),
        ("...", "...", None),
        ("user.*", "user.*", "action:user.*"),
        ("10.0.*", "10.0.*", "source.ip:10.0.0.0/16"),
        ("ip:10.*", "10.*", "10.0.0.0/8"),
        ("\u6771\u4eac\u90fd*", "\u6771\u4eac\u90fd*", "\u6771\u4eac\u90fd"),
        ("n>=4", "n>=4", "metadata.n:>=4"),
        ("reason=retention", "reason=retention", "metadata.reason:retention"),
        ("actor==alice", "actor==alice", "actor:alice"),
        ("user_id:alice", "user_id", "actor.id"),
        ("ok actr:alice", "actr", "actor"),
        ("Action:x", "Action", "action"),
        ("metdata.x:1", "metdata.x", "metadata.x"),
        ("colour:red", "colour", "metadata.colour"),
        ("exists:foo", "foo", "metadata.foo"),
        ("metadata:x", "metadata:x", None),
        ("log:access", "log:access", None),
        ("actor: alice", ":", None),
        (":x", ":x", None),
        ("https://x/y", "https://x/y", '"https://x/y"'),
        ("12:30", "12:30", '"12:30"'),
        ("2001:db8::1", "2001:db8::1", "source.ip:2001:db8::1"),
        ("actor:*", "*", None),
        ("actor:id:5", "id:5", '"id:5"'),
        ("actor:(a OR resource.id:b)", "resource.id:b", '"resource.id:b"'),
        ("severity:error", "error", "ERROR"),
        ("severity:FATAL", "FATAL", None),
        ("outcome:denied outcome:Denied", "Denied", "denied"),
        ("severity:(ERROR CRITICAL)", "ERROR CRITICAL", "ERROR OR CRITICAL"),
        ("severity:>CRITICAL", "CRITICAL", None),
        ("metadata.n:[1 5]", "5", None),
        ("metadata.n:[1 to 5]", "to", "TO"),
        ("metadata.n:[1 TO 5", "[", None),
        ("metadata.n:[* TO *]", "[* TO *]", None),
        ("metadata.n:[a TO 5]", "a", None),
        ("metadata.n:>= 5", ">=", None),
        ("metadata.n:(-5 OR 3)", "-5", '"-5"'),
        ("action:[a TO b]", "a", None),
        ("ip:[10.0.0.1 TO 10.0.0.9]", "10.0.0.1", None),
        ("since:yesterday", "yesterday", None),
        ("since:2026-02-30", "2026-02-30", None),
        ("since:(1h OR 2h)", "1h OR 2h", None),
        ("occurred_at:now", "now", None),
        ("exists:>5", ">5", None),
        ("a" * 10 + "*b" * (WILDCARDS_MAX + 1), "a" * 10 + "*b" * (WILDCARDS_MAX + 1), None),
        ("a" * PATTERN_CHARS_MAX + "*", "a" * PATTERN_CHARS_MAX + "*", None),
        (" ".join(["a*"] * (PATTERNS_MAX + 1)), "a*", None),
        ('"' + "a " * (PHRASE_WORDS_MAX + 1) + '"', '"' + "a " * (PHRASE_WORDS_MAX + 1) + '"', None),
        (" ".join(map(str, range(CLAUSES_MAX + 1))), str(CLAUSES_MAX), None),
        ("(" * (DEPTH_MAX + 1) + "a" + ")" * (DEPTH_MAX + 1), "(", None),
    ],
)
def test_query_is_refused_with_place_and_suggestion(query: str, marked: str, suggestion: str | None) -> None:
    error = refusal(query)
    start = error.extra["column"] - 1
    assert query[start : start + error.extra["length"]] == marked
    assert error.extra.get("suggestion") == suggestion
    assert error.extra["parameter"] == "q"
    line, carets = error.detail.splitlines()[-2:]
    assert carets.strip(" ^") == ""
    assert marked[:1] in line
    if suggestion is not None:
        assert f"`{suggestion}`" in error.detail
        repaired = query[:start] + suggestion + query[start + len(marked) :]
        assert (again := refused(repaired)) is None or again.extra["column"] > error.extra["column"]


def test_refusal_shows_the_surroundings_of_the_place_alone() -> None:
    error = refusal("alice " * 100 + "n>=4" + " bob" * 100)
    line, carets = error.detail.splitlines()[-2:]
    assert len(line) < 140
    assert line[carets.index("^") :].startswith("n>=4")


def test_carets_stand_below_wide_characters() -> None:
    line, carets = refusal("\u6771\u4eac n>=4").detail.splitlines()[-2:]
    assert line == "  \u6771\u4eac n>=4"
    assert carets == "  " + " " * 5 + "^^^^"


def test_too_long_query_is_refused() -> None:
    assert refusal("a" * (QUERY_CHARS_MAX + 1)).extra["column"] == QUERY_CHARS_MAX + 1


_PIECES = st.sampled_from(
    (
        *(
            '"',
            "(",
            ")",
            "[",
            "]",
            "{",
            "}",
            ":",
            "\\",
            "*",
            "?",
            "-",
            "+",
            "!",
            ">",
            "<",
            "=",
            "~",
            "^",
            " ",
            "\n",
            "'",
            "\u201c",
        ),
        *("AND", "OR", "NOT", "TO", " AND ", " OR ", "and", "alice", "actor:", "metadata.n:", "1", "exists:", "since:", "24h"),
        *("\u6771", "e\u0301", "\U0001f984", "ip:", "10.0.0.1", "severity:", "ERROR", "message:"),
    )
)
TEXTS = st.lists(_PIECES, max_size=12).map("".join) | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@given(query=TEXTS)
def test_any_text_is_read_or_refused_with_a_place_within_it(query: str) -> None:
    if (error := refused(query)) is not None:
        assert error.code is Code.INVALID_QUERY
        assert 1 <= error.extra["column"] <= len(query) + 1
        assert error.extra["length"] >= 1
    else:
        node = syntax.read(query, NOW)
        assert syntax.read(written(node), NOW) == node


@given(record=records(), source=st.randoms(use_true_random=False))
def test_canonical_text_is_read_as_the_same_tree(record: object, source: random.Random) -> None:
    query = Questions(source).query(terms_of(record))  # type: ignore[arg-type]
    assert syntax.read(query.text, NOW) != tree.Everything()
    assert written(syntax.read(query.text, NOW)) == query.text


def test_nothing_that_is_written_is_lost_by_the_parser() -> None:
    """Every word of a query is a leaf of its tree."""
    node = syntax.read('a -b (c OR "d e") f* actor:g metadata.h:(i OR j)', NOW)
    assert len(list(tree.leaves(node))) == 8


def test_relative_times_refer_to_the_given_time() -> None:
    assert syntax.read("since:24h", NOW) == tree.Since(datetime(2026, 11, 30, 12, tzinfo=UTC), "now-24h")
    assert syntax.read("until:999999w", NOW) == tree.Until(datetime(1, 2, 1, tzinfo=UTC), "now-999999w")


def test_parser_is_made_once() -> None:
    assert grammar._parser() is grammar._parser()
