"""Templates over REST."""

from uuid import uuid4

import httpx2

from tests.integration.rest.conftest import Stranger
from tests.integration.rest.reading import problem


async def make(http: httpx2.AsyncClient, name: str, **fields: object) -> None:
    (await http.post("/api/modules", json={"name": name, **fields})).raise_for_status()


async def validate(http: httpx2.AsyncClient, template: str, **fields: object) -> dict[str, object]:
    answer = await http.post("/api/templates/validate", json={"template": template, **fields})
    return answer.raise_for_status().json()


async def test_a_template_of_known_modules_is_valid(http: httpx2.AsyncClient) -> None:
    a, b = (f"{stem}_{uuid4().hex[:12]}" for stem in "ab")
    await make(http, a, content=f"@{b}")
    await make(http, b)

    assert await validate(http, f"Dear ${{user.name}}: @{a}, ${{{b}.mood}}, me@example.org") == {
        "is_valid": True,
        "module_references": [a, b],
        "missing_modules": [],
        "invalid_module_names": [],
        "cycles": [],
        "warnings": [],
        "error": None,
    }


async def test_what_would_stay_as_it_is_written_is_told(http: httpx2.AsyncClient) -> None:
    a, b = (f"{stem}_{uuid4().hex[:12]}" for stem in "ab")
    await make(http, a, content=f"@{b}")
    await make(http, b, content=f"@{a}")

    found = await validate(http, f"@{a} @gone_{a} @Odd ${{nothing}}")

    assert found["is_valid"] is False
    assert found["missing_modules"] == [f"gone_{a}"]
    assert found["invalid_module_names"] == ["Odd"]
    assert found["cycles"] == [[a, b, a]]
    assert isinstance(found["warnings"], list)
    assert {warning["kind"] for warning in found["warnings"]} == {
        "unknown_module",
        "misnamed",
        "unknown_variable",
        "cycle",
    }


async def test_the_content_of_a_module_is_judged_as_such(http: httpx2.AsyncClient) -> None:
    a, b = (f"{stem}_{uuid4().hex[:12]}" for stem in "ab")
    await make(http, a, content=f"@{b}")

    found = await validate(http, f"@{a} ${{mood}}", inside=b)

    assert found["cycles"] == [[a, b, a]]
    assert found["missing_modules"] == []


async def test_editors_are_offered_active_modules(http: httpx2.AsyncClient) -> None:
    mark = uuid4().hex[:12]
    await make(http, f"a_{mark}", type="advanced", script='ctx.set_output("mood", "calm")', description="How it is")
    await make(http, f"b_{mark}", is_active=False)

    offered = (await http.get("/api/templates/modules/available", params={"q": mark})).json()

    assert offered["next_cursor"] is None
    [one] = offered["items"]
    assert one | {"id": ""} == {
        "id": "",
        "name": f"a_{mark}",
        "description": "How it is",
        "type": "advanced",
        "execution_context": "IMMEDIATE",
        "requires_ai": False,
        "outputs": ["mood"],
    }


async def test_modules_of_strangers_are_neither_offered_nor_known(http: httpx2.AsyncClient, stranger: Stranger) -> None:
    offered = await http.get("/api/templates/modules/available", params={"q": stranger.module_name})

    assert offered.json()["items"] == []
    assert (await validate(http, f"@{stranger.module_name}"))["missing_modules"] == [stranger.module_name]


async def test_a_bad_template_is_refused_with_the_field_named(http: httpx2.AsyncClient) -> None:
    for body, at in (
        ({}, "/template"),
        ({"template": None}, "/template"),
        ({"template": "t" * 65_537}, "/template"),
        ({"template": "t", "inside": "No"}, "/inside"),
        ({"template": "t", "odd": 1}, "/odd"),
    ):
        problem(await http.post("/api/templates/validate", json=body), 422, "invalid_request", at)
