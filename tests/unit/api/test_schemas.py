"""What bodies may hold, and how lists are walked."""

from typing import Annotated, Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from api.errors import pointer
from api.schemas.model import Metadata, Text
from api.schemas.pages import Before, cursor_of
from api.schemas.personas import PersonaUpdate

_TEXT: TypeAdapter[str] = TypeAdapter(Text)
_METADATA: TypeAdapter[dict[str, Any]] = TypeAdapter(Metadata)
_BEFORE: TypeAdapter[UUID | None] = TypeAdapter(Annotated[Before, ...])


@given(st.uuids())
def test_a_cursor_leads_back_to_the_row_that_it_was_made_of(row: UUID) -> None:
    cursor = cursor_of(row)

    assert cursor is not None
    assert len(cursor) == 22
    assert _BEFORE.validate_python(cursor) == row


@given(st.text())
def test_what_is_no_cursor_is_refused_and_not_misread(text: str) -> None:
    try:
        row = _BEFORE.validate_python(text)
    except ValidationError:
        return
    assert isinstance(row, UUID)


def test_there_is_no_cursor_after_the_last_page() -> None:
    assert cursor_of(None) is None


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "a\udfff"])
def test_text_that_postgresql_cannot_keep_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        _TEXT.validate_python(text)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_all_other_text_is_kept_as_it_is(text: str) -> None:
    assert _TEXT.validate_python(text) == text


@pytest.mark.parametrize(
    "value",
    [
        {"a": "\0"},
        {"\0": 1},
        {"a": [{"b": "\ud800"}]},
        {"a": float("nan")},
        {"a": float("inf")},
        {"a": 2**64},
        {"a": "x" * 16_400},
    ],
)
def test_metadata_that_postgresql_cannot_keep_is_refused(value: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        _METADATA.validate_python(value)


def test_metadata_may_not_be_nested_without_end() -> None:
    value: dict[str, Any] = {}
    for _ in range(40):
        value = {"a": value}

    with pytest.raises(ValidationError, match="nested"):
        _METADATA.validate_python(value)


def test_an_update_tells_apart_what_was_left_out_and_what_was_cleared() -> None:
    update = PersonaUpdate.model_validate({"description": None, "first_message": None, "model": "m"})

    assert update.changes() == {"description": "", "first_message": None, "model": "m"}


@pytest.mark.parametrize("field", ["name", "mode", "is_active"])
def test_what_cannot_be_cleared_refuses_null(field: str) -> None:
    with pytest.raises(ValidationError, match="cannot be null"):
        PersonaUpdate.model_validate({field: None})


def test_a_template_is_measured_in_bytes() -> None:
    PersonaUpdate.model_validate({"template": "é" * 32_768})
    with pytest.raises(ValidationError, match="65536 bytes"):
        PersonaUpdate.model_validate({"template": "é" * 32_769})


def test_a_pointer_names_the_place_in_the_body() -> None:
    assert pointer(("body", "messages", 0, "content")) == "/messages/0/content"
    assert pointer(("query", "limit")) == "/limit"
    assert pointer(("body", "metadata", "a/b~c")) == "/metadata/a~1b~0c"
    assert pointer(("body",)) == ""
