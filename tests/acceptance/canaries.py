"""Words that nobody else knows, put wherever a service takes something; and requests made to order for each route."""

import json
from base64 import b64encode
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote
from uuid import uuid4

_SECRET_FIELDS = ("password", "token", "ticket", "secret", "key", "invite_code")
_DEEPEST = 6


class Canaries:
    """Secrets, which nobody may be told, and words of users, which the log has no business to tell."""

    def __init__(self) -> None:
        self.secrets: dict[str, str] = {}
        self.words: dict[str, str] = {}

    def secret(self, where: str, text: str | None = None) -> str:
        """A secret that stands there; `text` is one that the service has made."""
        return self.secrets.setdefault(where, text or f"canary-{uuid4().hex}")

    def word(self, where: str) -> str:
        """A word of a user that stands there."""
        return self.words.setdefault(where, f"parrot-{uuid4().hex}")

    def found_in(self, text: str, *, words: bool = False) -> list[str]:
        """Where those come from that `text` tells, in whatever form."""
        wanted = {**self.secrets, **(self.words if words else {})}
        return [where for where, canary in wanted.items() if any(form in text for form in _forms(canary))]


def _forms(canary: str) -> Iterator[str]:
    yield canary
    yield quote(canary, safe="")
    for before in range(3):
        yield b64encode(b"x" * before + canary.encode()).decode()[4:-4]


class Requests:
    """One request for each route of an OpenAPI document, with canaries wherever a text may stand."""

    def __init__(self, document: dict[str, Any], canaries: Canaries) -> None:
        self._document = document
        self._canaries = canaries

    def all(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Method, path, and what else a client is given for it."""
        for template, operations in self._document["paths"].items():
            for method, operation in operations.items():
                yield method.upper(), self._path(template), self._options(template, method, operation)

    def _path(self, template: str) -> str:
        parts = template.split("/")
        return "/".join(self._canaries.word(f"path {template}") if part.startswith("{") else part for part in parts)

    def _options(self, template: str, method: str, operation: dict[str, Any]) -> dict[str, Any]:
        query = {
            parameter["name"]: self._canaries.word(f"query {template} {parameter['name']}")
            for parameter in operation.get("parameters", ())
            if parameter["in"] == "query"
        }
        query |= {name: self._canaries.secret(f"query {name}") for name in ("token", "ticket", "api_key")}
        headers = {
            "X-Api-Key": self._canaries.secret("header X-Api-Key"),
            "Cookie": f"session={self._canaries.secret('header Cookie')}",
            "Idempotency-Key": self._canaries.word("header Idempotency-Key"),
            "User-Agent": self._canaries.word("header User-Agent"),
            "If-Match": self._canaries.word("header If-Match"),
        }
        options: dict[str, Any] = {"params": query, "headers": headers}
        content = operation.get("requestBody", {}).get("content", {})
        if "application/json" in content:
            where = f"{method} {template}"
            body = self._value(content["application/json"]["schema"], where, _DEEPEST)
            odd = {"password": self._canaries.secret("unknown field"), "note": self._canaries.word("unknown field")}
            options["json"] = {**body, **odd} if isinstance(body, dict) else body
        return options

    def _value(self, schema: dict[str, Any], where: str, depth: int) -> Any:
        if "$ref" in schema:
            schema = self._document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        for union in ("anyOf", "oneOf", "allOf"):
            if union in schema:
                return self._value(schema[union][0], where, depth)
        if depth == 0:
            return None
        if "properties" in schema:
            return {
                name: self._value(inner, f"{where} {name}", depth - 1) for name, inner in schema["properties"].items()
            }
        match schema.get("type"):
            case "array":
                return [self._value(schema.get("items", {}), where, depth - 1)]
            case "object" | None:
                return {"note": self._canaries.word(f"{where} {{}}")}
            case "integer" | "number":
                return 1
            case "boolean":
                return True
            case _:
                name = where.rpartition(" ")[2]
                is_secret = any(word in name for word in _SECRET_FIELDS)
                return self._canaries.secret(where) if is_secret else self._canaries.word(where)


def torn(options: dict[str, Any]) -> dict[str, Any]:
    """The same request with half of its body."""
    whole = json.dumps(options.get("json"))
    return {
        **{name: value for name, value in options.items() if name != "json"},
        "content": whole[: len(whole) // 2],
        "headers": options["headers"] | {"content-type": "application/json"},
    }
