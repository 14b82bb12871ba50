"""Reasoning between tags is told apart from the reply, however the stream was cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.providers.thinking import ThinkSplitter

fragments = st.sampled_from(
    ["<think>", "</think>", "<", "think", ">", "/", " ", "\n", "a", "b c", "<thi", "nk>", "</th", "ink>", "é"]
)
replies = st.lists(fragments, max_size=12).map("".join)


def split(pieces: list[str]) -> tuple[str, str]:
    splitter = ThinkSplitter()
    parts = [splitter.feed(piece) for piece in pieces] + [splitter.end()]
    return "".join(part[0] for part in parts), "".join(part[1] for part in parts)


@given(replies, st.data())
def test_the_parts_do_not_depend_on_where_the_reply_was_cut(reply: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(reply)), max_size=8)))
    pieces = [reply[start:end] for start, end in zip([0, *cuts], [*cuts, len(reply)], strict=True)]
    assert split(pieces) == split([reply]) == split(list(reply))


@given(replies.filter(lambda reply: not reply.lstrip().startswith("<think>")))
def test_a_reply_without_a_tag_at_its_start_is_all_text(reply: str) -> None:
    assert split([reply]) == ("", reply)


@pytest.mark.parametrize(
    ("reply", "thinking", "text"),
    [
        ("<think>why</think>because", "why", "because"),
        ("\n<think>\nwhy \n</think>\n\nbecause\n", "why", "because\n"),
        ("<think></think>because", "", "because"),
        ("<think>never closed ", "never closed ", ""),
        ("<think>a</think>b<think>c</think>", "a", "b<think>c</think>"),
        ("see <think>this</think>", "", "see <think>this</think>"),
        ("<thinking>", "", "<thinking>"),
        ("<thin", "", "<thin"),
        ("", "", ""),
    ],
)
def test_tags_count_only_at_the_start(reply: str, thinking: str, text: str) -> None:
    assert split([reply]) == (thinking, text)
