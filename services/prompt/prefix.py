"""What a prompt has in common with the one before it: as far as that goes, providers need not read it again. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Prefix:
    """The beginning of a prompt that stood in the prompt of the run before, of so many characters.

    `broken_by` names the module whose words differ there first. It is None where nothing differs, and where it is the
    template of the persona itself, or something that the trace cannot place.
    """

    characters: int
    is_whole: bool
    broken_by: str | None


def compared(before: str, prompt: str, modules: Sequence[Mapping[str, Any]]) -> Prefix:
    """How a prompt begins like the one before it; `modules` are the entries of its trace."""
    if prompt == before:
        return Prefix(len(prompt), is_whole=True, broken_by=None)
    kept = _common(before, prompt)
    return Prefix(kept, is_whole=False, broken_by=_module_at(kept, modules))


def _common(one: str, other: str) -> int:
    """How many characters both begin with."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _module_at(place: int, modules: Sequence[Mapping[str, Any]]) -> str | None:
    """The module whose words stand there: of those inside each other the innermost.

    One that ends just there said more, or less, the time before; so did one of which nothing is left.
    """
    there = [
        (place - at == characters, characters, module["module"])
        for module in modules
        if (at := module.get("at")) is not None and at <= place <= at + (characters := module.get("characters", 0))
    ]
    return min(there)[2] if there else None
