"""The rules by which references are followed, the same for planning a prompt and for building it.

A reference stands on the level of the text that it is in; the persona's template is level 0. References on levels 0 to
`DEEPEST` are followed. A reference to a module in whose text it stands, at any distance, would never end. Both stay as
they were written, with a warning, as do names that nobody knows.
"""

from dataclasses import dataclass
from typing import Literal, assert_never

from services.errors import CallerError
from services.prompt.template import Misnamed, ModuleRef, OutputRef, Variable

DEEPEST = 8
_MOST_WARNINGS = 100

Path = tuple[str, ...]
"""The modules in whose text a text stands, outermost first. Its length is the level."""
Kind = Literal["unknown_module", "unknown_variable", "unknown_output", "misnamed", "cycle", "too_deep", "more"]


class PromptTooLarge(CallerError):
    """The prompt would be larger than a prompt may be."""

    code = "prompt_too_large"


@dataclass(frozen=True, slots=True)
class Budgets:
    """What a prompt may grow to; sizes in bytes of UTF-8."""

    module: int = 64 * 1024
    """The text of one module with everything that is inserted in it."""
    prompt: int = 256 * 1024
    references: int = 1000
    """References to known modules and variables, counted each time that the text in which they are is inserted."""


@dataclass(frozen=True, slots=True)
class Warned:
    """A reference that stays as it was written, and why."""

    kind: Kind
    source: str
    """The reference as it is written; of an attached module the name."""
    inside: str | None
    """The module whose content it is in; None is the persona's template."""
    message: str


class Warnings:
    """Each warning once, and not more than anybody will read."""

    def __init__(self) -> None:
        self._all: dict[Warned, None] = {}

    def add(self, kind: Kind, source: str, inside: str | None, message: str) -> None:
        if len(self._all) < _MOST_WARNINGS:
            self._all[Warned(kind, source, inside, message)] = None
        else:
            self._all[Warned("more", "", None, "There are more warnings than these.")] = None

    def unknown(self, node: ModuleRef | OutputRef | Variable | Misnamed, inside: str | None) -> None:
        match node:
            case ModuleRef() | OutputRef():
                self.add("unknown_module", node.source, inside, f"There is no module {target(node)}.")
            case Variable():
                self.add("unknown_variable", node.source, inside, f"There is no variable {node.name}.")
            case Misnamed():
                kind = "module" if node.is_module else "variable"
                self.add("misnamed", node.source, inside, f"No {kind} can be called {node.name[:80]!r}.")
            case _:
                assert_never(node)

    def unknown_attached(self, name: str) -> None:
        self.add("unknown_module", name, None, f"The attached module {name} does not exist.")

    def all(self) -> tuple[Warned, ...]:
        return tuple(self._all)


def target(reference: ModuleRef | OutputRef) -> str:
    """The module that is meant."""
    return reference.name if isinstance(reference, ModuleRef) else reference.module


def innermost(path: Path) -> str | None:
    """The module in whose content a text stands; None for the persona's template."""
    return path[-1] if path else None


def may_follow(reference: ModuleRef | OutputRef, path: Path, warnings: Warnings) -> bool:
    """Whether a reference to a known module is followed; warns if it is not."""
    name = target(reference)
    if name in path:
        circle = " → ".join((*path[path.index(name) :], name))
        warnings.add(
            "cycle", reference.source, innermost(path), f"{name} cannot be inserted in its own text: {circle}."
        )
        return False
    if len(path) > DEEPEST:
        message = f"{name} is too deep: references are followed on {DEEPEST} levels ({' → '.join((*path, name))})."
        warnings.add("too_deep", reference.source, innermost(path), message)
        return False
    return True


class Tally:
    """How large a prompt has become: the whole of it, and each of the modules that stand in one another."""

    def __init__(self, budgets: Budgets) -> None:
        self._budgets = budgets
        self._references = 0
        self._size = 0
        self._began: list[int] = []
        """How large the prompt was when each module of the present path began."""

    def enter(self) -> None:
        """What follows belongs to one more module, until `leave`."""
        self._began.append(self._size)

    def leave(self) -> None:
        self._began.pop()

    def reference(self, path: Path) -> None:
        """Count a reference in the text at `path`."""
        self._references += 1
        if self._references > self._budgets.references:
            raise PromptTooLarge(
                f"The prompt has more than {self._budgets.references:,} references. The last was in {_place(path)}.",
                module=innermost(path),
            )

    def text(self, text: str, path: Path) -> None:
        """Count a piece of the text at `path`, whose modules are those that were entered."""
        self._size += size(text)
        for began, name in zip(reversed(self._began), reversed(path), strict=True):
            if self._size - began > self._budgets.module:
                raise PromptTooLarge(
                    f"The text of module {name} is larger than {_kib(self._budgets.module)}.", module=name
                )
        if self._size > self._budgets.prompt:
            raise PromptTooLarge(
                f"The prompt is larger than {_kib(self._budgets.prompt)}. It grew over that in {_place(path)}.",
                module=innermost(path),
            )


def size(text: str) -> int:
    """Bytes of UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _place(path: Path) -> str:
    return f"module {path[-1]}" if path else "the persona's template"


def _kib(size: int) -> str:
    return f"{size / 1024:g} KiB"
