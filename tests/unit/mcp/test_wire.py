"""What comes from a server is looked at before the client does."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCError, JSONRPCNotification, JSONRPCRequest, JSONRPCResponse

from services.mcp.lines import LineSplitter, TooLong
from services.mcp.wire import TOO_LARGE, NoiseGuard, read_line, refusal_of

LONGEST = 1_048_576


def read(message: Any) -> Any:
    line = message if isinstance(message, bytes) else json.dumps(message).encode()
    found = read_line(line, LONGEST)
    return None if found is None else found.message


def test_each_kind_of_message_is_recognised() -> None:
    assert read({"jsonrpc": "2.0", "id": 1, "result": {"a": 1}}) == JSONRPCResponse(
        jsonrpc="2.0", id=1, result={"a": 1}
    )
    assert isinstance(read({"jsonrpc": "2.0", "id": "x", "method": "ping"}), JSONRPCRequest)
    assert isinstance(read({"jsonrpc": "2.0", "method": "notifications/x", "params": {}}), JSONRPCNotification)
    assert isinstance(read({"jsonrpc": "2.0", "id": 1, "error": {"code": 1, "message": "no"}}), JSONRPCError)


@pytest.mark.parametrize("line", [b"", b"   ", b"Hello!", b"[]", b"null", b"\0\0", b"{", b'{"jsonrpc":"2.0"}'])
def test_what_is_no_message_is_nothing(line: bytes) -> None:
    assert read(line) is None


@given(st.binary(max_size=200))
def test_no_bytes_whatsoever_raise(line: bytes) -> None:
    assert read_line(line, LONGEST) is None or isinstance(read_line(line, LONGEST), SessionMessage)


@pytest.mark.parametrize(
    "line",
    [
        b'{"jsonrpc":"2.0","id":7,"result":{"a":}}',
        b'{"result":{"a":},"jsonrpc":"2.0","id":7}',
        b'{"result":{"a":},"id":7,"jsonrpc":"2.0"}',
        b'{"jsonrpc":"2.0","id":7,"result":"no object"}',
    ],
)
def test_an_answer_that_cannot_be_read_is_an_error_for_whoever_waits(line: bytes) -> None:
    answer = read(line)

    assert isinstance(answer, JSONRPCError)
    assert answer.id == 7


def test_halves_of_surrogate_pairs_do_not_spoil_an_answer() -> None:
    line = rb'{"jsonrpc":"2.0","id":1,"result":{"a":"\ud83d\ude00 \ud83d \ude00"}}'

    assert read(line).result["a"] == "\N{GRINNING FACE} \ufffd \ufffd"


def test_an_answer_with_countless_parts_is_refused_unread() -> None:
    answer = read({"jsonrpc": "2.0", "id": 7, "result": {"content": [[]] * 60_000}})

    assert isinstance(answer, JSONRPCError)
    assert (answer.id, answer.error.code) == (7, TOO_LARGE)


def test_of_many_parts_the_first_are_kept() -> None:
    answer = read({"jsonrpc": "2.0", "id": 7, "result": {"content": [{"n": n} for n in range(1_000)]}})

    assert [block["n"] for block in answer.result["content"]] == list(range(256))


@pytest.mark.parametrize("order", ["id first", "id last"])
@pytest.mark.parametrize("id", [7, "seven"])
def test_an_answer_that_is_too_large_is_an_error_for_whoever_waits(order: str, id: int | str) -> None:
    fields: dict[str, Any] = {"jsonrpc": "2.0", "id": id, "result": {"text": "x" * 5_000, "id": 3}}
    if order == "id last":
        fields = dict(reversed(list(fields.items())))
    (line,) = LineSplitter(1_000).feed(json.dumps(fields).encode() + b"\n")
    assert isinstance(line, TooLong)

    refusal = refusal_of(line, 1_000)

    assert refusal is not None
    assert isinstance(refusal.message, JSONRPCError)
    assert refusal.message.id == id


def test_a_request_that_is_too_large_is_no_answer_to_anybody() -> None:
    line = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "x", "params": {"text": "x" * 5_000}}).encode()
    (long,) = LineSplitter(1_000).feed(line + b"\n")
    assert isinstance(long, TooLong)

    assert refusal_of(long, 1_000) is None


def test_a_flood_of_notices_is_thinned_out_and_answers_are_not() -> None:
    guard = NoiseGuard(per_second=10)
    notice = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{}}'
    answer = b'{"jsonrpc":"2.0","id":1,"result":{"method":"notifications/progress"}}'

    passed = [not guard.refuses(notice) for _ in range(10_000)]

    assert all(passed[:10])
    assert sum(passed) < 100
    assert not any(guard.refuses(answer) for _ in range(100))
