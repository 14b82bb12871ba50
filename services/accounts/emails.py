"""E-mail addresses, which are the names that people sign in with. No mail is sent, and nobody is asked about them."""

import re
import unicodedata

import idna

from services.errors import InvalidRequest

_LONGEST = 254  # RFC 5321, errata 1690
_LONGEST_LOCAL = 64
# Words of a dot-atom (RFC 5322, 3.2.3), with letters and digits of all scripts (RFC 6532) but no other signs.
_WORD = re.compile(r"[\w!#$%&'*+/=?^`{|}~-]+")
_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")


def normal_email(text: str) -> str:
    """The one spelling of an address, for storing and comparing: case and width of letters do not count.

    Domains are spelled as DNS does (IDNA). Raises `InvalidRequest`.
    """
    local, _, domain = text.strip().rpartition("@")
    if len(text) > _LONGEST or not (local and domain):
        raise _no_address()
    local, domain = _folded(local), _domain(domain)
    is_local = len(local.encode("utf-8", "replace")) <= _LONGEST_LOCAL and _has_only(_WORD, local)
    if not is_local or not _has_only(_LABEL, domain) or len(local) + len(domain) >= _LONGEST:
        raise _no_address()
    return f"{local}@{domain}"


def _folded(text: str) -> str:
    composed = unicodedata.normalize("NFKC", text)
    return unicodedata.normalize("NFKC", composed.casefold())


def _domain(text: str) -> str:
    try:
        return idna.encode(_folded(text), uts46=True).decode()
    except (idna.IDNAError, UnicodeError):
        return ""


def _has_only(part: re.Pattern[str], text: str) -> bool:
    return all(part.fullmatch(one) for one in text.split("."))


def _no_address() -> InvalidRequest:
    return InvalidRequest("This is not an e-mail address.", field="email")
