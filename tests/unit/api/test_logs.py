"""Lines of the log, for machines and for people."""

import io
import json
import logging
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel, SecretStr

from api.known_secrets import known_secrets
from api.logs import ConsoleLines, JsonLines, LogHandler
from db.ids import LOCAL_OWNER, ReplicaId, RunId, SessionId
from services.mcp.config import Address, McpServer, Program
from services.telemetry.circumstances import Circumstances, circumstances, under
from services.telemetry.redaction import Redactor

SECRET = "correct horse battery"
ID = UUID("00000000-0000-7000-8000-0000000000ab")


class Log:
    """A logger of its own and what it has written."""

    def __init__(self, kind: type[JsonLines | ConsoleLines]) -> None:
        self._stream = io.StringIO()
        self.handler = LogHandler(self._stream)
        self.handler.setFormatter(kind(Redactor([SECRET])))
        self.logger = logging.Logger("services.example")
        self.logger.addHandler(self.handler)

    @property
    def text(self) -> str:
        return self._stream.getvalue()

    def line(self) -> dict[str, Any]:
        """The only line, read as JSON."""
        [line] = self.text.splitlines()
        return json.loads(line)


@pytest.fixture
def log() -> Log:
    return Log(JsonLines)


@pytest.fixture
def console() -> Log:
    return Log(ConsoleLines)


def test_a_line_tells_what_it_belongs_to(log: Log) -> None:
    around = Circumstances("req-1", "192.0.2.7", None, LOCAL_OWNER, SessionId(ID), RunId(ID))
    log.handler.replica_id = ReplicaId(ID)

    with under(around):
        log.logger.warning("%d things", 3, extra={"ms": 1.5})

    assert log.line().pop("at").endswith("Z")
    assert {name: value for name, value in log.line().items() if name != "at"} == {
        "level": "warning",
        "logger": "services.example",
        "message": "3 things",
        "request_id": "req-1",
        "session_id": str(ID),
        "run_id": str(ID),
        "user_id": str(LOCAL_OWNER),
        "replica": str(ID),
        "ms": 1.5,
    }


def test_what_is_learned_of_a_request_stands_on_its_later_lines(log: Log) -> None:
    with under(Circumstances("req-1")):
        circumstances().user_id = LOCAL_OWNER
        log.logger.warning("x")

    assert log.line()["user_id"] == str(LOCAL_OWNER)
    assert circumstances() == Circumstances()


@pytest.mark.parametrize("kind", [JsonLines, ConsoleLines])
def test_no_part_of_a_line_tells_a_secret(kind: type[JsonLines | ConsoleLines]) -> None:
    log = Log(kind)
    try:
        try:
            raise ValueError(f"refused: {SECRET}")
        except ValueError as error:
            raise RuntimeError(f"second {SECRET}") from error
    except RuntimeError:
        log.logger.exception("%s %r", SECRET, {"password": "abc"}, extra={"note": SECRET, "token": "abc"})

    assert SECRET not in log.text
    assert "abc" not in log.text
    assert "RuntimeError: second ***" in log.text
    assert "ValueError: refused: ***" in log.text


def test_what_a_client_sent_makes_no_line_of_its_own(console: Log) -> None:
    console.logger.warning("asked for %s", "a\n12:00:00.000 info  api: all is well\x1b[2J\u2028")

    [line] = console.text.splitlines()
    assert "asked for a\\n12:00" in line
    assert "\x1b" not in line


def test_a_line_for_people_reads_as_a_sentence_with_its_facts_behind(console: Log) -> None:
    with under(Circumstances("req-1")):
        console.logger.error("it failed", extra={"ms": 3})

    assert console.text.split(" ", 1)[1] == "error   services.example: it failed  request_id=req-1 ms=3\n"


def test_arguments_that_do_not_fit_cost_nothing_but_themselves(log: Log, capsys: pytest.CaptureFixture[str]) -> None:
    log.logger.warning("%d and %d", SECRET)  # noqa: PLE1206 - that is what it is about

    assert log.line()["message"] == "%d and %d (its arguments do not fit)"
    assert capsys.readouterr().err == ""


def test_text_that_is_no_unicode_can_be_written(log: Log) -> None:
    log.logger.warning("a\ud800b", extra={"odd": {"x": ["\udfff"]}})

    assert log.line()["message"] == "a\\ud800b"


def test_a_line_that_cannot_be_written_is_not_told_of_by_its_words(
    log: Log, capsys: pytest.CaptureFixture[str]
) -> None:
    class Odd:
        def __str__(self) -> str:
            raise RuntimeError(SECRET)

    log.logger.warning("x", extra={"odd": Odd()})

    assert log.text == "a line of services.example could not be written\n"
    assert capsys.readouterr().err == ""


class Group(BaseModel):
    key: SecretStr = SecretStr("the inner one")


class Example(BaseModel):
    name: str = "public"
    none: SecretStr | None = None
    ring: SecretStr = SecretStr("newest-key, older-key")
    url: SecretStr = SecretStr("postgresql://me:p%40ss@db/x")
    group: Group = Group()


def test_the_operators_secrets_are_those_of_all_settings_and_of_tool_servers() -> None:
    servers = [
        McpServer("a", Program("x", env={"FOO": "of a program"})),
        McpServer("b", Address("http://x", headers={"authorization": "Bearer of-an-address"})),
    ]

    assert set(known_secrets(Example(), servers)) == {
        "the inner one",
        "newest-key, older-key",
        "newest-key",
        "older-key",
        "postgresql://me:p%40ss@db/x",
        "p%40ss",
        "p@ss",
        "of a program",
        "Bearer of-an-address",
        "of-an-address",
    }
