"""Reading JSON that may not have the shape that its protocol promises."""

from collections.abc import Mapping
from typing import Any, Final, cast


def mapping(value: Any) -> Mapping[str, Any]:
    """`value` if it is a mapping, else an empty one: servers send null where the protocol has an object."""
    return cast(Mapping[str, Any], value) if isinstance(value, Mapping) else {}


def count(value: Any) -> int:
    """`value` if it is a number of tokens, else 0."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def words(value: Any) -> str:
    """`value` if it is text, else nothing."""
    return value if isinstance(value, str) else ""


def items(value: Any) -> list[Any]:
    """`value` if it is a list, else an empty one."""
    return cast(list[Any], value) if isinstance(value, list) else []


MOST_MODELS: Final = 5_000
"""Models that are read of a server's list; the largest there are have hundreds."""
_LONGEST_NAME = 500


def model_name(*values: Any) -> str:
    """The first of `values` that can be the name of a model, else nothing."""
    return next((value for value in map(words, values) if 0 < len(value) <= _LONGEST_NAME), "")
