"""Which module keeps a provider from knowing a prompt already."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.prompt.prefix import Prefix, compared


def entry(module: str, at: int | None, characters: int = 0) -> dict[str, Any]:
    return {"module": module, "at": at, "characters": characters}


def test_same_prompt_is_known_as_a_whole():
    assert compared("Be brief.", "Be brief.", [entry("style", 0, 9)]) == Prefix(9, is_whole=True, broken_by=None)


def test_module_whose_words_differ_first_is_named():
    modules = [entry("clock", 4, 5), entry("style", 10, 8)]
    assert compared("Now 09:00 be brief", "Now 10:00 be brief", modules) == Prefix(4, False, "clock")
    assert compared("Now 09:00 be brief", "Now 09:00 be short", modules) == Prefix(13, False, "style")


def test_of_modules_inside_each_other_the_innermost_is_named():
    modules = [entry("frame", 0, 20), entry("clock", 5, 5)]
    assert compared("Now: 09:00, be brief", "Now: 10:00, be brief", modules).broken_by == "clock"


def test_module_that_says_more_or_nothing_any_more_is_named():
    assert compared("Hi  there", "Hi rain there", [entry("rain", 3, 4)]).broken_by == "rain"
    assert compared("Hi rain there", "Hi  there", [entry("rain", 3, 0)]).broken_by == "rain"
    assert compared("One", "One two", [entry("tail", 0, 7)]).broken_by == "tail"


def test_template_and_what_was_never_inserted_have_no_name():
    assert compared("Be brief.", "Be short.", [entry("rain", None)]).broken_by is None
    assert compared("Be brief.", "Be short.", [{"module": "nobody", "state": "unknown"}]).broken_by is None


@given(st.text(alphabet="ab", max_size=12), st.text(alphabet="ab", max_size=12), st.text(alphabet="ab", max_size=12))
def test_what_both_begin_with_is_counted_whatever_follows(common: str, one: str, other: str):
    prefix = compared(common + one, common + other, [])
    assert prefix.characters >= len(common)
    assert (common + one)[: prefix.characters] == (common + other)[: prefix.characters]
    assert prefix.is_whole == (one == other)
