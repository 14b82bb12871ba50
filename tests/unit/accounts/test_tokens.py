"""Access tokens: ours are read, and whatever else somebody makes up is one and the same refusal."""

import hmac
import json
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

import services.accounts.tokens as module
from db.ids import SignInId, UserId, new_id
from services.accounts.secrets import SecretKeys
from services.accounts.tokens import LONGEST_TOKEN, AccessTokens, TokensUnsafe
from services.errors import NotAuthenticated

OLD, NEW = "f3Jw8_qLz5nXvR2kTbYpC7dHsGmA4eUo1iKyQxW0MZt", "Nq0zJ8vYw3bTfLr6XgK1mUe9HsPd4CaI7oBxV2nS5yQ"
RING = SecretKeys([NEW, OLD]).derive("access tokens")
KEY = RING.current
TOKENS = AccessTokens(RING, seconds=900)
ADA, SIGN_IN = UserId(new_id()), SignInId(new_id())
HEADER = {"alg": "HS256", "kid": KEY.id, "typ": "JWT"}


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    return {
        "iss": "colloquy",
        "aud": "colloquy/access",
        "typ": "access",
        "sub": str(ADA),
        "sid": str(SIGN_IN),
        "jti": str(new_id()),
        "iat": now,
        "exp": now + 900,
        **changes,
    }


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in claims().items() if key != name}


def encoded(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(payload: object, header: object = HEADER, key: bytes = KEY.material, by: str = "sha256") -> str:
    """A token as anybody would make it; payload and header are JSON or the bytes that stand in its place."""
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, payload)]
    text = ".".join(encoded(part) for part in parts)
    return f"{text}.{encoded(hmac.digest(key, text.encode(), by))}"


def header(**changes: Any) -> dict[str, Any]:
    return {**HEADER, **changes}


def twice(name: str, first: object, payload: Mapping[str, Any]) -> bytes:
    text = json.dumps(payload)
    return f'{{"{name}": {json.dumps(first)}, {text[1:]}'.encode()


def other_spelling(token: str) -> str:
    """The last letter of a signature has two bits that stand for nothing."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return token[:-1] + letters[letters.index(token[-1]) | 1]


def test_what_was_issued_is_read() -> None:
    read = TOKENS.read(TOKENS.issue(ADA, SIGN_IN))

    assert (read.user_id, read.sign_in_id) == (ADA, SIGN_IN)


def test_a_token_made_by_hand_is_read_too_so_that_the_refusals_below_mean_something() -> None:
    assert TOKENS.read(signed(claims())).user_id == ADA


def test_a_token_of_the_secret_before_is_read_until_that_is_taken_out() -> None:
    token = AccessTokens(SecretKeys([OLD]).derive("access tokens"), seconds=900).issue(ADA, SIGN_IN)

    assert TOKENS.read(token).user_id == ADA
    with pytest.raises(NotAuthenticated):
        AccessTokens(SecretKeys([NEW]).derive("access tokens"), seconds=900).read(token)


def changed_payload() -> str:
    first, _, last = signed(claims()).split(".")
    return ".".join((first, encoded(json.dumps(claims(sub=str(new_id()))).encode()), last))


PUBLIC_KEY = b"-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n-----END PUBLIC KEY-----\n"

HOSTILE: dict[str, Callable[[], str]] = {
    "nothing": lambda: "",
    "a word": lambda: "token",
    "two parts": lambda: signed(claims()).rpartition(".")[0],
    "four parts": lambda: signed(claims()) + ".x",
    "empty parts": lambda: "..",
    "an empty signature": lambda: signed(claims()).rpartition(".")[0] + ".",
    "white space": lambda: signed(claims()) + "\n",
    "padding": lambda: signed(claims()) + "=",
    "other letters": lambda: signed(claims()).replace("e", "\u0435"),
    "too long": lambda: signed(claims(sub="x" * LONGEST_TOKEN)),
    "far too long": lambda: "a" * 10_000_000,
    "no algorithm": lambda: signed(claims(), {"kid": KEY.id, "typ": "JWT"}),
    "alg none": lambda: signed(claims(), header(alg="none")),
    "alg None": lambda: signed(claims(), header(alg="None")),
    "alg none, unsigned": lambda: signed(claims(), header(alg="none")).rpartition(".")[0] + ".",
    "alg empty": lambda: signed(claims(), header(alg="")),
    "alg null": lambda: signed(claims(), header(alg=None)),
    "alg a list": lambda: signed(claims(), header(alg=["HS256"])),
    "alg a part of ours": lambda: signed(claims(), header(alg="HS")),
    "alg in other letters": lambda: signed(claims(), header(alg="hs256")),
    "alg HS512 with our key": lambda: signed(claims(), header(alg="HS512"), by="sha512"),
    "alg HS384 with our key": lambda: signed(claims(), header(alg="HS384"), by="sha384"),
    "alg RS256": lambda: signed(claims(), header(alg="RS256")),
    "alg ES256": lambda: signed(claims(), header(alg="ES256")),
    "alg dir": lambda: signed(claims(), header(alg="dir", enc="A256GCM")),
    "a public key as the secret": lambda: signed(claims(), key=PUBLIC_KEY),
    "an empty secret": lambda: signed(claims(), key=b""),
    "the secret itself as the key": lambda: signed(claims(), key=NEW.encode()),
    "the key of another purpose": lambda: signed(claims(), key=SecretKeys([NEW]).derive("x").current.material),
    "the older key under the newer one's name": lambda: signed(claims(), key=list(RING)[1].material),
    "no key named": lambda: signed(claims(), {"alg": "HS256", "typ": "JWT"}),
    "another key named": lambda: signed(claims(), header(kid="x")),
    "a number as the key's name": lambda: signed(claims(), header(kid=0)),
    "a path as the key's name": lambda: signed(claims(), header(kid="../../dev/null"), key=b""),
    "a list as the key's name": lambda: signed(claims(), header(kid=[KEY.id])),
    "another type of token": lambda: signed(claims(), header(typ="at+jwt")),
    "no type": lambda: signed(claims(), {"alg": "HS256", "kid": KEY.id}),
    "crit": lambda: signed(claims(), header(crit=["exp"])),
    "an unknown crit": lambda: signed(claims(), header(crit=["x"], x=1)),
    "crit empty": lambda: signed(claims(), header(crit=[])),
    "b64 false": lambda: signed(claims(), header(b64=False, crit=["b64"])),
    "jku": lambda: signed(claims(), header(jku="https://evil.example/keys")),
    "jwk": lambda: signed(claims(), header(jwk={"kty": "oct", "k": ""}), key=b""),
    "x5u": lambda: signed(claims(), header(x5u="https://evil.example/cert")),
    "zip": lambda: signed(claims(), header(zip="DEF")),
    "cty": lambda: signed(claims(), header(cty="JWT")),
    "a header claim twice": lambda: signed(claims(), twice("alg", "none", HEADER)),
    "a header that is a list": lambda: signed(claims(), [HEADER]),
    "a header that is a number": lambda: signed(claims(), 1),
    "a header that is null": lambda: signed(claims(), b"null"),
    "a header that is no JSON": lambda: signed(claims(), b"{"),
    "a header that is no UTF-8": lambda: signed(claims(), b"\xff\xfe"),
    "a header with a BOM": lambda: signed(claims(), b"\xef\xbb\xbf" + json.dumps(HEADER).encode()),
    "a deep header": lambda: signed(claims(), b"[" * 2000),
    "a deep header that closes": lambda: signed(claims(), b'{"alg":' + b"[" * 990 + b"]" * 990 + b"}"),
    "a deep payload": lambda: signed(b"[" * 2000),
    "a deep payload that closes": lambda: signed(b'{"a":' * 500 + b"1" + b"}" * 500),
    "a payload that is a list": lambda: signed([claims()]),
    "a payload that is null": lambda: signed(b"null"),
    "a payload that is no JSON": lambda: signed(b"{"),
    "a payload that is no UTF-8": lambda: signed(b'{"a":"\xff"}'),
    "an empty payload": lambda: signed({}),
    "a claim twice": lambda: signed(twice("sub", str(new_id()), claims())),
    "a claim more": lambda: signed(claims(admin=True)),
    "nbf": lambda: signed(claims(nbf=int(time.time()) + 3600)),
    "over": lambda: signed(claims(iat=int(time.time()) - 1000, exp=int(time.time()) - 100)),
    "over a moment ago": lambda: signed(claims(iat=int(time.time()) - 1000, exp=int(time.time()) - 6)),
    "from the future": lambda: signed(claims(iat=int(time.time()) + 60, exp=int(time.time()) + 960)),
    "good for years": lambda: signed(claims(exp=int(time.time()) + 10 * 365 * 86_400)),
    "over before it begins": lambda: signed(claims(iat=int(time.time()) + 4, exp=int(time.time()) + 3)),
    "exp a text": lambda: signed(claims(exp=str(int(time.time()) + 900))),
    "exp a fraction": lambda: signed(claims(exp=time.time() + 900)),
    "exp true": lambda: signed(claims(exp=True)),
    "exp null": lambda: signed(claims(exp=None)),
    "exp huge": lambda: signed(claims(exp=10**400)),
    "exp infinite": lambda: signed(json.dumps(claims(exp=float("inf"))).encode()),
    "exp not a number": lambda: signed(json.dumps(claims(exp=float("nan"))).encode()),
    "exp with a thousand digits": lambda: signed(claims(exp=10**1000)),
    "iat a text": lambda: signed(claims(iat="now")),
    "iat negative": lambda: signed(claims(iat=-1)),
    "aud another service's": lambda: signed(claims(aud="other")),
    "aud a list with ours": lambda: signed(claims(aud=["colloquy/access", "other"])),
    "aud a list of ours": lambda: signed(claims(aud=["colloquy/access"])),
    "aud a part of ours": lambda: signed(claims(aud="colloquy")),
    "iss another": lambda: signed(claims(iss="other")),
    "iss a list with ours": lambda: signed(claims(iss=["colloquy"])),
    "typ of a refresh token": lambda: signed(claims(typ="refresh")),
    "sub a number": lambda: signed(claims(sub=1)),
    "sub a name": lambda: signed(claims(sub="admin")),
    "sub spelled otherwise": lambda: signed(claims(sub=str(ADA).upper() if str(ADA) != str(ADA).upper() else "x")),
    "sub in braces": lambda: signed(claims(sub=f"{{{ADA}}}")),
    "sub a list": lambda: signed(claims(sub=[str(ADA)])),
    "sid no id": lambda: signed(claims(sid="x")),
    "jti no id": lambda: signed(claims(jti="")),
    "a changed payload": changed_payload,
    "a changed signature": lambda: signed(claims())[:-4] + "AAAA",
    "another spelling of the same signature": lambda: other_spelling(signed(claims())),
    **{f"without {name}": (lambda name=name: signed(without(name))) for name in claims()},
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_is_not_as_we_write_it_is_refused(kind: str) -> None:
    with pytest.raises(NotAuthenticated) as refused:
        TOKENS.read(HOSTILE[kind]())

    assert refused.value.message == "The access token is not valid, or not any more."


def test_the_other_spelling_would_be_taken_for_the_same_signature() -> None:
    token = signed(claims())
    assert other_spelling(token) != token
    module._verify(other_spelling(token), KEY)  # pyright: ignore[reportPrivateUsage] - by the library, that is


@given(st.text(max_size=300))
def test_no_text_is_a_token(text: str) -> None:
    with pytest.raises(NotAuthenticated):
        TOKENS.read(text)


@given(header=st.binary(max_size=200), payload=st.binary(max_size=200))
def test_no_bytes_signed_with_our_key_get_further(header: bytes, payload: bytes) -> None:
    for token in (signed(payload, header), signed(payload), signed(claims(), header)):
        with pytest.raises(NotAuthenticated):
            TOKENS.read(token)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


@given(name=st.sampled_from(["alg", "typ", "kid", *claims()]), value=_JSON)
def test_no_other_value_of_anything_is_taken(name: str, value: object) -> None:
    changed = {name: value}
    token = signed(claims(), header(**changed)) if name in HEADER and name != "typ" else signed(claims(**changed))
    try:
        read = TOKENS.read(token)
    except NotAuthenticated:
        return
    # What names a moment or an id may be another one; nothing else may.
    assert name in ("iat", "exp", "sub", "sid", "jti") or value == {**HEADER, **claims()}[name]
    assert isinstance(read.user_id, UUID)


@given(st.data())
def test_no_letter_of_a_token_can_be_another(data: st.DataObject) -> None:
    token = signed(claims())
    place = data.draw(st.integers(0, len(token) - 1))
    letter = data.draw(st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/ "))
    changed = token[:place] + letter + token[place + 1 :]
    if changed == token:
        return
    with pytest.raises(NotAuthenticated):
        TOKENS.read(changed)


def test_the_library_still_refuses_what_it_must() -> None:
    TOKENS.prove()


def test_a_service_does_not_start_with_a_library_that_takes_what_it_must_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module._OPTIONS, "require_aud", False)  # pyright: ignore[reportPrivateUsage]

    with pytest.raises(TokensUnsafe, match="without aud"):
        TOKENS.prove()


def test_a_service_does_not_start_with_a_library_that_refuses_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module._OPTIONS, "require_nbf", True)  # pyright: ignore[reportPrivateUsage]

    with pytest.raises(TokensUnsafe, match="its own tokens"):
        TOKENS.prove()


def test_a_token_tells_nothing_but_ids_and_times() -> None:
    payload = TOKENS.issue(ADA, SIGN_IN).split(".")[1]
    told = json.loads(urlsafe_b64decode(payload + "=="))

    assert set(told) == set(claims())
    assert (told["sub"], told["sid"]) == (str(ADA), str(SIGN_IN))
