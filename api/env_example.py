"""Writes `.env.example` from the settings model: `make env-example`."""

import sys
import textwrap
from collections.abc import Iterator

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from api.settings import Settings

_HEAD = """\
# All settings of Colloquy with their defaults. Copy this file to .env and take the # from the lines that you change.
# The environment goes before .env. A key or password may also lie in a file that the environment names with _FILE, such
# as SECRET_KEY_FILE=/run/secrets/secret_key. Made by `make env-example`; do not edit it here.
"""


def env_example() -> str:
    """The whole text."""
    return _HEAD + "".join(_entries(Settings, prefix=""))


def _entries(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        if isinstance(field.default, BaseModel):
            group = type(field.default)
            yield f"\n# --- {group.__doc__} ---\n"
            yield from _entries(group, f"{prefix}{name}__")
        else:
            yield _entry(prefix + name, field)


def _entry(name: str, field: FieldInfo) -> str:
    explanation = textwrap.fill(field.description or "", 118, initial_indent="# ", subsequent_indent="# ")
    return f"\n{explanation}\n#{name.upper()}={_written(field.default)}\n"


def _written(default: object) -> str:
    match default:
        case None | ():
            return ""
        case bool():
            return str(default).lower()
        case float():
            return f"{default:g}"
        case _:
            return str(default)


if __name__ == "__main__":
    sys.stdout.write(env_example())
