"""What a file is called."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.downloads import attachment
from services.documents.names import clean_name
from tests.zoo import NAMES


@pytest.mark.parametrize(("sent", "kept"), NAMES.items(), ids=range(len(NAMES)))
def test_a_name_is_kept_without_what_harms(sent: str, kept: str) -> None:
    assert clean_name(sent) == kept


@given(st.text())
def test_any_name_becomes_one_that_can_be_shown_and_stored(sent: str) -> None:
    name = clean_name(sent)

    assert name.strip(". ")
    assert len(name.encode()) <= 255
    assert not set(name) & set("/\\\0\n\r")
    assert not any(unicodedata.category(sign) in ("Cc", "Cf", "Cs") for sign in name)
    assert clean_name(name) == name


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("plan.pdf", "attachment; filename=\"plan.pdf\"; filename*=UTF-8''plan.pdf"),
        ("Grüße 1.txt", "attachment; filename=\"Grue 1.txt\"; filename*=UTF-8''Gr%C3%BC%C3%9Fe%201.txt"),
        ('a";b=c.txt', "attachment; filename=\"a__b_c.txt\"; filename*=UTF-8''a%22%3Bb%3Dc.txt"),
        ("文件", "attachment; filename=\"file\"; filename*=UTF-8''%E6%96%87%E4%BB%B6"),
    ],
)
def test_a_download_is_named_for_old_and_new_programs(name: str, header: str) -> None:
    assert attachment(name) == header


@given(st.text())
def test_no_name_breaks_out_of_its_header(sent: str) -> None:
    header = attachment(clean_name(sent))

    header.encode("ascii")
    assert header.count('"') == 2
    assert header.count(";") == 2
    assert header.isprintable()
