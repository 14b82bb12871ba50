r"""The grammar of templates: what in a text is a reference, and what is only text.

`@name` and `@{name}` stand for a module, `${name}` for a variable, `${module.output}` for one output of a module.
`\@`, `\${` and `\\` are escapes and are consumed first, so `\\@name` is a backslash and a reference.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

LONGEST_NAME = 50
BUILT_INS = frozenset({"user.name", "persona.name", "session.title", "now", "date", "model"})
"""Variables that every template may use. Those with a dot are never taken for an output of a module."""


@dataclass(frozen=True, slots=True)
class Text:
    """Stands for itself; escapes are gone from it."""

    text: str


@dataclass(frozen=True, slots=True)
class ModuleRef:
    """Stands for what the module `name` says. `source` is how it was written, as of every node that has one."""

    name: str
    source: str


@dataclass(frozen=True, slots=True)
class Variable:
    """Stands for an output of the module in whose content it is, or for one of `BUILT_INS`."""

    name: str
    source: str


@dataclass(frozen=True, slots=True)
class OutputRef:
    """Stands for one output of a module."""

    module: str
    output: str
    source: str


@dataclass(frozen=True, slots=True)
class Misnamed:
    """Looks like a reference, but nothing can have that name: it stays as it was written."""

    name: str
    source: str

    @property
    def is_module(self) -> bool:
        return self.source.startswith("@")


Node = Text | ModuleRef | Variable | OutputRef | Misnamed


@dataclass(frozen=True, slots=True)
class Template:
    """A text that was read once. Neighbouring texts are one node, and none is empty."""

    nodes: tuple[Node, ...]

    @property
    def references(self) -> tuple[str, ...]:
        """The modules that it names, each once, in the order of their first mention."""
        return tuple(dict.fromkeys(filter(None, map(_module_of, self.nodes))))

    @property
    def misnamed(self) -> tuple[str, ...]:
        """What is written like a module's name and can be none, each once."""
        found = [node.name for node in self.nodes if isinstance(node, Misnamed) and node.is_module]
        return tuple(dict.fromkeys(found))


def parse(text: str) -> Template:
    """Read a template; takes any text, in time that grows with its length only."""
    nodes: list[Node] = []
    pending: list[str] = []
    for node in _nodes(text):
        if isinstance(node, Text):
            pending.append(node.text)
            continue
        if joined := "".join(pending):
            nodes.append(Text(joined))
        pending.clear()
        nodes.append(node)
    if joined := "".join(pending):
        nodes.append(Text(joined))
    return Template(tuple(nodes))


# What stands between braces holds nothing with which another token begins, so a token that turns out to be text hides
# no other; and it ends at the next brace, so no character is looked at more than twice.
_TOKEN = re.compile(
    r"""
      \\ (?P<escaped> \\ | @ | \$\{ )
    | @ (?: (?P<bare> [a-z][a-z0-9_]* | \w+ ) | \{ (?P<braced> [^{}@\\\n]* ) \} )
    | \$\{ (?P<variable> [^{}@\\\n]* ) \}
    """,
    re.VERBOSE,
)
_NAME = re.compile(rf"[a-z][a-z0-9_]{{0,{LONGEST_NAME - 1}}}")
_NO_REFERENCE_AFTER = frozenset("_.%+-@\\")


def _nodes(text: str) -> Iterator[Node]:
    end = 0
    after_escape = ""
    """What the escape that ended at `end` stands for."""
    for token in _TOKEN.finditer(text):
        start = token.start()
        if start > end:
            yield Text(text[end:start])
            after_escape = ""
        escaped = token["escaped"]
        if escaped is not None:
            yield Text(escaped)
        elif token["variable"] is not None:
            yield _variable(token["variable"], token[0])
        elif after_escape == "\\" or (after_escape != "@" and _may_precede(text, start)):
            yield _module(token["bare"] if token["braced"] is None else token["braced"], token[0])
        else:
            yield Text(token[0])
        end, after_escape = token.end(), escaped or ""
    yield Text(text[end:])


def _may_precede(text: str, at: int) -> bool:
    """Whether an @ at this place begins a reference; marks belong to the letter that they are written on."""
    before = at - 1
    while before >= 0 and text[before] > "\x7f" and unicodedata.category(text[before]).startswith("M"):
        before -= 1
    return before < 0 or not (text[before].isalnum() or text[before] in _NO_REFERENCE_AFTER)


def _module(name: str, source: str) -> Node:
    return ModuleRef(name, source) if _NAME.fullmatch(name) else Misnamed(name, source)


def _variable(name: str, source: str) -> Node:
    if name in BUILT_INS or _NAME.fullmatch(name):
        return Variable(name, source)
    module, _, output = name.partition(".")
    if _NAME.fullmatch(module) and _NAME.fullmatch(output):
        return OutputRef(module, output, source)
    return Misnamed(name, source)


def _module_of(node: Node) -> str | None:
    match node:
        case ModuleRef(name):
            return name
        case OutputRef(module):
            return module
        case _:
            return None
