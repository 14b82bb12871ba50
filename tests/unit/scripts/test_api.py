"""Every function of ctx is declared once, and what is read from the declaration is right."""

import ast

import pytest

from services.scripts.api import PluginFunction, plugin_functions, type_stubs
from services.scripts.types import ScriptFault

FUNCTIONS = {function.name: function for function in plugin_functions()}

PROMISED = {
    "state": "set_output get_output get_variable set_variable get_all_variables get_module_output run_module log",
    "time": "get_current_time get_relative_time is_business_hours get_day_of_week format_timestamp",
    "conversation": "get_message_count get_recent_messages get_raw_recent_messages get_message_range "
    "get_conversation_history get_conversation_summary get_persona_info get_user_message get_ai_response "
    "search_messages",
    "memory": "get_buffer_messages should_compress_buffer should_compress_buffer_by_ids store_memory "
    "get_recent_memories search_memories get_memory_status clear_memories",
    "ai": "generate reflect",
    "text": "to_json from_json join_strings split_string count_words count_tokens",
}

SAMPLES = {
    "Json": {"a": [1, None]},
    "str": "text",
    "int": 3,
    "float": 1.5,
    "bool": False,
    "list[str]": ["a", "b"],
    "list[int]": [0, 4],
    "dict[str, Json]": {"kind": "note"},
}


def sample(written: str) -> object:
    return SAMPLES[written.removesuffix(" | None").split(" | ")[0]]


def fault(function: str, args: list[object], kwargs: dict[str, object]) -> ScriptFault:
    with pytest.raises(ScriptFault) as caught:
        FUNCTIONS[function].bind(args, kwargs)
    return caught.value


def test_all_promised_functions_are_declared_in_their_category() -> None:
    declared = {(function.category, function.name) for function in FUNCTIONS.values()}
    assert declared == {(category, name) for category, names in PROMISED.items() for name in names.split()}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_every_function_is_documented_and_takes_values_of_its_types_by_position_and_by_name(
    function: PluginFunction,
) -> None:
    assert function.docstring.endswith(".")
    given = {parameter.name: sample(parameter.type) for parameter in function.parameters if not parameter.variadic}
    by_name = function.bind((), given)
    assert by_name == function.bind(tuple(given.values()), {})
    assert {name: by_name[name] for name in given} == given
    assert list(by_name) == [parameter.name for parameter in function.parameters]


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_every_function_refuses_too_many_arguments_and_unknown_ones(function: PluginFunction) -> None:
    required = [sample(parameter.type) for parameter in function.parameters if parameter.required]
    function.bind(required, {})
    with pytest.raises(ScriptFault, match="too many positional arguments"):
        function.bind(["x"] * 9, {})
    if not any(parameter.variadic for parameter in function.parameters):
        with pytest.raises(ScriptFault, match="unexpected keyword argument"):
            function.bind(required, {"no_such": 1})


def test_only_functions_that_ask_a_model_need_ai() -> None:
    assert {function.name for function in FUNCTIONS.values() if function.needs_ai} == {"generate", "reflect"}


def test_defaults_are_filled_in() -> None:
    assert FUNCTIONS["get_variable"].bind(["mood"], {}) == {"name": "mood", "default": None}
    assert FUNCTIONS["get_recent_messages"].bind([], {}) == {"limit": 10, "session_id": None}


def test_freely_named_parameters_are_gathered() -> None:
    bound = FUNCTIONS["generate"].bind(["Say hi"], {"temperature": 0.5, "self": "x"})
    assert bound["controls"] == {"temperature": 0.5, "self": "x"}


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "kind", "message"),
    [
        ("generate", [], {}, "TypeError", "ctx.generate(): missing a required argument: 'instructions'"),
        ("generate", [5], {}, "TypeError", "ctx.generate(): instructions must be str, not int"),
        ("get_recent_messages", ["5"], {}, "TypeError", "ctx.get_recent_messages(): limit must be int, not str"),
        ("get_recent_messages", [True], {}, "TypeError", "ctx.get_recent_messages(): limit must be int, not bool"),
        ("get_recent_messages", [5.0], {}, "TypeError", "ctx.get_recent_messages(): limit must be int, not float"),
        ("is_business_hours", [], {"timezone": 1}, "TypeError", "timezone must be str | None, not int"),
        ("join_strings", [["a", 1]], {}, "TypeError", "strings must be list[str], not list"),
        ("store_memory", ["x"], {"metadata": ["a"]}, "TypeError", "metadata must be dict[str, Json] | None, not list"),
        ("get_day_of_week", [1], {}, "TypeError", "full_name must be bool, not int"),
        ("set_output", ["x", {1}], {}, "ValueError", "ctx.set_output(): set cannot be written as JSON"),
        ("set_output", ["x"], {"name": "x"}, "TypeError", "multiple values for argument 'name'"),
    ],
)
def test_arguments_that_do_not_fit_are_named_with_the_reason(
    name: str, args: list[object], kwargs: dict[str, object], kind: str, message: str
) -> None:
    caught = fault(name, args, kwargs)
    assert caught.kind == kind
    assert message in caught.message


def test_an_integer_will_do_for_a_float() -> None:
    assert FUNCTIONS["get_relative_time"].bind([-30], {})["minutes_offset"] == -30


def test_stubs_are_python_and_declare_every_function_with_its_types() -> None:
    stubs = type_stubs(plugin_functions())
    context = next(node for node in ast.parse(stubs).body if isinstance(node, ast.ClassDef))
    methods = {node.name: node for node in context.body if isinstance(node, ast.FunctionDef)}
    assert methods.keys() == FUNCTIONS.keys()
    for name, method in methods.items():
        assert method.returns
        assert ast.unparse(method.returns) == FUNCTIONS[name].returns
        assert ast.get_docstring(method) == FUNCTIONS[name].docstring


def test_an_editor_is_told_what_to_show_and_what_to_insert() -> None:
    generate = FUNCTIONS["generate"]
    assert generate.snippet == "generate(instructions)"
    assert generate.usage.startswith("generate(instructions: str, input: str | None = None")
    assert generate.usage.endswith("**controls: Json) -> str")
    assert [parameter.name for parameter in generate.parameters if parameter.required] == ["instructions"]
