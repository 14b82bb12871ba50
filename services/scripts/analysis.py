"""What a script will do, as far as it can be read from its text. Nothing is run."""

import ast
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from services.scripts.api import plugin_functions
from services.scripts.types import ScriptLimits


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong in a script; `line` and `column` count from 1."""

    line: int
    column: int
    message: str


@dataclass(frozen=True, slots=True)
class Analysis:
    """What was read from a script. Names that the script only computes are not known."""

    requires_ai: bool
    """Whether it may ask a model. In doubt it may: it then runs in a later stage, and that is all."""
    functions: tuple[str, ...] = ()
    """The functions of `ctx` that it names."""
    outputs: tuple[str, ...] = ()
    """The outputs that it sets."""
    references: tuple[str, ...] = ()
    """The modules that it runs or reads, in the order of the text."""
    syntax_errors: tuple[Problem, ...] = ()
    """Why it could not be read. Nothing else is known then."""


_FUNCTIONS = {function.name: function for function in plugin_functions()}
_AI = {name for name, function in _FUNCTIONS.items() if function.needs_ai}

# With these a script can reach any name without writing it down.
_HIDING = {"eval", "exec", "globals", "locals", "vars", "__import__", "__builtins__"}
_HIDING_ATTRIBUTES = {"__getattribute__", "__getattr__", "__dict__", "__builtins__", "__globals__"}


def analyse(script: str, source_bytes: int = ScriptLimits().source_bytes) -> Analysis:
    """Read a script. Never raises; the largest script allowed takes some 0.2 s, so better in a thread."""
    if len(script.encode("utf-8", "replace")) > source_bytes:
        return Analysis(True, syntax_errors=(Problem(1, 1, f"the script is larger than {source_bytes:,} bytes"),))
    try:
        with warnings.catch_warnings():
            # About regular expressions without r"": the author's business.
            warnings.simplefilter("ignore")
            tree = ast.parse(script)
    except SyntaxError as error:
        return Analysis(True, syntax_errors=(Problem(error.lineno or 1, error.offset or 1, error.msg),))
    except (RecursionError, MemoryError):
        return Analysis(True, syntax_errors=(Problem(1, 1, "the script is nested too deeply"),))
    except ValueError as error:
        return Analysis(True, syntax_errors=(Problem(1, 1, str(error)),))
    nodes = list(ast.walk(tree))
    ctx = _names_of_ctx(nodes)
    calls = list(_calls(nodes, ctx))
    return Analysis(
        requires_ai=any(map(_may_ask, nodes)),
        functions=_unique(sorted(attribute.attr for attribute in _attributes(nodes, ctx))),
        outputs=_unique(_literals(calls, {"set_output"})),
        references=_unique(_literals(calls, {"run_module", "get_module_output"})),
    )


def _may_ask(node: ast.AST) -> bool:
    """Whether this part alone shows that a model may be asked."""
    match node:
        case ast.Name(id=name):
            return name in _AI or name in _HIDING
        case ast.Attribute(attr=name):
            return name in _AI or name in _HIDING_ATTRIBUTES
        case ast.alias(name=name):
            return name in _AI or name == "*"
        case ast.MatchClass(kwd_attrs=names):
            return not _AI.isdisjoint(names)
        case _:
            return _computes_attribute(node)


def _computes_attribute(node: ast.AST) -> bool:
    """Any use of getattr but the call with a plain name of something else: getattr(message, "role")."""
    match node:
        case ast.Call(func=ast.Name(id="getattr"), args=[_, ast.Constant(value=str(name)), *_]):
            return name in _AI or name in _HIDING_ATTRIBUTES
        case ast.Call(func=ast.Name(id="getattr")):
            return True
        case ast.Call(args=args, keywords=keywords):
            values = [*args, *(keyword.value for keyword in keywords)]
            return any(isinstance(value, ast.Name) and value.id == "getattr" for value in values)
        case ast.Assign(value=ast.Name(id="getattr")) | ast.NamedExpr(value=ast.Name(id="getattr")):
            return True
        case _:
            return False


def _names_of_ctx(nodes: list[ast.AST]) -> set[str]:
    """`ctx` and what it was assigned to."""
    names = {"ctx"}
    for node in nodes:
        match node:
            case ast.Assign(targets=targets, value=ast.Name(id=name)) if name in names:
                names.update(target.id for target in targets if isinstance(target, ast.Name))
            case ast.NamedExpr(target=ast.Name(id=other), value=ast.Name(id=name)) if name in names:
                names.add(other)
            case _:
                pass
    return names


def _attributes(nodes: list[ast.AST], ctx: set[str]) -> Iterator[ast.Attribute]:
    """Every mention of a function of `ctx`."""
    for node in nodes:
        match node:
            case ast.Attribute(value=ast.Name(id=name), attr=attribute) if name in ctx and attribute in _FUNCTIONS:
                yield node
            case _:
                pass


def _calls(nodes: list[ast.AST], ctx: set[str]) -> Iterator[tuple[str, ast.Call]]:
    """Calls of functions of `ctx`, with the function's name, in the order of the text."""
    mentioned = {id(attribute): attribute.attr for attribute in _attributes(nodes, ctx)}
    calls = [node for node in nodes if isinstance(node, ast.Call) and id(node.func) in mentioned]
    for call in sorted(calls, key=lambda call: (call.lineno, call.col_offset)):
        yield mentioned[id(call.func)], call


def _literals(calls: list[tuple[str, ast.Call]], functions: set[str]) -> list[str]:
    """The first argument of calls of these functions, where it is written out."""
    found: list[str] = []
    for function, call in calls:
        if function not in functions:
            continue
        parameter = next(iter(_FUNCTIONS[function].signature.parameters))
        named = [keyword.value for keyword in call.keywords if keyword.arg == parameter]
        match [*call.args[:1], *named]:
            case [ast.Constant(value=str(name)), *_]:
                found.append(name)
            case _:
                pass
    return found


def _unique(names: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
