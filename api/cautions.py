"""What can be served with, but should not be overlooked; each with the reason."""

import ipaddress
import os
import stat
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

from api.settings import BadSettings, Settings

_PATIENCE_OF_SYSTEMD = 90
_CLOSING = 10
_SHORT_LEASE = 2
_SMALL_POOL = 4
_LITTLE_MEMORY_KIB = 19_456  # of its Password Storage Cheat Sheet, for two passes of Argon2id


def check_surroundings(settings: Settings) -> list[str]:
    """What the operator should know before the service starts. Raises BadSettings for what nobody can want."""
    return [
        *_about_process(),
        *_about_data(settings),
        *_about_database(settings),
        *_about_numbers(settings),
        *_about_users(settings),
        *_about_strangers(settings),
    ]


def _about_process() -> Iterator[str]:
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        yield "The service runs as root: whoever finds a fault in it has the whole machine. Give it a user of its own."


def _about_data(settings: Settings) -> Iterator[str]:
    try:
        mode = settings.data_dir.stat().st_mode
    except FileNotFoundError:
        return
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise BadSettings(
            f"DATA_DIR: everybody on this machine may write into {settings.data_dir}, and could put a secret key of "
            f"their own there: chmod 700 {settings.data_dir}"
        )
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield (
            f"DATA_DIR: others on this machine may look into {settings.data_dir}, where files and the secret key are: "
            f"chmod 700 {settings.data_dir}"
        )


def _about_database(settings: Settings) -> Iterator[str]:
    if settings.database_url is None:
        return
    parts = urlsplit(settings.database_url.get_secret_value())
    mode = parse_qs(parts.query).get("sslmode", ["prefer"])[0]
    if parts.hostname and not _is_near(parts.hostname) and mode not in ("require", "verify-ca", "verify-full"):
        yield (
            f"DATABASE_URL: {parts.hostname} is another machine, and with sslmode={mode} whoever stands between may "
            "read along or pretend to be it. Add ?sslmode=verify-full."
        )
    if not settings.journal.durable:
        yield "JOURNAL__DURABLE=false: a power cut may take what people have been shown already."


def _about_numbers(settings: Settings) -> Iterator[str]:
    timeouts = settings.timeouts
    if timeouts.drain + _CLOSING > _PATIENCE_OF_SYSTEMD:
        yield (
            f"TIMEOUTS__DRAIN={timeouts.drain:g}: systemd kills after {_PATIENCE_OF_SYSTEMD} s, Docker after 10 s, "
            "unless TimeoutStopSec or stop_grace_period say more: replies that still run then are lost."
        )
    if timeouts.lease < _SHORT_LEASE:
        yield (
            f"TIMEOUTS__LEASE={timeouts.lease:g}: a process that is busy for so long is taken for dead, and its "
            "replies are ended by others."
        )
    if settings.limits.pool_size < _SMALL_POOL:
        yield (
            f"LIMITS__POOL_SIZE={settings.limits.pool_size}: fewer than {_SMALL_POOL} connections make people wait for "
            "each other."
        )


def _about_users(settings: Settings) -> Iterator[str]:
    if settings.auth_mode != "accounts":
        return
    if any(place.endswith("/0") for place in settings.allowed_private_hosts or ()):
        yield (
            "ALLOWED_PRIVATE_HOSTS: every user's connections may lead anywhere in your network, to what gives out keys "
            "there too. Name the servers that are meant."
        )
    if settings.passwords.memory_kib < _LITTLE_MEMORY_KIB:
        yield (
            f"PASSWORDS__MEMORY_KIB={settings.passwords.memory_kib}: whoever gets hold of the database tries passwords "
            f"fast. OWASP asks for {_LITTLE_MEMORY_KIB} at least."
        )


def _about_strangers(settings: Settings) -> Iterator[str]:
    if settings.auth_mode != "accounts" or _is_near(settings.host):
        return
    if not settings.trusted_proxies:
        yield (
            f"HOST={settings.host} without TRUSTED_PROXIES: passwords and tokens travel unencrypted, unless a proxy "
            "with TLS stands before it."
        )
    if settings.registration == "open":
        yield "REGISTRATION=open: whoever reaches this service can have an account. See invite and closed."


def _is_near(host: str) -> bool:
    """This machine, or one that has a name only within its own network, such as a container."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.startswith("/") or "." not in host
