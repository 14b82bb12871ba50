"""What surrounds every request, from the outside in."""

from collections.abc import Collection, Iterable

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute

from api.middleware.access import Access, Observer
from api.middleware.authentication import Authentication
from api.middleware.body_limit import BodyLimit
from api.middleware.failures import Failures
from api.middleware.hosts import TrustedHosts
from api.middleware.methods import Methods, Resources
from api.middleware.not_modified import NotModified
from api.middleware.origins import OwnOrigins
from api.middleware.pacing import Pacing
from api.middleware.proxies import TrustedProxies
from api.middleware.request_id import RequestId
from api.middleware.security_headers import SecurityHeaders
from api.middleware.surroundings import Surroundings
from api.settings import Settings

_SENT = [
    "authorization",
    "content-type",
    "if-match",
    "if-none-match",
    "idempotency-key",
    "last-event-id",
    "x-request-id",
]
_FORM_AROUND_A_FILE = 16_384
_ABOUT_ONESELF = 16_384
"""Addresses, passwords, codes: nothing long is taken from people who need not even have an account."""
_READ = [
    "etag",
    "link",
    "location",
    "retry-after",
    "www-authenticate",
    "x-request-id",
    "idempotency-replayed",
    "ratelimit",
    "ratelimit-policy",
]


def add_middleware(app: FastAPI, settings: Settings, routes: Iterable[BaseRoute], observe: Observer) -> None:
    """Put all of it around the routes; `observe` is told of every answer."""
    layers = [
        Middleware(TrustedProxies, networks=settings.trusted_proxies),
        Middleware(RequestId),
        Middleware(Surroundings),
        Middleware(Access, observe=observe),
        Middleware(SecurityHeaders),
        Middleware(Pacing),
        Middleware(NotModified),
        Middleware(Failures),
        Middleware(TrustedHosts, names=(settings.host, *settings.trusted_hosts)),
        *_cross_origin(settings.allowed_origins),
        Middleware(OwnOrigins, allowed=settings.allowed_origins),
        Middleware(Authentication),
        Middleware(BodyLimit, most=settings.limits.body_bytes, others=_other_bodies(settings)),
        Middleware(Methods, Resources(routes)),
    ]
    for layer in reversed(layers):  # the last one added is the outermost
        app.add_middleware(layer.cls, *layer.args, **layer.kwargs)


def _other_bodies(settings: Settings) -> dict[str, int]:
    return {
        "/api/auth/*": _ABOUT_ONESELF,
        "/api/personas/upload-image": settings.limits.image_bytes + _FORM_AROUND_A_FILE,
        "/api/sessions/*/files": settings.limits.file_bytes + _FORM_AROUND_A_FILE,
        "/api/personas/import": settings.limits.import_bytes,
        "/api/sessions/import": settings.limits.import_bytes,
    }


def _cross_origin(allowed: Collection[str]) -> list[Middleware]:
    """Lets pages of other sites read answers, if the operator named those sites."""
    if not allowed:
        return []
    return [
        Middleware(
            CORSMiddleware, allow_origins=allowed, allow_methods=["*"], allow_headers=_SENT, expose_headers=_READ
        )
    ]
