"""Words: what people type finds what is written, in every script."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decklog.domain.search.words import TOKEN_CHARS_MAX, located, tokens, tokens_of, unspaced
from tests.support.examples import examples

MIXED = st.text(
    st.sampled_from("aB_1 .-éÉßΣςİıſ\u0301\u0327ø登録失パか\u3099ﾊﾟ\u0e23\u0e30\u0e1a한\u1112\u1161\u11abक\u093cﷺ\u00ad½")
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The quick, brown fox!", "the quick brown fox"),
        ("snake_case camelCase kebab-case", "snake_case camelcase kebab case"),
        ("10.0.0.1 a@b.example", "10 0 0 1 a b example"),
        ("arn:aws:iam::123:role/x", "arn aws iam 123 role x"),
        ("Stra\u00dfe STRASSE", "strasse strasse"),
        ("M\u00dcNCHEN mu\u0308nchen \u0141\u00f3d\u017a \u0130stanbul \u0131", "munchen munchen lodz istanbul i"),
        ("\u03a3\u0391\u03a3 \u03c3\u03b1\u03c2", "\u03c3\u03b1\u03c3 \u03c3\u03b1\u03c3"),
        ("\ufb01le \u212a \uff21\uff11 \u2167", "file k a1 viii"),
        ("\u0641\u064f\u0644", "\u0641\u0644"),
        ("co\u00adop a\u200bb", "coop ab"),
        (
            "\u0939\u093f\u0928\u094d\u0926\u0940 \u092d\u093e\u0937\u093e",
            "\u0939\u093f\u0928\u094d\u0926\u0940 \u092d\u093e\u0937\u093e",
        ),
        ("\ud55c\uad6d\uc5b4 \ud14d\uc2a4\ud2b8", "\ud55c\uad6d\uc5b4 \ud14d\uc2a4\ud2b8"),
        ("\u767b", "\u767b"),
        ("\u7528\u6237\u767b\u5f55\uff1a\u5931\u8d25", "\u7528\u6237 \u6237\u767b \u767b\u5f55 \u5931\u8d25"),
        ("\uff8a\uff9f\uff7d v2\u304c\u3044", "\u30d1\u30b9 v2 \u304c\u3044"),
        ("\u0e23\u0e30\u0e1a\u0e1a", "\u0e23\u0e30 \u0e30\u0e1a \u0e1a\u0e1a"),
        ("-- !! \U0001f600", ""),
    ],
)
def test_tokens_are_words_without_case_accents_and_compatibility_forms(text: str, found: str) -> None:
    assert tokens(text) == tuple(found.split())


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("\u767b\u5f55", "\u7528\u6237\u767b\u5f55\u5931\u8d25\uff1a\u5bc6\u7801\u9519\u8bef\u6b21\u6570\u8fc7\u591a"),
        ("\u5931\u8d25", "\u7528\u6237\u767b\u5f55\u5931\u8d25\uff1a\u5bc6\u7801\u9519\u8bef\u6b21\u6570\u8fc7\u591a"),
        (
            "\u30d1\u30b9\u30ef\u30fc\u30c9",
            "\u7ba1\u7406\u8005\u304c\u30d1\u30b9\u30ef\u30fc\u30c9\u3092\u30ea\u30bb\u30c3\u30c8\u3057\u307e\u3057\u305f",
        ),
        (
            "\u0e23\u0e30\u0e1a\u0e1a",
            "\u0e1c\u0e39\u0e49\u0e43\u0e0a\u0e49\u0e40\u0e02\u0e49\u0e32\u0e2a\u0e39\u0e48\u0e23\u0e30\u0e1a\u0e1a\u0e25\u0e49\u0e21\u0e40\u0e2b\u0e25\u0e27",
        ),
        ("\u5931\u8d25", "\u7528" * (TOKEN_CHARS_MAX - 1) + "\u5931\u8d25"),
    ],
)
def test_tokens_of_a_word_without_blanks_follow_each_other_in_its_sentence(word: str, text: str) -> None:
    wanted, found = tokens(word), tokens(text)
    assert any(found[at : at + len(wanted)] == wanted for at in range(len(found)))


@settings(max_examples=examples(300), deadline=None)
@given(MIXED)
def test_tokens_of_canonically_equivalent_texts_are_the_same(text: str) -> None:
    assert tokens(unicodedata.normalize("NFC", text)) == tokens(unicodedata.normalize("NFD", text)) == tokens(text)


@settings(max_examples=examples(300), deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_tokens_hold_no_blank_and_are_their_own_tokens(text: str) -> None:
    for token in tokens(text):
        assert 0 < len(token) <= TOKEN_CHARS_MAX
        assert "\0" not in token
        assert not any(map(str.isspace, token))
        assert tokens(token) == (token,)


@settings(max_examples=examples(200), deadline=None)
@given(st.lists(MIXED | st.text()))
def test_tokens_of_many_texts_are_those_of_each(texts: list[str]) -> None:
    assert tokens_of(texts) == tuple(filter(None, map(tokens, texts)))


def test_long_run_is_several_tokens_in_order() -> None:
    run = "".join(f"{number:x}" for number in range(10_000))
    assert "".join(tokens(run)) == "".join(tokens(f"\u00e9 {run}"))[1:] == run
    assert max(map(len, tokens(run))) == TOKEN_CHARS_MAX


@pytest.mark.parametrize("characters", ["\ufdfa", "\u3300", "\u0327\u0301", "\u093c\u094d", "\u00e9"])
def test_tokens_of_a_hostile_text_are_bounded_by_its_length(characters: str) -> None:
    text = characters * 80_000
    assert sum(map(len, tokens(text))) <= 12 * len(text)


def test_unspaced_tells_scripts_without_blanks() -> None:
    assert [unspaced(token) for token in ("\u767b", "\u767b\u5f55", "\u0e23\u0e30", "\ud55c\uad6d", "abc", "1")] == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]


@settings(max_examples=examples(300), deadline=None)
@given(MIXED | st.text(st.characters(exclude_categories=["Cs"])) | st.builds(str.__mul__, MIXED, st.integers(1, 60)))
def test_located_tokens_are_the_tokens_and_each_is_within_its_place(text: str) -> None:
    found = located(text)
    assert tuple(each.token for each in found) == tokens(text)
    for each in found:
        assert 0 <= each.start < each.end <= len(text)
    if len(text) < TOKEN_CHARS_MAX:
        for each in found:
            assert each.token in tokens(text[each.start : each.end]), each


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("The quick fox", ["The", "quick", "fox"]),
        ("Mu\u0308nchen, Stra\u00dfe", ["Mu\u0308nchen", "Stra\u00dfe"]),
        ("co\u00adop e\u0301 \ufb01le", ["co\u00adop", "e\u0301", "\ufb01le"]),
        ("\u7528\u6237\u767b", ["\u7528\u6237", "\u6237\u767b"]),
        ("\uff8a\uff9f\uff7d", ["\uff8a\uff9f\uff7d"]),
        ("\u1112\u1161\u11ab", ["\u1112\u1161\u11ab"]),
    ],
)
def test_located_tokens_have_the_characters_that_they_stand_for(text: str, places: list[str]) -> None:
    assert [text[each.start : each.end] for each in located(text)] == places
