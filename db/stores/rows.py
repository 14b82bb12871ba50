"""Rows of the driver as records."""

from collections.abc import Iterable
from dataclasses import fields
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from asyncpg import Record

    R = TypeVar("R", bound=DataclassInstance)
else:
    R = TypeVar("R")


def record(kind: type[R], row: "Record") -> R:
    """`row` as a `kind`: its columns must bear the names of the record's fields, in any order."""
    values: dict[str, Any] = {name: row[name] for name in _names(kind)}
    return kind(**values)


def record_or_none(kind: type[R], row: "Record | None") -> R | None:
    """`row` as a `kind`, or None where there was no row."""
    return None if row is None else record(kind, row)


def records(kind: type[R], rows: "Iterable[Record]") -> list[R]:
    """Each of `rows` as a `kind`."""
    return [record(kind, row) for row in rows]


@cache
def _names(kind: type[Any]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))
