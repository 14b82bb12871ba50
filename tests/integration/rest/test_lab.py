"""Trying templates and scripts out over REST."""

from typing import Any
from uuid import uuid4

import asyncpg
import httpx2
import pytest

from tests.fakes.openai_server import OpenAIFake
from tests.integration.rest.conftest import Stranger
from tests.integration.rest.reading import events, problem

RESOLVE, TEST = "/api/templates/resolve", "/api/modules/test-script"


def fresh(stem: str) -> str:
    """A name that no other test uses."""
    return f"{stem}_{uuid4().hex[:12]}"


async def make(http: httpx2.AsyncClient, name: str, **fields: Any) -> str:
    fields = {"type": "advanced" if "script" in fields else "simple"} | fields
    (await http.post("/api/modules", json={"name": name, **fields})).raise_for_status()
    return name


async def resolve(http: httpx2.AsyncClient, template: str, **fields: Any) -> dict[str, Any]:
    return (await http.post(RESOLVE, json={"template": template, **fields})).raise_for_status().json()


async def run(http: httpx2.AsyncClient, script: str, **fields: Any) -> dict[str, Any]:
    return (await http.post(TEST, json={"script": script, **fields})).raise_for_status().json()


async def rows(database: asyncpg.Connection) -> dict[str, tuple[int, str]]:
    """How many rows every table has, and a hash of all that is in them."""
    tables = [row[0] for row in await database.fetch("select tablename from pg_tables where schemaname = 'public'")]
    found = {}
    for table in tables:
        # A replica says over and over that it is alive.
        if table != "replicas":
            query = f"select count(*), coalesce(md5(string_agg(t::text, ',' order by t::text)), '') from {table} t"
            found[table] = tuple((await database.fetch(query))[0])
    return found


async def test_a_template_becomes_the_prompt_of_a_turn_and_says_how(http: httpx2.AsyncClient) -> None:
    style = await make(http, fresh("style"), content="Be brief.")
    mood = await make(http, fresh("mood"), script='ctx.set_output("m", "calm @x")', content="Mood: ${m}.")
    rain = await make(http, fresh("rain"), content="It rains.", trigger_pattern="rain")

    answer = await resolve(http, f"Hi @{style} @{mood} @{rain} @{{nobody}} ${{{mood}.m}}", message="sun")

    assert answer["resolved_template"] == "Hi Be brief. Mood: calm @x.  @{nobody} calm @x"
    assert answer["resolved_modules"] == [style, mood]
    assert [(one["kind"], one["source"]) for one in answer["warnings"]] == [("unknown_module", "@{nobody}")]
    told = {one["module"]: one for one in answer["trace"]["modules"]}
    assert {name: one["state"] for name, one in told.items()} == {
        style: "spoke",
        mood: "spoke",
        rain: "silent",
        "nobody": "unknown",
    }
    assert told[rain]["why"] == "its trigger did not match"
    assert (told[style]["version"], told[style]["characters"]) == (1, 9)
    assert told[style]["tokens"] > 0
    assert answer["trace"]["warnings"] == [one["message"] for one in answer["warnings"]]


async def test_the_message_pulls_the_triggers_and_names_modules_on_demand(http: httpx2.AsyncClient) -> None:
    rain = await make(http, fresh("rain"), content="It rains.", trigger_pattern="rain")
    recipe = await make(http, fresh("recipe"), content="Cook.", execution_context="ON_DEMAND")

    answer = await resolve(http, f"@{rain}", message=f"In the rain, @{recipe}")

    assert answer["resolved_template"] == "It rains.\n\nCook."


async def test_persona_and_session_are_those_of_the_turn(http: httpx2.AsyncClient) -> None:
    extra = await make(http, fresh("extra"), script='ctx.set_output("n", ctx.get_message_count())')
    body = {"name": fresh("Ada"), "first_message": "Good morning.", "modules": [extra]}
    persona = (await http.post("/api/personas", json=body)).json()
    session = (await http.post("/api/sessions", json={"persona_id": persona["id"], "title": "Tea"})).json()

    of_session = await resolve(http, "${persona.name} ${session.title}", session_id=session["id"])
    of_persona = await resolve(http, "${persona.name}", persona_id=persona["id"])

    assert of_session["resolved_template"] == f"{persona['name']} Tea\n\n1"
    assert of_persona["resolved_template"] == f"{persona['name']}\n\n0"


async def test_scripts_and_models_are_left_out_where_they_are_not_wanted(
    http: httpx2.AsyncClient, model: OpenAIFake
) -> None:
    plain = await make(http, fresh("plain"), script='ctx.set_output("t", "plain")')
    asks = await make(http, fresh("asks"), script='ctx.set_output("t", ctx.generate("One word:"))')
    template = f"[@{plain}][@{asks}]"

    without = await resolve(http, template, run_scripts=False)
    scripts = await resolve(http, template)
    assert model.requests == []
    model.reply("gloomy")
    both = await resolve(http, template, run_ai=True)

    assert [one["resolved_template"] for one in (without, scripts, both)] == ["[][]", "[plain][]", "[plain][gloomy]"]
    reasons = {one["module"]: one["why"] for one in scripts["trace"]["modules"]}
    assert reasons == {plain: "", asks: "no model was to be asked"}
    assert {one["why"] for one in without["trace"]["modules"]} == {"scripts were not to be run"}


async def test_a_script_that_reflects_sees_the_prompt_of_the_first_stage(
    http: httpx2.AsyncClient, model: OpenAIFake
) -> None:
    base = await make(http, fresh("base"), content="Be kind.")
    asks = await make(http, fresh("asks"), script='ctx.set_output("t", ctx.reflect("And?"))')
    model.reply("Yes.")

    answer = await resolve(http, f"@{base} @{asks}", run_ai=True)

    assert answer["resolved_template"] == "Be kind. Yes."
    assert model.requests[0].body["messages"][0] == {"role": "system", "content": "Be kind. "}


async def test_a_circle_stays_as_it_is_written_with_a_warning(http: httpx2.AsyncClient) -> None:
    a, b = fresh("a"), fresh("b")
    await make(http, a, content=f"<@{b}>")
    await make(http, b, content=f"(@{a})")

    answer = await resolve(http, f"@{a}")

    assert answer["resolved_template"] == f"<(@{a})>"
    assert [one["kind"] for one in answer["warnings"]] == ["cycle"]


async def test_a_prompt_that_grows_too_large_names_the_module(http: httpx2.AsyncClient) -> None:
    leaf = await make(http, fresh("leaf"), content="x" * 30_000)
    tree = await make(http, fresh("tree"), content=f"@{leaf} " * 3)
    many = await make(http, fresh("many"), content=f"@{{{leaf}}} " * 1_001)

    large = problem(await http.post(RESOLVE, json={"template": f"@{tree}"}), 422, "prompt_too_large")
    endless = problem(await http.post(RESOLVE, json={"template": f"@{many}"}), 422, "prompt_too_large")

    assert large["details"] == {"module": tree}
    assert tree in large["detail"]
    assert endless["details"] == {"module": many}
    problem(await http.post(RESOLVE, json={"template": "x" * 65_537}), 422, "invalid_request", "/template")


async def test_a_script_is_run_and_everything_that_it_did_is_told(http: httpx2.AsyncClient) -> None:
    script = 'print("hello")\nctx.log("noted")\nctx.set_output("who", ctx.get_user_message())\nctx.set_output("n", 2)'

    answer = await run(http, script, content="Dear ${who}, ${n} of ${persona.name}", message="Ann @x")

    assert answer.pop("duration_ms") > 0
    assert answer == {
        "success": True,
        "outputs": {"who": "Ann @x", "n": 2},
        "resolved_content": "Dear Ann @x, 2 of ",
        "printed": "hello\n",
        "logs": ["noted"],
        "calls": 4,
        "error": None,
    }
    assert (await run(http, script, message="Ann"))["resolved_content"] == "Ann\n2"


async def test_a_script_reads_the_session_and_runs_other_modules(http: httpx2.AsyncClient, model: OpenAIFake) -> None:
    helper = await make(http, fresh("helper"), script='ctx.set_output("t", "helped")')
    session = (await http.post("/api/sessions", json={})).json()["id"]
    model.reply("Hello.")
    (await http.post(f"/api/sessions/{session}/messages", json={"content": "Hi"})).raise_for_status()

    script = f'ctx.set_output("t", [ctx.get_message_count(), ctx.get_user_message(), ctx.run_module("{helper}")])'
    answer = await run(http, script, content=f"@{helper}!", session_id=session)

    assert answer["outputs"] == {"t": [2, "Hi", "helped"]}
    assert answer["resolved_content"] == "helped!"


async def test_a_script_without_a_session_finds_an_empty_one(http: httpx2.AsyncClient) -> None:
    script = (
        'ctx.set_output("t", [ctx.get_recent_messages(), ctx.get_message_count(), ctx.get_memory_status()["memories"],'
        ' ctx.get_user_message(), ctx.get_ai_response(), ctx.search_memories("x")])'
    )

    assert (await run(http, script))["outputs"] == {"t": ["", 0, 0, "", "", []]}


@pytest.mark.parametrize(
    ("script", "kind", "message", "line"),
    [
        (
            "x = 1\nwhile True:\n    pass",
            "TimeoutError",
            "computed for more than 0.5 s; run once more, it did so in this line",
            3,
        ),
        ("while True:\n    print('x' * 1000)", "MemoryError", "printed more than 16,384 bytes", None),
        ("x = 'y' * 100_000_000", "MemoryError", "used more than 32 MiB of memory", 1),
        ('ctx.set_output("t", "x" * 70_000)', "ValueError", "the outputs are larger than 65,536 bytes", 1),
        ("ctx.log('a')\nif x\n", "SyntaxError", None, 2),
        ("raise ValueError('no')", "ValueError", "no", 1),
        ("def f():\n    f()\nf()", "RecursionError", None, None),
        ('for _ in range(600):\n    ctx.get_variable("x")', "RuntimeError", "called ctx more than 500 times", 2),
        ("ctx.launch()", "AttributeError", "ctx has no function 'launch'", 1),
        ("import os\nos.remove('x')", None, None, None),
    ],
)
async def test_a_script_that_goes_too_far_gets_an_error_in_plain_words(
    http: httpx2.AsyncClient, script: str, kind: str | None, message: str | None, line: int | None
) -> None:
    answer = await run(http, script, content="never shown")

    assert (answer["success"], answer["resolved_content"]) == (False, "")
    error = answer["error"]
    assert kind is None or error["type"] == kind
    assert message is None or error["message"] == message
    assert line is None or error["line"] == line
    assert len(answer["printed"].encode()) <= 16_384


async def test_an_error_leaves_what_was_done_until_then(http: httpx2.AsyncClient) -> None:
    answer = await run(http, 'print("a")\nctx.log("b")\nctx.set_output("c", 1)\n1 / 0')

    assert (answer["printed"], answer["logs"], answer["outputs"]) == ("a\n", ["b"], {"c": 1})
    assert (answer["error"]["type"], answer["error"]["line"]) == ("ZeroDivisionError", 4)


async def test_where_no_model_is_asked_a_script_gets_a_stand_in_and_the_same_limits(
    http: httpx2.AsyncClient, model: OpenAIFake
) -> None:
    once = 'ctx.set_output("t", ctx.generate("One word:"))'
    often = 'for _ in range(11):\n    ctx.generate("Again")'

    answer = await run(http, once)
    refused = await run(http, often)

    assert answer["outputs"] == {"t": "[no model was asked]"}
    assert refused["error"]["message"] == "a module asks a model at most 10 times in a turn"
    assert model.requests == []


async def test_where_a_model_is_asked_its_answer_and_its_faults_reach_the_script(
    http: httpx2.AsyncClient, model: OpenAIFake
) -> None:
    base = await make(http, fresh("base"), content="Be kind.")
    persona = (await http.post("/api/personas", json={"name": fresh("Ada"), "template": f"@{base}"})).json()
    model.reply("gloomy")
    model.reply("Yes.")
    script = 'ctx.set_output("t", [ctx.generate("One word:", "It rains."), ctx.reflect("And?")])'

    answer = await run(http, script, run_ai=True, persona_id=persona["id"])
    bad = await run(http, 'ctx.generate("x", provider="nowhere")', run_ai=True)

    assert answer["outputs"] == {"t": ["gloomy", "Yes."]}
    assert [request.body["messages"][0]["content"] for request in model.requests] == ["One word:", "Be kind."]
    assert bad["error"]["type"] == "RuntimeError"


async def test_text_that_cannot_be_kept_comes_out_clean(http: httpx2.AsyncClient) -> None:
    answer = await run(http, 'print(chr(0) + "a")\nctx.log(chr(0))\nctx.set_output("t", "b" + chr(0))')

    assert "\0" not in str(answer)
    assert "\\x00" not in str(answer)


async def test_nothing_is_stored_whatever_is_tried_but_what_models_have_cost(
    http: httpx2.AsyncClient, database: asyncpg.Connection, model: OpenAIFake
) -> None:
    keeps = (
        'ctx.set_variable("n", ctx.get_variable("n", 0) + 1)\nctx.set_output("n", ctx.get_variable("n"))\n'
        'ctx.store_memory("remember", [0, 0])\nctx.set_output("gone", ctx.clear_memories())\n'
        'ctx.set_output("m", ctx.generate("x"))'
    )
    kept = await make(http, fresh("kept"), script=keeps)
    body = {"name": fresh("Ada"), "template": f"@{kept}", "first_message": "Good morning."}
    persona = (await http.post("/api/personas", json=body)).json()
    session = (await http.post("/api/sessions", json={"persona_id": persona["id"]})).json()["id"]
    path, headers = f"/api/sessions/{session}/messages", {"accept": "text/event-stream"}
    async with events(http, "POST", path, json={"content": "Hi"}, headers=headers) as stream:
        await stream.rest()
    before = await rows(database)

    for run_ai in (False, True):
        where = {"session_id": session, "message": "Again", "run_ai": run_ai}
        await resolve(http, f"@{kept}", **where)
        tried = await run(http, keeps, content=f"@{kept}", **where)
        assert (tried["error"], tried["outputs"]["n"], tried["outputs"]["gone"]) == (None, 1, 0)
    await run(http, "1 / 0", session_id=session)

    after = await rows(database)
    assert after.pop("usage_entries")[0] == before.pop("usage_entries")[0] + 2  # the two that asked a model
    assert after == before


@pytest.mark.parametrize(("path", "field"), [(RESOLVE, "template"), (TEST, "script")])
class TestBadInput:
    """What both do with requests that cannot be used."""

    async def test_a_strangers_persona_and_session_are_not_there(
        self, http: httpx2.AsyncClient, stranger: Stranger, path: str, field: str
    ) -> None:
        for at, id in (("persona_id", stranger.persona_id), ("session_id", stranger.session_id)):
            for wanted in (str(id), str(uuid4())):
                problem(await http.post(path, json={field: "x = 1", at: wanted}), 404, "not_found", f"/{at}")

    async def test_a_bad_field_is_named(self, http: httpx2.AsyncClient, path: str, field: str) -> None:
        for body, at in (
            ({}, f"/{field}"),
            ({field: None}, f"/{field}"),
            ({field: "a\0b"}, f"/{field}"),
            ({field: "x" * 65_537}, f"/{field}"),
            ({field: "x", "message": "a\0"}, "/message"),
            ({field: "x", "message": "m" * 65_537}, "/message"),
            ({field: "x", "persona_id": "Ada"}, "/persona_id"),
            ({field: "x", "session_id": 5}, "/session_id"),
            ({field: "x", "run_ai": "perhaps"}, "/run_ai"),
            ({field: "x", "odd": 1}, "/odd"),
        ):
            problem(await http.post(path, json=body), 422, "invalid_request", at)

    async def test_only_json_is_taken(self, http: httpx2.AsyncClient, path: str, field: str) -> None:
        sent = await http.post(path, content=b"{}", headers={"content-type": "text/plain"})

        problem(sent, 415, "unsupported_media_type")


async def test_a_strangers_modules_are_neither_inserted_nor_run(http: httpx2.AsyncClient, stranger: Stranger) -> None:
    name = stranger.module_name

    answer = await resolve(http, f"@{name}")
    tried = await run(http, f'ctx.run_module("{name}")')

    assert (answer["resolved_template"], answer["resolved_modules"]) == (f"@{name}", [])
    assert tried["error"]["message"] == f"there is no module {name}"
