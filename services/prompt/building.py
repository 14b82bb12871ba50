"""The text of a prompt from a plan and from what its modules said, in one pass.

What scripts and models said is data: it is inserted and never looked at for references.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import assert_never

from services.prompt.expansion import Budgets, Path, Tally, Warned, Warnings, innermost, may_follow, target
from services.prompt.planning import Plan
from services.prompt.template import Misnamed, ModuleRef, OutputRef, Template, Text, Variable

SEPARATOR = "\n\n"
"""Stands before the text of an attached module."""


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one module has to say in this turn."""

    text: str | None = None
    """None: its content, rendered with `outputs`. Otherwise this is inserted in its place: data, never scanned. The
    empty string is a silent module."""
    outputs: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Insertion:
    """What came of one module."""

    module: str
    text: str
    """As it stands where it was first inserted."""
    at: int
    """How many characters of the prompt stand before that."""
    times: int


@dataclass(frozen=True, slots=True)
class Built:
    """A finished prompt."""

    text: str
    insertions: tuple[Insertion, ...]
    """Every module whose text was inserted, even if empty, in the order of the prompt."""
    warnings: tuple[Warned, ...]
    """Those of the plan that are still true, and those about variables and outputs."""


def build(
    plan: Plan,
    contributions: Mapping[str, Contribution],
    variables: Mapping[str, str],
    *,
    budgets: Budgets | None = None,
) -> Built:
    """The text of the prompt: the template, then each attached module that is not already in it.

    A module without a contribution says its content. An output that a module did not set stays as it was written if
    the module's own content would have been rendered; where a text took the content's place, it is the empty string.

    Raises:
        PromptTooLarge: the text would exceed `budgets`; found out before any of it is put together.
            `details["module"]` names the module with which it grew too large, or is None for the persona's template.
    """
    assembly = _Assembly(plan, contributions, variables, budgets or Budgets())
    assembly.render(plan.template, (), {})
    for name in plan.attached:
        assembly.attach(name)
    return assembly.built()


class _Assembly:
    """One walk that gathers the pieces of a prompt and weighs them; they are joined at its end."""

    def __init__(
        self,
        plan: Plan,
        contributions: Mapping[str, Contribution],
        variables: Mapping[str, str],
        budgets: Budgets,
    ) -> None:
        self._modules = plan.modules
        self._contributions = contributions
        self._variables = variables
        self._tally = Tally(budgets)
        self._pieces: list[str] = []
        self._first: dict[str, tuple[int, int]] = {}
        """Where the pieces of a module are that is inserted for the first time."""
        self._times: dict[str, int] = {}
        self._warnings = Warnings()

    def render(self, template: Template, path: Path, outputs: Mapping[str, str]) -> None:
        for node in template.nodes:
            match node:
                case Text(text):
                    self._add(text, path)
                case Variable():
                    self._add(self._variable(node, path, outputs), path)
                case ModuleRef(name):
                    if self._follows(node, path):
                        self._insert(name, path)
                    else:
                        self._add(node.source, path)
                case OutputRef():
                    self._add(self._output(node, path), path)
                case Misnamed():
                    self._warnings.unknown(node, innermost(path))
                    self._add(node.source, path)
                case _:
                    assert_never(node)

    def attach(self, name: str) -> None:
        if name in self._times:
            return
        if name not in self._modules:
            self._warnings.unknown_attached(name)
            return
        gap = len(self._pieces)
        self._pieces.append("")
        self._insert(name, ())
        if gap and len(self._pieces) > gap + 1:
            self._tally.text(SEPARATOR, ())
            self._pieces[gap] = SEPARATOR

    def built(self) -> Built:
        places: list[int] = [0, *accumulate(len(piece) for piece in self._pieces)]
        insertions = tuple(self._insertion(name, places) for name in self._times)
        return Built("".join(self._pieces), insertions, self._warnings.all())

    def _insertion(self, name: str, places: Sequence[int]) -> Insertion:
        begin, end = self._first[name]
        return Insertion(name, "".join(self._pieces[begin:end]), places[begin], self._times[name])

    def _insert(self, name: str, path: Path) -> None:
        self._times[name] = self._times.get(name, 0) + 1
        contribution = self._contributions.get(name, _SPEAKS)
        begin = len(self._pieces)
        self._tally.enter()
        if contribution.text is None:
            self.render(self._modules[name], (*path, name), contribution.outputs)
        else:
            self._add(contribution.text, (*path, name))
        self._tally.leave()
        self._first.setdefault(name, (begin, len(self._pieces)))

    def _follows(self, reference: ModuleRef | OutputRef, path: Path) -> bool:
        if target(reference) not in self._modules:
            self._warnings.unknown(reference, innermost(path))
            return False
        self._tally.reference(path)
        return may_follow(reference, path, self._warnings)

    def _variable(self, node: Variable, path: Path, outputs: Mapping[str, str]) -> str:
        value = outputs.get(node.name, self._variables.get(node.name))
        if value is None:
            self._warnings.unknown(node, innermost(path))
            return node.source
        self._tally.reference(path)
        return value

    def _output(self, node: OutputRef, path: Path) -> str:
        if not self._follows(node, path):
            return node.source
        contribution = self._contributions.get(node.module, _SPEAKS)
        value = contribution.outputs.get(node.output)
        if value is None and contribution.text is None:
            message = f"The module {node.module} has set no output {node.output}."
            self._warnings.add("unknown_output", node.source, innermost(path), message)
            return node.source
        return value or ""

    def _add(self, text: str, path: Path) -> None:
        if text:
            self._tally.text(text, path)
            self._pieces.append(text)


_SPEAKS = Contribution()
