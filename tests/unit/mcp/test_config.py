"""What an operator can write into mcp.json, and what they are told when it cannot be used."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from services.mcp.config import Address, McpServer, Program, built_in_servers
from services.mcp.config_file import KEYS, parse_servers, read_servers
from services.mcp.table import BadMcpConfig

ROOT = Path(__file__).parents[3]


def servers(environment: dict[str, str] | None = None, **entries: Any) -> list[McpServer]:
    text = json.dumps({"mcpServers": entries})
    return list(parse_servers(text, "mcp.json", environment or {}))


def refusal(text: str | None = None, **entries: Any) -> str:
    with pytest.raises(BadMcpConfig) as refused:
        parse_servers(json.dumps({"mcpServers": entries}) if text is None else text, "mcp.json", {})
    return str(refused.value)


def test_a_program_as_all_clients_write_it() -> None:
    entry = {"command": "npx", "args": ["-y", "some-server"], "env": {"LEVEL": "high"}}

    assert servers(some=entry) == [McpServer("some", Program("npx", ("-y", "some-server"), {"LEVEL": "high"}))]


def test_an_address_as_all_clients_write_it() -> None:
    entry = {"type": "http", "url": "https://tools.example.org/mcp", "headers": {"Authorization": "Bearer x"}}

    assert servers(some=entry) == [
        McpServer("some", Address("https://tools.example.org/mcp", {"Authorization": "Bearer x"}))
    ]


def test_our_own_keys() -> None:
    (server,) = servers(
        notes={
            "command": "notes",
            "cwd": "/srv",
            "description": "Notes.",
            "default": False,
            "isolation": "user",
            "approval": {"delete": "never", "*": "ask"},
            "timeout": 5,
            "trusted": False,
            "mode": "legacy",
        }
    )

    assert server == McpServer(
        "notes",
        Program("notes", cwd="/srv"),
        description="Notes.",
        default=False,
        isolation="user",
        approval={"delete": "never", "*": "ask"},
        timeout=5.0,
        trusted=False,
        mode="legacy",
    )
    assert [server.approval_of(tool) for tool in ("delete", "list")] == ["never", "ask"]


def test_one_word_of_approval_is_for_all_tools() -> None:
    (server,) = servers(some={"command": "x", "approval": "ask"})
    (silent,) = servers(some={"command": "x"})

    assert (server.approval_of("anything"), silent.approval_of("anything")) == ("ask", None)


def test_a_disabled_server_is_checked_and_left_out() -> None:
    assert servers(some={"command": "x", "disabled": True}, other={"command": "y"}) == [
        McpServer("other", Program("y"))
    ]
    assert "there is no key 'commando'" in refusal(some={"commando": "x", "command": "x", "disabled": True})


def test_values_of_the_environment_are_filled_in_everywhere() -> None:
    program = {"command": "${BIN}/x", "args": ["${LEVEL:-low}", "$HOME ${ODD"], "env": {"TOKEN": "t-${SECRET}"}}
    address = {"url": "https://${HOST}/mcp", "headers": {"Authorization": "Bearer ${SECRET}"}}
    environment = {"BIN": "/opt", "SECRET": "s", "HOST": "example.org"}

    first, second = servers(environment, program=program, address=address)

    assert first.reach == Program("/opt/x", ("low", "$HOME ${ODD"), {"TOKEN": "t-s"})
    assert second.reach == Address("https://example.org/mcp", {"Authorization": "Bearer s"})


def test_secrets_are_not_shown_when_a_server_is() -> None:
    shown = repr(
        servers(
            {"S": "canary"}, a={"command": "x", "env": {"K": "${S}"}}, b={"url": "http://h/", "headers": {"K": "${S}"}}
        )
    )

    assert "canary" not in shown


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"command": "x", "arg": []}, "there is no key 'arg'. Did you mean 'args'?"),
        ({"command": "x", "alwaysAllow": []}, "there is no key 'alwaysAllow'. Did you mean 'approval'?"),
        ({"command": "x", "headers": {}}, "there is no key 'headers'."),
        ({"url": "http://h/", "env": {}}, "there is no key 'env'."),
        ({}, "'command' is required"),
        ({"command": ""}, "'command' is required"),
        ({"command": "x", "url": "http://h/"}, "both 'command' and 'url'"),
        ({"command": ["x"]}, "'command' must be a string"),
        ({"command": "x", "args": "-y"}, "'args' must be a list of strings"),
        ({"command": "x", "args": ["a", 1]}, "'args', entry 2 must be a string"),
        ({"command": "x", "env": {"A": 1}}, "'A' in 'env' must be a string"),
        ({"command": "x", "env": ["A=1"]}, "'env': must be an object"),
        ({"command": "x\0y"}, "must not contain NUL"),
        ({"command": "x", "args": ["${NOWHERE}"]}, "needs the environment variable NOWHERE, which is not set"),
        ({"type": "http"}, "'url' is required"),
        ({"type": "sse", "url": "http://h/"}, "old 'sse' transport"),
        ({"type": "pigeon", "url": "http://h/"}, "'type' must be one of stdio, http"),
        ({"url": "ftp://h/"}, "must start with http:// or https://"),
        ({"url": "http://"}, "must start with http:// or https:// and name a host"),
        ({"url": "http://h:99999/"}, "must start with http:// or https:// and name a host"),
        ({"command": "x", "default": "yes"}, "'default' must be true or false"),
        ({"command": "x", "isolation": "nobody"}, "'isolation' must be one of shared, user, session"),
        ({"command": "x", "approval": "maybe"}, "'approval' must be one of auto, ask, never"),
        ({"command": "x", "approval": {"a": "maybe"}}, "'approval' of 'a' must be one of auto, ask, never"),
        ({"command": "x", "approval": ["a"]}, "'approval' must be one of"),
        ({"command": "x", "timeout": 30_000}, "'timeout' must be a number of seconds, at most 3600"),
        ({"command": "x", "timeout": 0}, "'timeout' must be a number of seconds"),
        ({"command": "x", "timeout": True}, "'timeout' must be a number of seconds"),
        ({"command": "x", "timeout": "5"}, "'timeout' must be a number of seconds"),
        ({"command": "x", "mode": "modern"}, "'mode' must be one of auto, legacy"),
        ("npx", "must be an object"),
    ],
)
def test_a_mistake_is_named_with_its_file_and_server(entry: Any, said: str) -> None:
    message = refusal(some=entry)

    assert message.startswith("mcp.json: server 'some'")
    assert said in message


@pytest.mark.parametrize("name", ["", "a b", "a__b", "a_", "_a", "é", "a" * 33, "a/b"])
def test_a_name_from_which_no_name_of_a_tool_can_be_made_is_refused(name: str) -> None:
    assert "its name must be" in refusal(json.dumps({"mcpServers": {name: {"command": "x"}}}))


@pytest.mark.parametrize("name", ["a", "A-1", "a_b", "7", "a" * 32])
def test_other_names_are_taken(name: str) -> None:
    assert [server.name for server in servers(**{name: {"command": "x"}})] == [name]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not JSON as it should be"),
        ("", "not JSON as it should be"),
        ("[" * 100_000, "not JSON as it should be"),
        ("[]", "must be an object"),
        ('{"servers": {}}', "there is no key 'servers'. Did you mean 'mcpServers'?"),
        ('{"mcpServers": []}', "mcpServers: must be an object"),
        ('{"mcpServers": {"a": {"command": "x"}, "a": {"command": "y"}}}', "'a' stands there twice"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(text: str, said: str) -> None:
    assert said in refusal(text)


def test_without_any_server_there_are_none() -> None:
    assert servers() == []
    assert parse_servers("{}", "mcp.json", {}) == ()


def test_without_a_file_the_built_in_servers_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert read_servers(None, {}) == built_in_servers()
    (clock,) = built_in_servers()
    assert isinstance(clock.reach, Program)
    assert clock.reach.command == sys.executable


def test_a_file_here_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mcp.json").write_text('{"mcpServers": {"mine": {"command": "x"}}}')

    assert [server.name for server in read_servers(None, {})] == ["mine"]


def test_a_file_that_was_named_must_be_there_and_readable(tmp_path: Path) -> None:
    with pytest.raises(BadMcpConfig, match="there is no such file"):
        read_servers(tmp_path / "absent.json", {})
    with pytest.raises(BadMcpConfig, match="cannot be read"):
        read_servers(tmp_path, {})
    (tmp_path / "latin.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(BadMcpConfig, match="cannot be read"):
        read_servers(tmp_path / "latin.json", {})


def test_the_examples_of_the_documentation_can_be_used() -> None:
    text = (ROOT / "docs" / "tools.md").read_text()
    (example,) = (block for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL) if "mcpServers" in block)

    assert [server.name for server in parse_servers(example, "mcp.json", {})] == ["time", "notes", "tracker"]


def test_the_documentation_explains_every_key() -> None:
    text = (ROOT / "docs" / "tools.md").read_text()

    assert [key for key in KEYS if f"| `{key}`" not in text and f", `{key}`" not in text] == []
