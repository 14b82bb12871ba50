"""The service describes itself, and no page of it asks anybody else."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, cast

import httpx2
import orjson
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from tests.integration.rest.reading import problem
from tests.service import local_settings, running_service


@pytest.fixture(scope="module")
async def document(service: str) -> dict[str, Any]:
    """The OpenAPI document."""
    async with httpx2.AsyncClient(base_url=service) as http:
        return (await http.get("/openapi.json")).raise_for_status().json()


def operations(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for path in document["paths"].values() for operation in path.values()]


def test_the_document_is_openapi(document: dict[str, Any]) -> None:
    OpenAPIV31SpecValidator(document).validate()


def test_every_operation_has_a_name_of_its_own_that_clients_can_call(document: dict[str, Any]) -> None:
    names = Counter(operation["operationId"] for operation in operations(document))

    assert [name for name, times in names.items() if times > 1] == []
    assert [name for name in names if not re.fullmatch(r"[a-z][a-zA-Z0-9]+", name)] == []


def test_every_operation_says_what_it_does_and_what_may_go_wrong(document: dict[str, Any]) -> None:
    tags = {tag["name"] for tag in document["tags"]}
    assert len(tags) == len(document["tags"])
    for operation in operations(document):
        name = operation["operationId"]
        assert operation.get("description"), name
        assert set(operation["tags"]) <= tags, name
        refused = {status: answer for status, answer in operation["responses"].items() if status >= "400"}
        assert {"422", "500", "503"} <= refused.keys(), name
        for answer in refused.values():
            schema = answer["content"]["application/problem+json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/Problem"}, name


def test_schemas_have_names_that_become_types(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    # Two models of one name would be told apart by their modules, a generic one by its arguments in brackets.
    assert [name for name in schemas if not re.fullmatch(r"[A-Z][A-Za-z0-9]*", name)] == []
    assert [name for name in schemas if name.endswith(("-Input", "-Output", "ValidationError"))] == []
    assert {"Problem", "ClientFrame", "ServerFrame"} <= schemas.keys()


def test_a_schema_has_no_other_title_than_its_name(document: dict[str, Any]) -> None:
    # Generators name a type by its title: of two of one title they leave one out, and all that refers to it.
    titles = {name: schema["title"] for name, schema in document["components"]["schemas"].items() if "title" in schema}

    assert titles == {name: name for name in titles}


def test_what_has_fields_in_several_places_has_a_name(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"].values()
    unnamed = [inner for schema in schemas for inner in _objects(list(schema.values()))]
    times = Counter(orjson.dumps(schema["properties"], option=orjson.OPT_SORT_KEYS) for schema in unnamed)

    assert [fields for fields, count in times.items() if count > 1] == []


def _objects(part: Any) -> Iterator[dict[str, Any]]:
    if isinstance(part, dict):
        described = cast(dict[str, Any], part)
        if described.get("type") == "object" and "properties" in described:
            yield described
        for inner in described.values():
            yield from _objects(inner)
    elif isinstance(part, list):
        for inner in cast(list[Any], part):
            yield from _objects(inner)


def test_every_content_has_a_type(document: dict[str, Any]) -> None:
    unknown = [
        (operation["operationId"], kind)
        for operation in operations(document)
        for part in (operation.get("requestBody", {}), *operation["responses"].values())
        for kind, content in part.get("content", {}).items()
        if not content.get("schema")
    ]

    assert unknown == []


def test_every_body_and_answer_is_a_named_type(document: dict[str, Any]) -> None:
    anonymous: list[str] = []
    for operation in operations(document):
        bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
        for body in bodies:
            schema = body.get("content", {}).get("application/json", {}).get("schema")
            if schema is not None and not _is_named(schema):
                anonymous.append(operation["operationId"])

    assert anonymous == []


def _is_named(schema: dict[str, Any]) -> bool:
    kinds = [kind for kind in schema.get("anyOf", [schema]) if kind != {"type": "null"}]
    return all("$ref" in kind for kind in kinds)


async def test_the_page_of_the_interface_asks_nobody_else(http: httpx2.AsyncClient) -> None:
    page = await http.get("/docs")

    assert page.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
    assert re.findall(r"https?:|//", page.text) == []
    parts = re.findall(r'(?:src|href)="(/[^"]+)"', page.text)
    assert len(parts) == 3
    for part in parts:
        answer = await http.get(part)
        assert answer.status_code == 200, part
        assert answer.headers["content-type"].startswith("text/css" if part.endswith("css") else "text/javascript")
    assert "SwaggerUIBundle" in (await http.get("/docs/swagger-ui-bundle.js")).text


@pytest.mark.parametrize("name", ["other.js", "favicon.png", "..%2fcore.py", "%2e%2e"])
async def test_nothing_else_of_the_package_is_shown(http: httpx2.AsyncClient, name: str) -> None:
    problem(await http.get(f"/docs/{name}"), 404, "not_found")


async def test_the_description_can_be_switched_off(database_url: str) -> None:
    async with (
        running_service(local_settings(serve_docs=False), database_url) as base_url,
        httpx2.AsyncClient(base_url=base_url) as http,
    ):
        for path in ("/docs", "/docs/swagger-ui.css", "/openapi.json", "/asyncapi.json"):
            problem(await http.get(path), 404, "not_found")
        assert (await http.get("/api/config")).status_code == 200


async def test_the_database_tells_administrators_how_it_is(http: httpx2.AsyncClient) -> None:
    assert 0 < (await http.get("/api/database/test")).json()["ms"] < 20_000

    answer = await http.get("/api/database/info")

    info = answer.json()
    assert int(info["server_version"].split(".")[0]) >= 15
    assert info["is_current"]
    assert [step["version"] for step in info["migrations"]] == list(range(1, len(info["migrations"]) + 1))
    assert {"sessions", "messages", "usage_entries"} <= {table["name"] for table in info["tables"]}
    assert info["size_bytes"] > sum(table["bytes"] for table in info["tables"]) > 0
    assert "plpgsql" in {extension["name"] for extension in info["extensions"]}
    assert 0 < info["pool"]["in_use"] + info["pool"]["idle"] <= info["pool"]["limit"]
    assert "/dev/shm" not in answer.text
    assert "postgresql://" not in answer.text


async def test_the_configuration_tells_what_can_be_set(http: httpx2.AsyncClient) -> None:
    config = (await http.get("/api/config")).json()

    assert "high" in config["reasoning_levels"]
    temperature = next(control for control in config["controls"] if control["name"] == "temperature")
    assert temperature["value_schema"] == {"type": "number", "minimum": 0, "maximum": 2}
    assert config["limits"]["tokens_per_user_day"] == 0
