"""When a module speaks."""

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.errors import status_of
from services.prompt.expressions import Expression, ExpressionSet
from services.prompt.keywords import tokens
from services.prompt.triggers import InvalidTrigger, Trigger, TriggerSet


def matches(pattern: str, text: str) -> bool:
    return Trigger.compile(pattern).matches(text)


@pytest.mark.parametrize("pattern", [None, "", " ", "*", " * "])
def test_no_pattern_and_a_star_match_always(pattern: str | None) -> None:
    triggers = TriggerSet({"a": Trigger.compile(pattern)})
    assert triggers.matching([]) == triggers.matching(["x"]) == {"a": 0}


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("hi", "Hi!"),
        ("hi|yo", "oh, yo"),
        (" hi | yo ", "yo"),
        ("|hi||", "hi"),
        ("new york", "In New\n  York, as always"),
        ("dragon", "the dragon's lair"),
        ("straße", "STRASSE"),
        ("é", "E\u0301"),
        ("e\u0301", "É"),
        ("ΣΑΣ", "σας"),
        ("c++", "I like C++."),
        (".net", "on .NET"),
        (":)", "fine:)"),
        ("😀", "a😀b"),
        ("❤", "I ❤\ufe0f it"),
        ("/abc", "see /abc"),
        ("a/b/", "a/b/"),
        ("猫", "黒猫がいる"),
        ("黒猫", "黒猫がいる"),
        ("カフェ", "ネットカフェへ"),
        ("แมว", "มีแมวดำ"),
        ("python", "我用Python写"),
        ("고양이", "고양이!"),
        ("i*", "the i* notation"),
        ("a b a c", "a b a b a c"),
    ],
)
def test_keywords_are_found(pattern: str, text: str) -> None:
    assert matches(pattern, text)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("hi", "this"),
        ("hi", "hi_there"),
        ("hi", "hi5"),
        ("an", "banana"),
        ("e", "e\u0301"),
        ("x", "x\u0302"),
        ("new york", "new-york"),
        ("new york", "new yorker"),
        ("fée", "fées"),
        ("हि", "हिन्दी"),
        ("می", "می\u200c\u062e\u0648\u0627\u0647\u0645"),
        ("c++", "abc++"),
        ("黒 猫", "黒猫"),
        ("고양이", "고양이가"),
    ],
)
def test_keywords_are_whole_words_and_phrases(pattern: str, text: str) -> None:
    assert not matches(pattern, text)


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("/colou?r/", "COLOR", True),
        ("/colou?r/s", "COLOR", False),
        ("/colou?r/is", "COLOR", True),
        ("/a.b/", "a\nb", False),
        ("/a.b/s", "a\nb", True),
        ("/^b$/", "a\nb\nc", False),
        ("/^b$/m", "a\nb\nc", True),
        ("/^a|b$/m", "x\nab\nx", True),
        (r"/a\/b/", "a/b", True),
        ("/a/b/i", "A/B", True),
        (r"/\d{3}/", "abc123", True),
        (r"/\d{3}/", "abc12", False),
        ("/é/", "E\u0301", True),
        ("/a|/", "", True),
        ("///", "a/b", True),
    ],
)
def test_expressions_have_exactly_the_flags_given_and_ignore_case_by_default(
    pattern: str, text: str, found: bool
) -> None:
    assert matches(pattern, text) is found


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("//", "is empty"),
        ("//i", "is empty"),
        ("/(?=a)b/", "invalid perl operator: (?="),
        ("/(?<!a)b/", "invalid perl operator: (?<!"),
        (r"/(a)\1/", r"invalid escape sequence: \1"),
        ("/(/i", "missing ): ("),
        ("/a{1001}/", "invalid repetition size: {1001}"),
        (r"/\pL{1000}/", "pattern too large"),
        ("/\ud800/", "UTF-8"),
        ("/a/x", "'x' is none of them"),
        ("/usr/bin", "'b' is none of them"),
        ("|", "no keyword"),
        (" | ", "no keyword"),
        ("x" * 1001, "at most 1,000 characters"),
    ],
    ids=lambda value: ascii(value)[:20],
)
def test_a_pattern_that_cannot_be_used_is_refused_with_the_reason(pattern: str, words: str) -> None:
    with pytest.raises(InvalidTrigger) as refused:
        Trigger.compile(pattern)
    assert words in refused.value.message
    assert (refused.value.code, status_of(refused.value)) == ("invalid_trigger", 422)


def test_the_newest_text_that_matches_decides_how_deep_a_module_must_look() -> None:
    triggers = TriggerSet(
        {name: Trigger.compile(pattern) for name, pattern in [("a", "tea"), ("b", "/\\d/"), ("c", "")]}
    )
    assert triggers.matching(["hello", "tea", "tea for 2", "3"]) == {"a": 1, "b": 2, "c": 0}


def test_a_keyword_does_not_reach_over_two_texts() -> None:
    assert TriggerSet({"a": Trigger.compile("new york")}).matching(["new", "york"]) == {}


def test_a_thousand_triggers_are_told_apart() -> None:
    patterns = {f"k{n}": f"word{n}|two words{n}" for n in range(500)} | {
        f"e{n}": f"/x{n}y|z.*[{n}]{{9}}/" for n in range(500)
    }
    triggers = TriggerSet({name: Trigger.compile(pattern) for name, pattern in patterns.items()})
    assert set(triggers.matching(["Word7, x499y and two words499; word70"])) == {"k7", "k70", "k499", "e499"}


def test_expressions_that_do_not_fit_into_one_set_match_all_the_same() -> None:
    expressions = {f"m{n}": Expression(f"{n:04}[a-f0-9]{{1,200}}z", "i") for n in range(300)}
    expressions |= {f"d{n}": Expression(rf"[a-z]{{{n + 1}}}\d{{{n + 1}}}[^\d]{{1,300}}$", "i") for n in range(60)}
    every = ExpressionSet(expressions)
    assert every.matching("0123abcdefz") == {"m123"}
    assert every.matching("!aa11!") == {"d1"}


def test_a_pattern_that_would_take_for_ever_elsewhere_takes_no_time() -> None:
    assert not matches("/^(a+)+$/", "a" * 50_000 + "b")


@pytest.mark.parametrize("pattern", ["a", "a b|a a c", "/a/", r"/(a|\w)*z/"])
def test_any_text_can_be_looked_at(pattern: str) -> None:
    trigger = Trigger.compile(pattern)
    for text in ["", "\0", "\ud800", "a " * 100_000, "\u0301" * 100_000, "é\u0301" * 50_000, "猫" * 100_000]:
        assert trigger.matches(text) is (pattern in ("a", "/a/") and text.startswith("a "))


letters = st.sampled_from(
    ["a", "b", "é", "e\u0301", "ß", "猫", "ก", "\u0e34", " ", "  ", "\n", "-", "_", "1", "\u0301", "İ"]
)
phrases = st.lists(letters, min_size=1, max_size=5).map("".join).filter(lambda text: text.strip())


@given(st.lists(phrases, max_size=8), st.lists(letters, max_size=30).map("".join))
def test_an_index_of_many_keywords_finds_what_one_look_for_each_finds(keywords: list[str], text: str) -> None:
    triggers = TriggerSet({keyword: Trigger.compile(keyword) for keyword in keywords})
    whole = tokens(text)

    def stands_in(phrase: tuple[str, ...]) -> bool:
        return any(whole[start : start + len(phrase)] == phrase for start in range(len(whole)))

    assert set(triggers.matching([text])) == {keyword for keyword in keywords if stands_in(tokens(keyword))}


@given(phrases)
def test_a_keyword_is_found_in_itself_in_any_case_and_composition(keyword: str) -> None:
    trigger = Trigger.compile(keyword)
    for form in ("NFC", "NFD"):
        text = unicodedata.normalize(form, keyword)
        assert trigger.matches(text)
        assert trigger.matches(text.casefold())


@given(st.lists(st.sampled_from(["a", "b1", "_", " ", "-", "."]), max_size=30).map("".join))
def test_words_are_those_of_a_plain_word_boundary(text: str) -> None:
    assert matches("a", text) is bool(re.search(r"\ba\b", text))


expressions = st.sampled_from(["a+b", "^a", "b$", "(a|b)c", "[^a]", ".", r"\bab\b", "a.*c", "x?", "é"])


@given(st.lists(expressions, max_size=8), st.text("abcé \n", max_size=12))
def test_a_set_of_expressions_finds_what_each_of_them_finds(patterns: list[str], text: str) -> None:
    together = ExpressionSet({pattern: Expression(pattern, "i") for pattern in patterns})
    flags = re.IGNORECASE | re.ASCII
    single = {pattern for pattern in patterns if re.search(pattern.replace("$", r"\Z"), text, flags)}
    assert together.matching(text) == single
