"""What a prompt is made of, how large it may become, and what it says at last."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.prompt.building import Built, Contribution, build
from services.prompt.expansion import Budgets, PromptTooLarge
from services.prompt.planning import Plan, plan, validate
from services.prompt.template import parse

Contents = Mapping[str, str]


def planned(template: str, contents: Contents | None = None, *attached: str, budgets: Budgets | None = None) -> Plan:
    parsed = {name: parse(content) for name, content in (contents or {}).items()}
    return plan(parse(template), attached, parsed.get, budgets=budgets)


def built(
    template: str,
    contents: Contents | None = None,
    *attached: str,
    said: Mapping[str, Contribution] | None = None,
    variables: Mapping[str, str] | None = None,
    budgets: Budgets | None = None,
) -> Built:
    made = planned(template, contents, *attached, budgets=budgets)
    return build(made, said or {}, variables or {}, budgets=budgets)


def chain(length: int) -> dict[str, str]:
    """m1 refers to m2 and so on."""
    return {f"m{number}": f"{number} @m{number + 1}" for number in range(1, length + 1)}


def test_modules_are_inserted_where_they_are_named() -> None:
    assert built("You are @who, @{mood}ly.", {"who": "Ann", "mood": "happi"}).text == "You are Ann, happily."


def test_modules_refer_to_modules() -> None:
    assert built("@a", {"a": "a(@b @c)", "b": "b(@c)", "c": "c"}).text == "a(b(c) c)"


def test_unknown_names_stay_as_written_and_give_a_warning() -> None:
    result = built(r"\@ @nobody ${nothing} @{a}", {"a": "@Big ${nobody.x}"})
    assert result.text == "@ @nobody ${nothing} @Big ${nobody.x}"
    assert [(one.kind, one.source, one.inside) for one in result.warnings] == [
        ("unknown_module", "@nobody", None),
        ("unknown_variable", "${nothing}", None),
        ("misnamed", "@Big", "a"),
        ("unknown_module", "${nobody.x}", "a"),
    ]


def test_a_modules_own_outputs_go_before_the_built_in_variables() -> None:
    said = {"a": Contribution(outputs={"now": "soon"})}
    result = built("${now} @a", {"a": "${now} ${date}"}, said=said, variables={"now": "12:00", "date": "Monday"})
    assert result.text == "12:00 soon Monday"


def test_an_output_is_seen_only_by_its_own_module_unless_that_is_named() -> None:
    said = {"a": Contribution(outputs={"x": "1"})}
    result = built("@a ${x} ${a.x} @b", {"a": "a=${x}", "b": "${x}${a.x}"}, said=said)
    assert result.text == "a=1 ${x} 1 ${x}1"


def test_a_built_in_variable_is_never_an_output_of_a_module_of_that_name() -> None:
    said = {"user": Contribution(outputs={"name": "wrong", "mood": "fine"})}
    assert (
        built("${user.name} ${user.mood}", {"user": ""}, said=said, variables={"user.name": "Ann"}).text == "Ann fine"
    )


def test_an_output_that_was_not_set_stays_as_written() -> None:
    result = built("${a.x}", {"a": ""})
    assert (result.text, [one.kind for one in result.warnings]) == ("${a.x}", ["unknown_output"])


def test_a_silent_module_says_nothing_and_neither_do_its_outputs() -> None:
    result = built("[@a|${a.x}]", {"a": "loud @b", "b": "b"}, said={"a": Contribution(text="")})
    assert (result.text, result.warnings) == ("[|]", ())
    assert [(one.module, one.text) for one in result.insertions] == [("a", "")]


def test_what_a_module_made_is_never_scanned() -> None:
    tempting = r"@b ${now} \@b \\ ${b.x} @{b}"
    said = {"a": Contribution(text=tempting), "c": Contribution(outputs={"x": tempting})}
    result = built("@a|@c|${c.x}|${now}", {"a": "", "b": "no", "c": "${x}"}, said=said, variables={"now": tempting})
    assert result.text == "|".join([tempting] * 4)


def test_attached_modules_follow_after_a_blank_line_unless_they_are_there_already_or_silent() -> None:
    contents = {"a": "a", "b": "b @c", "c": "c", "d": "d"}
    result = built("Be @a.", contents, "a", "b", "d", "c", "nobody", "b", said={"d": Contribution(text="")})
    assert result.text == "Be a.\n\nb c"
    assert [(one.kind, one.source) for one in result.warnings] == [("unknown_module", "nobody")]


def test_an_attached_module_of_which_only_an_output_is_named_is_still_inserted() -> None:
    said = {"a": Contribution(outputs={"x": "1"})}
    assert built("${a.x}", {"a": "a"}, "a", said=said).text == "1\n\na"


def test_a_first_attached_module_needs_no_blank_line() -> None:
    assert built("", {"a": "a", "b": "b"}, "a", "b").text == "a\n\nb"


def test_insertions_tell_the_text_of_each_module_and_how_often_it_stands_there() -> None:
    result = built("@a @b", {"a": "<@b>", "b": "b"})
    assert {one.module: (one.text, one.times) for one in result.insertions} == {"a": ("<b>", 1), "b": ("b", 2)}


def test_references_on_level_eight_are_followed_and_on_level_nine_not() -> None:
    result = built("@m1", chain(12))
    assert result.text == "1 2 3 4 5 6 7 8 9 @m10"
    [warning] = result.warnings
    assert (warning.kind, warning.source, warning.inside) == ("too_deep", "@m10", "m9")
    assert "m8 → m9 → m10" in warning.message


def test_how_deep_a_reference_is_depends_on_the_way_to_it() -> None:
    assert built("@m1 @m9", chain(10)).text == "1 2 3 4 5 6 7 8 9 @m10 9 10 @m11"


def test_what_is_too_deep_everywhere_is_not_used() -> None:
    assert list(planned("@m1", chain(12)).waits_for) == [f"m{number}" for number in range(9, 0, -1)]


def test_the_reference_that_closes_a_cycle_stays_as_written() -> None:
    result = built("@a, @b", {"a": "a @b", "b": "b @{a}"})
    assert result.text == "a b @{a}, b a @b"
    assert [(one.kind, one.inside) for one in result.warnings] == [("cycle", "b"), ("cycle", "a")]
    assert "a → b → a" in result.warnings[0].message


def test_a_cycle_is_told_once_however_it_was_entered() -> None:
    assert planned("@x @b @c", {"x": "@a", "a": "@b", "b": "@c", "c": "@a @c"}).cycles == (
        ("a", "b", "c", "a"),
        ("c", "c"),
    )


def test_modules_wait_for_those_that_they_refer_to() -> None:
    made = planned("@a @d", {"a": "@b ${c.x}", "b": "@c", "c": "", "d": "", "e": ""}, "d")
    assert made.waits_for == {"c": set(), "b": {"c"}, "a": {"b", "c"}, "d": set()}
    assert list(made.waits_for) == ["c", "b", "a", "d"]


@pytest.mark.parametrize(
    ("template", "contents", "module", "words"),
    [
        ("@a", {"a": "x" * 65_537}, "a", "The text of module a is larger than 64 KiB."),
        ("@a", {"a": "@b" + "@{b}" * 9, "b": "é" * 4096}, "a", "The text of module a is larger than 64 KiB."),
        ("@a", {"a": "@b", "b": "x" * 65_537}, "b", "The text of module b is larger than 64 KiB."),
        ("@a " * 5, {"a": "x" * 60_000}, "a", "The prompt is larger than 256 KiB. It grew over that in module a."),
        ("x" * 262_145, {}, None, "The prompt is larger than 256 KiB. It grew over that in the persona's template."),
    ],
    ids=["one module", "a module of modules", "a module in a module", "many modules", "the template"],
)
def test_a_prompt_that_would_be_too_large_is_refused_by_name(
    template: str, contents: Contents, module: str | None, words: str
) -> None:
    made = planned(template, contents)
    with pytest.raises(PromptTooLarge) as refused:
        build(made, {}, {})
    assert (refused.value.message, refused.value.details) == (words, {"module": module})


def test_a_bomb_of_references_is_refused_before_anything_runs() -> None:
    bomb = {f"m{level}": f"@m{level + 1} " * 10 for level in range(8)} | {"m8": "boom"}
    with pytest.raises(PromptTooLarge, match="more than 1,000 references") as refused:
        planned("@m0", bomb)
    assert refused.value.details["module"] in bomb


def test_a_thousand_references_are_allowed_and_one_more_is_not() -> None:
    assert len(built("@a " * 1000, {"a": "x"}).text) == 2000
    with pytest.raises(PromptTooLarge, match="the persona's template"):
        planned("@a " * 1001, {"a": "x"})


def test_variables_count_too_so_that_empty_ones_cost_no_time_without_end() -> None:
    with pytest.raises(PromptTooLarge, match="references"):
        built("${now}" * 1001, variables={"now": ""})


def test_any_number_of_unknown_names_is_only_text() -> None:
    text = "@nobody ${nothing} " * 5000
    assert built(text).text == text


def test_warnings_are_not_more_than_anybody_reads() -> None:
    warnings = built("".join(f"@x{number} " for number in range(5000))).warnings
    assert (len(warnings), warnings[-1].kind) == (101, "more")


def test_validation_tells_all_that_is_wrong() -> None:
    contents = {name: parse(content) for name, content in {"a": "@b", "b": "@a @gone", "c": ""}.items()}
    found = validate(parse("@a @c @missing @{My Module} ${nothing} me@home.org"), contents.get)
    assert not found.is_valid
    assert found.module_references == ("a", "c", "missing")
    assert found.missing_modules == ("missing",)
    assert found.invalid_module_names == ("My Module",)
    assert found.cycles == (("a", "b", "a"),)
    assert {one.kind for one in found.warnings} == {"unknown_module", "unknown_variable", "misnamed", "cycle"}


def test_a_template_whose_names_are_all_known_is_valid() -> None:
    found = validate(parse("@a ${now} ${user.name} \\@x"), {"a": parse("")}.get)
    assert (found.is_valid, found.warnings, found.error) == (True, (), None)


def test_the_new_content_of_a_module_is_judged_in_place_of_the_old() -> None:
    contents = {"a": parse("harmless"), "b": parse("@a")}
    found = validate(parse("@b ${mine}"), contents.get, inside="a")
    assert (found.is_valid, found.cycles, found.missing_modules) == (False, (("a", "b", "a"),), ())
    assert validate(parse("@b ${mine}"), {"b": parse("")}.get, inside="new").is_valid


def test_a_template_that_is_too_large_is_not_valid_and_is_told_why() -> None:
    found = validate(parse("@a " * 1001), {"a": parse("")}.get)
    assert not found.is_valid
    assert found.error is not None
    assert "1,000 references" in found.error


names = st.sampled_from(["a", "b", "c", "d"])
fragments = (
    names.map(lambda name: f"@{{{name}}}")
    | names.map(lambda name: f"${{{name}.x}}")
    | st.sampled_from(["@zz", "${x}", "${now}", "\\@a", "\\\\", "@Big", "é", " ", "text"])
)
contents = st.lists(fragments, max_size=5).map("".join)
worlds = st.dictionaries(names, contents, max_size=4)
data = st.sampled_from(["", "@a", "${now}", "\\", "${a.x} @{b}", "é" * 20])
contributions = st.dictionaries(
    names, st.builds(Contribution, st.none() | data, st.dictionaries(st.just("x"), data)), max_size=4
)
small = Budgets(module=60, prompt=150, references=40)


@given(contents, worlds, st.lists(names | st.just("zz"), max_size=3), contributions)
def test_no_prompt_exceeds_its_budgets(
    template: str, world: Contents, attached: list[str], said: Mapping[str, Contribution]
) -> None:
    try:
        result = built(template, world, *attached, said=said, variables={"now": "12:00"}, budgets=small)
    except PromptTooLarge:
        return
    assert len(result.text.encode()) <= small.prompt
    assert all(len(one.text.encode()) <= small.module for one in result.insertions)
    assert sum(one.times for one in result.insertions) <= small.references + len(attached)


@given(contents, worlds, st.lists(names, max_size=3), contributions)
def test_what_modules_made_stands_in_the_prompt_as_it_is(
    template: str, world: Contents, attached: list[str], said: Mapping[str, Contribution]
) -> None:
    def with_marks(value: str) -> str:
        return f"⟦{value}⟧"

    marked = {
        name: Contribution(
            None if one.text is None else with_marks(one.text), {key: with_marks(x) for key, x in one.outputs.items()}
        )
        for name, one in said.items()
    }
    try:
        result = built(template, world, *attached, said=marked)
    except PromptTooLarge:
        return
    inserted = [part.partition("⟧")[0] for part in result.text.split("⟦")[1:]]
    made = {one.text for one in said.values()} | {x for one in said.values() for x in one.outputs.values()}
    assert set(inserted) <= made


@given(worlds, st.lists(names, max_size=4))
def test_modules_can_always_be_run_one_after_the_other(world: Contents, attached: list[str]) -> None:
    try:
        made = planned("@a @b", world, *attached)
    except PromptTooLarge:
        return
    run: set[str] = set()
    for name, others in made.waits_for.items():
        assert others <= run
        run.add(name)
    assert run <= made.modules.keys()
