"""Which modules a prompt uses and which wait for which: everything that is known before a script has run."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

from services.prompt.expansion import (
    Budgets,
    Path,
    PromptTooLarge,
    Tally,
    Warned,
    Warnings,
    innermost,
    may_follow,
    target,
)
from services.prompt.template import BUILT_INS, Misnamed, ModuleRef, OutputRef, Template, Text, Variable

Lookup = Callable[[str], Template | None]
"""The content of a module, or None if there is no such module. A module that will be silent may be given as an empty
template; what it names is then not used."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a prompt is made of, known before any script has run."""

    template: Template
    attached: tuple[str, ...]
    modules: Mapping[str, Template]
    """The contents of all modules that are mentioned anywhere and exist."""
    waits_for: Mapping[str, frozenset[str]]
    """Every module that is used, and those that it refers to. Never a cycle: each stands after what it waits for."""
    unknown: tuple[str, ...]
    """Names, mentioned anywhere or attached, that no module has."""
    cycles: tuple[tuple[str, ...], ...]
    """Each cycle once, as a path that ends where it begins."""
    warnings: tuple[Warned, ...]


@dataclass(frozen=True, slots=True)
class Validation:
    """What would become of a template."""

    is_valid: bool
    """All modules that it names exist, no reference runs in a circle, and it is not too large."""
    module_references: tuple[str, ...]
    missing_modules: tuple[str, ...]
    invalid_module_names: tuple[str, ...]
    cycles: tuple[tuple[str, ...], ...]
    warnings: tuple[Warned, ...]
    error: str | None
    """Why it cannot be used at all."""


def plan(template: Template, attached: Sequence[str], lookup: Lookup, *, budgets: Budgets | None = None) -> Plan:
    """Everything that a persona's template and the modules attached beside it use.

    Raises:
        PromptTooLarge: it has more references than `budgets` allow. `details["module"]` names the module, if any.
    """
    survey = _Survey(lookup, budgets or Budgets())
    survey.visit(template)
    for name in dict.fromkeys(attached):
        survey.attach(name)
    return survey.plan(template, attached)


def validate(template: Template, lookup: Lookup, *, inside: str | None = None) -> Validation:
    """Judge a template before it is saved: a persona's, or the content of the module `inside`."""
    survey = _Survey(lambda name: template if name == inside else lookup(name), Budgets())
    error = None
    try:
        survey.visit(template, () if inside is None else (inside,))
    except PromptTooLarge as too_large:
        error = too_large.message
    missing = tuple(name for name in template.references if name != inside and lookup(name) is None)
    warnings = survey.warnings
    if inside is None:  # what a module's script will set cannot be known
        for node in template.nodes:
            if isinstance(node, Variable) and node.name not in BUILT_INS:
                warnings.unknown(node, None)
    return Validation(
        is_valid=not (missing or template.misnamed or survey.cycles or error),
        module_references=template.references,
        missing_modules=missing,
        invalid_module_names=template.misnamed,
        cycles=tuple(survey.cycles),
        warnings=warnings.all(),
        error=error,
    )


class _Survey:
    """One walk over everything that would be inserted, without inserting it."""

    def __init__(self, lookup: Lookup, budgets: Budgets) -> None:
        self._lookup = lookup
        self._tally = Tally(budgets)
        self._modules: dict[str, Template | None] = {}
        self._references: dict[str | None, list[ModuleRef | OutputRef]] = {}
        """Those to known modules, by the text in which they are."""
        self._uses: dict[str, dict[str, None]] = {}
        self.cycles: dict[Path, None] = {}
        self.warnings = Warnings()

    def visit(self, template: Template, path: Path = ()) -> None:
        here = innermost(path)
        if here not in self._references:
            self._references[here] = list(self._known(template, here))
        for reference in self._references[here]:
            self._tally.reference(path)
            name = target(reference)
            if may_follow(reference, path, self.warnings):
                if here is not None:
                    self._uses.setdefault(here, {})[name] = None
                self._enter(name, path)
            elif name in path:
                self.cycles[_circle(path, name)] = None

    def attach(self, name: str) -> None:
        if self._module(name) is None:
            self.warnings.unknown_attached(name)
        else:
            self._enter(name, ())

    def plan(self, template: Template, attached: Sequence[str]) -> Plan:
        modules = {name: found for name, found in self._modules.items() if found is not None}
        return Plan(
            template=template,
            attached=tuple(dict.fromkeys(attached)),
            modules=modules,
            waits_for=_without_cycles(self._uses),
            unknown=tuple(name for name, found in self._modules.items() if found is None),
            cycles=tuple(self.cycles),
            warnings=self.warnings.all(),
        )

    def _enter(self, name: str, path: Path) -> None:
        self._uses.setdefault(name, {})
        content = self._module(name)
        assert content is not None
        self.visit(content, (*path, name))

    def _module(self, name: str) -> Template | None:
        if name not in self._modules:
            self._modules[name] = self._lookup(name)
        return self._modules[name]

    def _known(self, template: Template, here: str | None) -> Iterator[ModuleRef | OutputRef]:
        for node in template.nodes:
            match node:
                case ModuleRef() | OutputRef() if self._module(target(node)) is not None:
                    yield node
                case ModuleRef() | OutputRef() | Misnamed():
                    self.warnings.unknown(node, here)
                case Text() | Variable():
                    pass
                case _:
                    assert_never(node)


def _circle(path: Path, name: str) -> Path:
    """The same however one got into it."""
    modules = path[path.index(name) :]
    first = modules.index(min(modules))
    return (*modules[first:], *modules[: first + 1])


def _without_cycles(uses: Mapping[str, Iterable[str]]) -> dict[str, frozenset[str]]:
    """Depth first, without recursion; a module that is still open when it is met again is not waited for."""
    done: dict[str, frozenset[str]] = {}
    for root in uses:
        opened = {} if root in done else {root: iter(uses[root])}
        while opened:
            name = next(reversed(opened))
            deeper = next((one for one in opened[name] if one not in done and one not in opened), None)
            if deeper is None:
                del opened[name]
                done[name] = frozenset(one for one in uses[name] if one in done)
            else:
                opened[deeper] = iter(uses[deeper])
    return done
