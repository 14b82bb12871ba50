"""Access tokens: the only place that knows the library for JSON Web Tokens (RFC 7519), and trusts it with little.

python-jose takes what it is not told to refuse: a token without an end or an audience, any header, a claim given
twice, base64 that is not the only spelling of its bytes; and a deep enough header ends in a RecursionError. What is
not exactly as we write it is refused here before the library sees it, and what the library has to refuse is tried out
when the service starts.
"""

import json
import re
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn
from uuid import UUID

from db.ids import SignInId, UserId, new_id
from services.accounts.secrets import Key, KeyRing
from services.errors import NotAuthenticated

LONGEST_TOKEN: Final = 4096
"""Characters."""

_ALGORITHMS = ["HS256"]  # a list: of a text the library takes any part
_ISSUER = "colloquy"
_AUDIENCE = "colloquy/access"
_TYPE = "access"
_CLAIMS = frozenset(("iss", "aud", "typ", "sub", "sid", "jti", "iat", "exp"))
_HEADERS = frozenset(("alg", "typ", "kid"))
_LEEWAY = 5
"""Seconds that the clocks of two replicas may differ."""
_LONGEST_LIFE = 86_400

_OPTIONS = {
    "leeway": _LEEWAY,
    **{f"verify_{name}": True for name in ("signature", "aud", "iat", "exp", "nbf", "iss", "sub", "jti")},
    **{f"require_{name}": True for name in ("aud", "iat", "exp", "iss", "sub", "jti")},
}
_SHAPE = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")


class TokensUnsafe(Exception):
    """The library for tokens accepts one that it has to refuse: the service must not start with it."""


@dataclass(frozen=True, slots=True)
class AccessClaims:
    """What an access token says, if it is ours: who, and by which sign-in."""

    user_id: UserId
    sign_in_id: SignInId


class _Odd(Exception):
    """Not a token as we write it."""


class AccessTokens:
    """Makes access tokens and reads them. `seconds` is how long a token lasts, a day at most."""

    def __init__(self, keys: KeyRing, *, seconds: int) -> None:
        self._keys = keys
        self._seconds = seconds

    @property
    def seconds(self) -> int:
        """How long a token lasts."""
        return self._seconds

    def issue(self, user_id: UserId, sign_in_id: SignInId) -> str:
        """A token that shows, from now on and for a while, who somebody is."""
        return _signed(_claims(user_id, sign_in_id, int(time.time()), self._seconds), self._keys.current)

    def read(self, token: str) -> AccessClaims:
        """What the token says. Raises `NotAuthenticated` if it is not one of ours, or is over."""
        try:
            return self._read(token)
        except Exception as error:
            raise NotAuthenticated("The access token is not valid, or not any more.") from error

    def prove(self) -> None:
        """Try that the library still refuses what it must. Raises `TokensUnsafe`."""
        key = self._keys.current
        claims = _claims(UserId(new_id()), SignInId(new_id()), int(time.time()), self._seconds)
        try:
            _verify(_signed(claims, key), key)
        except Exception as error:
            raise TokensUnsafe("python-jose does not accept its own tokens.") from error
        for kind, token in _forgeries(claims, key):
            if _is_accepted(token, key):
                raise TokensUnsafe(f"python-jose accepts a token {kind}; this version of it must not be used.")

    def _read(self, token: str) -> AccessClaims:
        header, payload = _parts(token)
        if header.keys() != _HEADERS or header["alg"] not in _ALGORITHMS or header["typ"] != "JWT":
            raise _Odd("the header")
        key = self._keys.find(header["kid"])
        if key is None:
            raise _Odd("the key")
        _verify(token, key)
        return _typed(payload)


def _parts(token: str) -> tuple[dict[str, Any], bytes]:
    """Header and payload; of the payload nothing is looked at before the signature is known to be ours."""
    shape = _SHAPE.fullmatch(token) if len(token) <= LONGEST_TOKEN else None
    if shape is None:
        raise _Odd("the shape")
    header, payload, _signature = (_decoded(part) for part in shape.groups())
    return _object(header), payload


def _decoded(part: str) -> bytes:
    decoded = urlsafe_b64decode(part + "=" * (-len(part) % 4))
    if _encoded(decoded) != part:  # the unused bits of the last letter: other texts would stand for the same token
        raise _Odd("the base64")
    return decoded


def _encoded(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _object(text: bytes) -> dict[str, Any]:
    value: object = json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_refuse)
    if not isinstance(value, dict):
        raise _Odd("the JSON")
    return value  # pyright: ignore[reportUnknownVariableType] - keys of JSON are texts


def _without_duplicates(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise _Odd("the same name twice")
    return value


def _refuse(constant: str) -> NoReturn:
    raise _Odd(constant)


def _typed(payload: bytes) -> AccessClaims:
    claims = _object(payload)
    if claims.keys() != _CLAIMS or claims["typ"] != _TYPE or claims["aud"] != _AUDIENCE or claims["iss"] != _ISSUER:
        raise _Odd("the claims")
    begin, end = claims["iat"], claims["exp"]
    if type(begin) is not int or type(end) is not int or not begin < end <= begin + _LONGEST_LIFE:
        raise _Odd("the times")
    if begin > time.time() + _LEEWAY:
        raise _Odd("the future")
    _id(claims["jti"])
    return AccessClaims(UserId(_id(claims["sub"])), SignInId(_id(claims["sid"])))


def _id(value: str) -> UUID:
    id = UUID(value)
    if str(id) != value:
        raise _Odd("the spelling of an id")
    return id


# --- the library --------------------------------------------------------------------------------------------------

# It is imported where it is used: that takes 0.1 s, which a service without accounts does not need to wait for.


def _verify(token: str, key: Key) -> None:
    """Raises something if the token was not signed with the key, is over, or lacks a claim."""
    from jose import jwk, jwt  # noqa: PLC0415

    # A key made for one algorithm: of bytes alone the library would make what the header asks for.
    made = jwk.construct(key.material, _ALGORITHMS[0])
    jwt.decode(token, made, algorithms=_ALGORITHMS, audience=_AUDIENCE, issuer=_ISSUER, options=_OPTIONS)


def _is_accepted(token: str, key: Key) -> bool:
    try:
        _verify(token, key)
    except Exception:  # noqa: BLE001 - any refusal will do
        return False
    return True


def _signed(claims: Mapping[str, Any], key: Key, *, algorithm: str = _ALGORITHMS[0]) -> str:
    from jose import jwt  # noqa: PLC0415

    return jwt.encode(dict(claims), key.material, algorithm=algorithm, headers={"kid": key.id})


def _claims(user_id: UserId, sign_in_id: SignInId, begin: int, seconds: int) -> dict[str, Any]:
    return {
        "iss": _ISSUER,
        "aud": _AUDIENCE,
        "typ": _TYPE,
        "sub": str(user_id),
        "sid": str(sign_in_id),
        "jti": str(new_id()),
        "iat": begin,
        "exp": begin + seconds,
    }


def _forgeries(claims: Mapping[str, Any], key: Key) -> Iterator[tuple[str, str]]:
    """Tokens that the library itself has to refuse, and what is wrong with each."""
    good = _signed(claims, key)
    _header, payload, signature = good.split(".")
    unsigned = _encoded(json.dumps({"alg": "none", "typ": "JWT"}).encode())
    yield "without a signature", f"{unsigned}.{payload}."
    yield "that says alg=none over a signature", f"{unsigned}.{payload}.{signature}"
    yield "of another key", _signed(claims, Key(key.id, bytes(32)))
    yield "of another algorithm", _signed(claims, key, algorithm="HS512")
    yield "whose claims were changed", good.replace(payload, _encoded(json.dumps({**claims, "sub": "x"}).encode()))
    yield "that is over", _signed({**claims, "iat": claims["iat"] - 7200, "exp": claims["iat"] - 3600}, key)
    yield "for somebody else", _signed({**claims, "aud": "others"}, key)
    yield "of somebody else", _signed({**claims, "iss": "others"}, key)
    for name in ("exp", "iat", "aud", "iss", "sub", "jti"):
        without = {other: value for other, value in claims.items() if other != name}
        yield f"without {name}", _signed(without, key)
