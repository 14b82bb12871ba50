"""The official `openai` client as we use it. Imported only when a connection is used: it takes a second to load."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx2
import openai
from openai import AsyncAzureOpenAI, AsyncOpenAI, AsyncStream, DefaultAioHttpClient

from services.errors import ProviderBrokeOff, ProviderError, ProviderGarbled, ProviderUnreachable
from services.providers.faults import Complaint, Complaints, complaint_in, seconds_to_wait
from services.providers.gate import Gate
from services.providers.guarded import GuardedTransport2
from services.providers.openai import OpenAIAddress
from services.providers.transport import KEEP_ALIVE, TRANSPORT_ERRORS, connection_fault

OPENAI_URL = "https://api.openai.com/v1"
# Many local servers want no key, but the client wants one.
_NO_KEY = "none"


class OpenAIClient:
    """One address with its pool of connections. Everything that goes wrong comes out as a `ProviderError`."""

    def __init__(
        self,
        address: OpenAIAddress,
        *,
        complaints: Complaints,
        connect_timeout: float,
        max_connections: int,
        gate: Gate | None = None,
    ) -> None:
        self._complaints = complaints
        self._sdk = _sdk(address, _http(address, max_connections, gate), connect_timeout)

    @asynccontextmanager
    async def stream(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[AsyncIterator[object], None]:
        """POST `body` and read the server-sent events as plain JSON values; leaving closes the connection."""
        with self._translated(ProviderUnreachable):
            # `post` with a target type is the client's documented way to get JSON as it is: its typed methods
            # walk every message on the way out and build a model of every chunk on the way in, which costs
            # several times more than all the rest.
            stream = await self._sdk.post(path, body=body, cast_to=object, stream=True, stream_cls=AsyncStream[object])
        with self._translated(ProviderBrokeOff):
            async with stream:
                _insist_on_events(stream.response)
                yield stream

    async def get(self, path: str) -> object:
        """The JSON behind `path`."""
        with self._translated(ProviderUnreachable):
            return await self._sdk.get(path, cast_to=object)

    async def aclose(self) -> None:
        """Close the pool."""
        await self._sdk.close()

    @contextmanager
    def _translated(self, when_cut: type[ProviderError]) -> Generator[None]:
        try:
            yield
        except openai.APIStatusError as error:
            wait = seconds_to_wait(error.response.headers)
            complaint = complaint_in(error.body, status=error.status_code, retry_after=wait)
            raise self._complaints.fault(complaint) from error
        except openai.APIConnectionError as error:
            raise connection_fault(error, when_cut, self._complaints) from error
        except openai.APIResponseValidationError as error:
            raise ProviderGarbled() from error
        except openai.APIError as error:
            # An `error` frame inside a stream that began with status 200.
            complaint = complaint_in(error.body)
            raise self._complaints.fault(complaint if complaint.message else Complaint(error.message)) from error
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ProviderGarbled() from error
        except TRANSPORT_ERRORS as error:
            raise connection_fault(error, when_cut, self._complaints) from error


def _http(address: OpenAIAddress, max_connections: int, gate: Gate | None) -> httpx2.AsyncClient:
    # An approved address stays the address: no redirects.
    if gate:
        guarded = GuardedTransport2(gate, max_connections, _credentials(address))
        return DefaultAioHttpClient(transport=guarded, follow_redirects=False, trust_env=False)
    # Without a number, aiohttp stops at 100 connections.
    limits = httpx2.Limits(
        max_connections=max_connections, max_keepalive_connections=max_connections, keepalive_expiry=KEEP_ALIVE
    )
    return DefaultAioHttpClient(limits=limits, follow_redirects=False)


def _credentials(address: OpenAIAddress) -> dict[str, str]:
    if not address.api_key:
        return {}
    return {"api-key": address.api_key} if address.azure else {"authorization": f"Bearer {address.api_key}"}


def _sdk(address: OpenAIAddress, http: httpx2.AsyncClient, connect_timeout: float) -> AsyncOpenAI:
    # How long a stream may stay silent is `Patience`'s business, and retries are `Retries`'.
    timeout = httpx2.Timeout(None, connect=connect_timeout, pool=connect_timeout)
    if address.azure:
        return AsyncAzureOpenAI(
            azure_endpoint=address.azure.endpoint,
            api_version=address.azure.api_version,
            api_key=address.api_key or _NO_KEY,
            timeout=timeout,
            max_retries=0,
            http_client=http,
        )
    return AsyncOpenAI(
        api_key=address.api_key or _NO_KEY,
        base_url=address.base_url or OPENAI_URL,
        timeout=timeout,
        max_retries=0,
        http_client=http,
    )


def _insist_on_events(response: httpx2.Response) -> None:
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in ("text/html", "application/xhtml+xml"):
        raise ProviderGarbled("The model server answered with an HTML page; is the address right?")
    if kind == "application/json":
        raise ProviderGarbled("The model server answered at once instead of streaming.")
