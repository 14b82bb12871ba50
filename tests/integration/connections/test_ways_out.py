"""A connection of a user leads to its own server and nowhere else, through the real clients."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress

import aiohttp
import pytest
from aiohttp import web

from services.agent.types import ChatMessage, ModelRequest
from services.connections.addresses import AddressRules, Gatekeeper
from services.connections.profile import Profile, make_provider
from services.errors import AddressNotAllowed, ColloquyError, InvalidRequest, ProviderError, ProviderUnreachable
from services.providers.base import Provider, ProviderTimeouts
from tests.fakes.ollama_server import OllamaFake
from tests.fakes.openai_server import OpenAIFake
from tests.integration.connections.targets import Names, Target

KINDS = ("openai", "azure", "ollama")
KEY = "sk-canary-0123456789"
PRIVATE = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
SERVER = "127.0.0.9"
"""Stands for a public server: the only address that the rules of these tests allow."""


@pytest.fixture(scope="module")
async def target() -> AsyncGenerator[Target, None]:
    """What nobody may reach."""
    async with Target().listening(*PRIVATE) as target:
        yield target


@pytest.fixture
async def allowed() -> AsyncIterator[OpenAIFake]:
    """A model server that may be reached."""
    async with OpenAIFake() as fake:
        yield fake


def connection(kind: str, url: str, names: Names | None = None, *allowed: str) -> Provider:
    """A client as a saved connection has it."""
    keeper = Gatekeeper(AddressRules(allowed), names and names.resolve)
    timeouts = ProviderTimeouts(connect=2, first_token=2, between_tokens=2)
    return make_provider("mine", Profile(kind, url), KEY, keeper, timeouts)  # pyright: ignore[reportArgumentType]


async def ask(provider: Provider) -> list[str]:
    """Everything that a connection is used for; the codes of what went wrong."""
    codes: list[str] = []
    for question in (provider.models, lambda: _answer(provider)):
        try:
            await question()
        except ColloquyError as error:
            codes.append(error.code)
    await provider.aclose()
    return codes


async def _answer(provider: Provider) -> None:
    async with provider.stream(ModelRequest("fake-small", (ChatMessage("user", "hi"),))) as events:
        async for _ in events:
            pass


ZOO = (
    "http://127.0.0.1:{port}/v1",
    "http://127.0.0.2:{port}/v1",
    "http://127.1:{port}/v1",
    "http://127.0.1:{port}/v1",
    "http://2130706433:{port}/v1",
    "http://0x7f000001:{port}/v1",
    "http://0x7f.0.0.1:{port}/v1",
    "http://0x7f.1:{port}/v1",
    "http://0177.0.0.1:{port}/v1",
    "http://017700000001:{port}/v1",
    "http://0:{port}/v1",
    "http://0.0.0.0:{port}/v1",
    "http://[::ffff:127.0.0.1]:{port}/v1",
    "http://[::ffff:7f00:1]:{port}/v1",
    "http://[0:0:0:0:0:ffff:127.0.0.1]:{port}/v1",
    "http://[::127.0.0.1]:{port}/v1",
    "http://[::]:{port}/v1",
    "http://[::1]:{port}/v1",
    "http://[64:ff9b::7f00:1]:{port}/v1",
    "http://[2002:7f00:1::]:{port}/v1",
    "http://localhost:{port}/v1",
    "http://LOCALHOST:{port}/v1",
    "http://localhost.:{port}/v1",
    "http://sub.localhost:{port}/v1",
    "http://①②⑦.⓪.⓪.①:{port}/v1",
    "http://127。0。0。1:{port}/v1",
    "http://user@127.0.0.1:{port}/v1",
    "http://127.0.0.9:80@127.0.0.1:{port}/v1",
    "http://127.0.0.9:80\\@127.0.0.1:{port}/v1",
    "http://127.0.0.9#@127.0.0.1:{port}/v1",
    "http://127.0.0.9?@127.0.0.1:{port}/v1",
    "http://127.0.0.1:{port}\t/v1",
    "http://inside.example:{port}/v1",
    "http://mixed.example:{port}/v1",
    "http://mapped.example:{port}/v1",
    "http://embedded.example:{port}/v1",
    "http://metadata.example:{port}/v1",
    "http://zoned.example:{port}/v1",
    "http://empty.example:{port}/v1",
    "http://nowhere.example:{port}/v1",
)


@pytest.mark.parametrize("kind", KINDS)
async def test_none_of_the_zoo_reaches_what_is_private(kind: str, target: Target) -> None:
    names = Names(
        inside=[["127.0.0.1"]],
        mixed=[[SERVER, "127.0.0.2"]],
        mapped=[["::ffff:127.0.0.1"]],
        embedded=[["64:ff9b::7f00:1"]],
        metadata=[["169.254.169.254"]],
        zoned=[["fe80::1%lo"]],
        empty=[[]],
    )
    target.hits.clear()
    outcomes: dict[str, list[str]] = {}
    for form in ZOO:
        url = form.format(port=target.port)
        try:
            outcomes[form] = await ask(connection(kind, url, names, SERVER))
        except (InvalidRequest, AddressNotAllowed) as refused:
            outcomes[form] = [refused.code, refused.code]

    assert target.hits == []
    assert not [form for form, codes in outcomes.items() if len(codes) < 2], "something was answered"
    refusals = {"invalid_request", "provider_host_not_allowed", "provider_unreachable"}
    assert {code for codes in outcomes.values() for code in codes} <= refusals
    unreachable = [form for form, codes in outcomes.items() if "provider_unreachable" in codes]
    assert [form.split(".")[0] for form in unreachable] == ["http://empty", "http://nowhere"]


async def test_the_private_servers_of_these_tests_can_be_reached_where_the_rules_allow_them(target: Target) -> None:
    target.hits.clear()
    provider = connection("openai", f"http://127.0.0.1:{target.port}/v1", None, "127.0.0.0/8")
    assert await provider.models() == []
    await provider.aclose()
    assert target.hits == ["127.0.0.1"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_name_that_turns_private_after_it_was_checked_is_not_followed(kind: str, target: Target) -> None:
    target.hits.clear()
    server = Target()
    server.port = target.port
    async with server.listening(SERVER):
        names = Names(turning=[[SERVER], ["127.0.0.1"]])
        provider = connection(kind, f"http://turning.example:{target.port}/v1", names, SERVER)
        await provider.models()
        with pytest.raises(AddressNotAllowed):
            await provider.models()
        await provider.aclose()

    assert names.asked == ["turning.example"] * 2
    assert server.hits == [SERVER]
    assert target.hits == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed_and_takes_the_key_nowhere(kind: str, status: int, target: Target) -> None:
    target.hits.clear()
    elsewhere: list[web.Request] = []

    async def redirect(request: web.Request) -> web.Response:
        place = f"127.0.0.1:{target.port}" if request.method == "POST" else f"127.0.0.9:{ports[1]}"
        return web.Response(status=status, headers={"location": f"http://{place}{request.path_qs}"})

    async def collect(request: web.Request) -> web.Response:
        elsewhere.append(request)
        return web.json_response({"data": [], "models": []})

    ports: list[int] = []
    runners: list[web.AppRunner] = []
    for handler in (redirect, collect):
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handler)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, SERVER, 0).start()
        ports.append(runner.addresses[0][1])
        runners.append(runner)

    codes = await ask(connection(kind, f"http://{SERVER}:{ports[0]}/v1", None, SERVER))
    for runner in runners:
        await runner.cleanup()

    assert codes == ["provider_rejected", "provider_rejected"]
    assert target.hits == []
    assert elsewhere == []


@pytest.mark.parametrize("kind", KINDS)
async def test_nothing_of_the_operators_environment_goes_to_a_server_of_a_user(
    kind: str, monkeypatch: pytest.MonkeyPatch, target: Target
) -> None:
    target.hits.clear()
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{target.port}")
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OLLAMA_API_KEY", "OPENAI_ADMIN_KEY"):
        monkeypatch.setenv(name, "sk-operators-own")
    monkeypatch.setenv("AZURE_OPENAI_AD_TOKEN", "sk-operators-own")
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "sk-operators-own")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Secret: sk-operators-own\nAuthorization: Bearer sk-operators-own")

    fake = OllamaFake() if kind == "ollama" else OpenAIFake()
    async with fake:
        for key in (KEY, None):
            keeper = Gatekeeper(AddressRules(("127.0.0.1",)))
            url = fake.root if kind == "azure" else fake.url
            profile = Profile(kind, url)  # pyright: ignore[reportArgumentType]
            assert await ask(make_provider("mine", profile, key, keeper, ProviderTimeouts())) == []
        sent = [dict(request.headers) for request in (*fake.lookups, *fake.requests)]

    assert len(sent) >= 4
    assert "sk-operators-own" not in str(sent)
    assert sum(KEY in str(headers) for headers in sent) == len(sent) / 2
    assert {name.lower() for headers in sent for name in headers} <= {
        "host",
        "accept",
        "accept-encoding",
        "content-type",
        "content-length",
        "connection",
        "user-agent",
        "authorization",
        "api-key",
    }
    assert target.hits == []


async def test_a_client_leads_to_its_own_place_only(allowed: OpenAIFake) -> None:
    host, port = allowed.root.removeprefix("http://").split(":")
    gate = Gatekeeper(AddressRules(("127.0.0.0/8",)), Names(other=[["127.0.0.1"]]).resolve).gate(allowed.url)
    with pytest.raises(PermissionError):
        await gate.addresses("other.example", int(port))
    with pytest.raises(PermissionError):
        gate.check(host, int(port) + 1)
    gate.check(host, int(port))


@pytest.mark.parametrize("kind", ["openai", "ollama"])
@pytest.mark.parametrize(
    "form",
    ["one long line", "many lines of one event", "lines where all is wanted", "a body without an end", "compressed"],
)
async def test_an_answer_that_never_ends_is_given_up_before_it_fills_the_memory(kind: str, form: str) -> None:
    sent = 0

    async def flood(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        streams = form == "lines where all is wanted" or ("line" in form and request.method == "POST")
        # Events end with an empty line, and what Ollama sends with each line.
        many = b"data: %s\n" % (b"x" * 1_000) if kind == "openai" else b"x"
        piece = {"many lines of one event": many, "lines where all is wanted": b"data: 1\n\n"}.get(form, b"x")
        kinds = {"openai": "text/event-stream", "ollama": "application/x-ndjson"}
        headers = {"content-type": kinds[kind] if streams else "application/json"}
        if form == "compressed":
            headers["content-encoding"] = "gzip"
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        try:
            while sent < 200 * 2**20:
                await response.write(piece * (2**18 // len(piece)))
                sent += 2**18
        except (ConnectionError, aiohttp.ClientError):
            pass
        return response

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", flood)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, SERVER, 0).start()
    url = f"http://{SERVER}:{runner.addresses[0][1]}/v1"
    try:
        codes = await ask(connection(kind, url, None, SERVER))
    finally:
        await runner.cleanup()

    assert codes == ["provider_garbled", "provider_garbled"]
    assert sent < 60 * 2**20


async def test_a_name_that_cannot_be_resolved_is_told_without_its_addresses() -> None:
    provider = connection("openai", "http://secret.example/v1", Names(secret=[["10.1.2.3"]]))
    with pytest.raises(ProviderError) as refused:
        await provider.models()
    await provider.aclose()
    assert isinstance(refused.value, AddressNotAllowed)
    assert "10.1.2.3" not in f"{refused.value.message} {refused.value.details}"
    assert not isinstance(refused.value, ProviderUnreachable)


@pytest.mark.parametrize("kind", ["openai", "ollama"])
async def test_of_a_list_of_countless_models_as_many_are_read_as_anybody_has(kind: str) -> None:
    entries = [{"id": f"model-{number}", "name": f"model-{number}"} for number in range(60_000)]
    entries[0] = {"id": "m" * 100_000, "name": "m" * 100_000}

    async def listed(request: web.Request) -> web.StreamResponse:
        return web.json_response({"data": entries, "models": entries})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", listed)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, SERVER, 0).start()
    provider = connection(kind, f"http://{SERVER}:{runner.addresses[0][1]}/v1", None, SERVER)
    try:
        models = await provider.models()
    finally:
        await provider.aclose()
        await runner.cleanup()

    assert len(models) == 4_999
    assert max(len(model.id) for model in models) < 100


@pytest.mark.parametrize("kind", ["openai", "ollama"])
async def test_a_server_that_only_ever_promises_an_answer_is_hung_up_on(kind: str) -> None:
    sent = 0

    async def promise(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        with suppress(ConnectionError):
            while sent < 200 * 2**20:
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 1_000)
                await writer.drain()
                sent += 25_000
        writer.close()

    async with await asyncio.start_server(promise, SERVER, 0) as server:
        codes = await ask(connection(kind, f"http://{SERVER}:{server.sockets[0].getsockname()[1]}/v1", None, SERVER))

    assert set(codes) == {"provider_unreachable"}
    assert sent < 60 * 2**20
