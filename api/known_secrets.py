"""What the operator has told us that nobody else must read."""

from collections.abc import Iterable, Iterator
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, SecretStr

from services.mcp.config import Address, McpServer, Program


def known_secrets(settings: BaseModel, servers: Iterable[McpServer]) -> list[str]:
    """Every secret of the settings, and all that tool servers are given to know."""
    return [*_of_settings(settings), *_of_servers(servers)]


def _of_settings(group: BaseModel) -> Iterator[str]:
    for name in type(group).model_fields:
        match getattr(group, name):
            case SecretStr() as secret:
                yield from _parts(secret.get_secret_value())
            case BaseModel() as inner:
                yield from _of_settings(inner)
            case _:
                pass


def _parts(secret: str) -> Iterator[str]:
    """The secret, each of a list of them, and the password of an address, as it is written and as it is meant."""
    yield secret
    yield from (part.strip() for part in secret.split(",") if "," in secret)
    if "://" in secret and (password := urlsplit(secret).password):
        yield from {password, unquote(password)}


def _of_servers(servers: Iterable[McpServer]) -> Iterator[str]:
    for server in servers:
        match server.reach:
            case Program(env=env):
                yield from env.values()
            case Address(headers=headers):
                for value in headers.values():
                    yield value
                    yield value.rpartition(" ")[2]  # what follows Bearer
