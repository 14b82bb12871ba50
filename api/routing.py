"""What a route does with its request before and after its function: strict JSON, and answers that are given twice."""

import asyncio
import hashlib
import json
import math
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Annotated, Any, Final

from fastapi import Depends, Header, Request, Response
from fastapi.routing import APIRoute

from api.dependencies import CurrentUser, Idempotent, services_of
from services.errors import InvalidRequest
from services.idempotency import Attempt, Idempotency, KeptAnswer

Handle = Callable[[Request], Coroutine[Any, Any, Response]]

_LONGEST_KEY = 200
_READ_AT_ONCE = 262_144
"""Bytes; what is longer is read in a thread, and waits for its turn."""
_NAMES_IN_AN_OBJECT = 4_096
"""More than fit into what may be kept; to say of each of a hundred thousand that it is unknown takes a second."""
_KEPT_HEADERS = ("content-type", "location", "etag", "content-disposition")
_REPLAYED: Final = "idempotency-replayed"


class StrictRoute(APIRoute):
    """A route whose JSON is taken by the letter, and which may be `once`."""

    def get_route_handler(self) -> Handle:
        handle = super().get_route_handler()

        async def handle_strictly(request: Request) -> Response:
            async with AsyncExitStack() as until_answered:
                return await _answer(_StrictRequest(request, until_answered), handle)

        return handle_strictly


class _StrictRequest(Request):
    def __init__(self, request: Request, until_answered: AsyncExitStack) -> None:
        super().__init__(request.scope, request.receive)
        self._until_answered = until_answered

    async def json(self) -> Any:
        """The body, read by RFC 8259: no names twice in an object, no numbers that are none."""
        text = await self.body()
        if len(text) <= _READ_AT_ONCE:
            return _parsed(text)
        await self._until_answered.enter_async_context(services_of(self).large_work.turn())
        return await asyncio.to_thread(_parsed, text)


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_no_number, parse_float=_float)
    except RecursionError as error:
        raise json.JSONDecodeError("Nested too deeply", "", 0) from error


class _Replay(Exception):
    """The request was answered before."""

    def __init__(self, answer: KeptAnswer) -> None:
        self.answer = answer
        super().__init__()


def _key(
    idempotency_key: Annotated[
        str | None,
        Header(
            description="Your own name for this request: sent again within a day, it is answered as before and not done"
            " again. Each request has its own.",
            json_schema_extra={"minLength": 1, "maxLength": _LONGEST_KEY},
        ),
    ] = None,
) -> str | None:
    """The key, with or without the quotation marks of a structured field (RFC 9651)."""
    if idempotency_key is None:
        return None
    key = idempotency_key.strip()
    if len(key) > 1 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not 0 < len(key) <= _LONGEST_KEY or not (key.isascii() and key.isprintable()):
        raise InvalidRequest(f"A key has 1 to {_LONGEST_KEY} visible ASCII characters.", field="Idempotency-Key")
    return key


MessageKey = Annotated[str | None, Depends(_key)]
"""For routes that send: the key is the message's `client_message_id`, if it has no other."""


async def _once(request: Request, user: CurrentUser, idempotency: Idempotent, key: MessageKey) -> None:
    if key is None:
        return
    begun = await idempotency.begin(user, key, await _fingerprint(request))
    match begun:
        case KeptAnswer():
            raise _Replay(begun)
        case Attempt():
            request.state.attempt = (idempotency, begun)


Once = Depends(_once)
"""For routes that make something: a request that names an `Idempotency-Key` is carried out once, however often it is
sent. Never for those whose answer has a secret in it: answers are kept for a day."""


async def _answer(request: Request, handle: Handle) -> Response:
    """The route's answer, kept before it is given if the request may be sent again."""
    try:
        response = await handle(request)
    except _Replay as replay:
        kept = replay.answer
        return Response(kept.body, kept.status, {**kept.headers, _REPLAYED: "true"})
    except Exception:
        await _keep(request, None)
        raise
    await _keep(request, response if response.status_code < 400 else None)
    return response


async def _keep(request: Request, response: Response | None) -> None:
    begun: tuple[Idempotency, Attempt] | None = getattr(request.state, "attempt", None)
    if begun is None:
        return
    idempotency, attempt = begun
    if response is None:
        await idempotency.forget(attempt)
        return
    headers = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
    await idempotency.complete(attempt, KeptAnswer(response.status_code, headers, bytes(response.body)))


async def _fingerprint(request: Request) -> bytes:
    """What makes it the same request: the method, the address and every byte of the body."""
    digest = hashlib.sha256(f"{request.method} {request.url.path}?{request.url.query}\n".encode())
    digest.update(await request.body())
    return digest.digest()


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > _NAMES_IN_AN_OBJECT:
        raise json.JSONDecodeError(f"An object has more than {_NAMES_IN_AN_OBJECT} names", "", 0)
    made = dict(pairs)
    if len(made) < len(pairs):
        raise json.JSONDecodeError("The same name stands twice in an object", "", 0)
    return made


def _no_number(text: str) -> float:
    raise json.JSONDecodeError(f"{text} is no number", "", 0)


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise json.JSONDecodeError("A number is too large", "", 0)
    return number
