"""Keys at rest."""

import os
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from db.ids import ConnectionId, UserId, new_id
from db.records import ConnectionRecord
from services.accounts.secrets import Key, KeyRing
from services.connections.vault import KeyUnreadable, KeyVault

KEY = "sk-canary-0123456789"
NEW, OLD = Key("new", os.urandom(32)), Key("old", os.urandom(32))


def stored(vault: KeyVault, key: str | None = KEY) -> ConnectionRecord:
    """A row with that key."""
    connection_id, owner_id, now = ConnectionId(new_id()), UserId(new_id()), datetime.now(UTC)
    sealed = vault.seal(key, connection_id, owner_id)
    return ConnectionRecord(
        connection_id,
        owner_id,
        name="mine",
        former_names=[],
        kind="openai",
        base_url=None,
        api_version=None,
        deployment=None,
        default_model=None,
        num_ctx=None,
        api="chat_completions",
        is_active=True,
        sealed_key=sealed.sealed,
        key_id=sealed.key_id,
        last_four=sealed.last_four,
        version=1,
        created_at=now,
        updated_at=now,
    )


def test_what_is_sealed_is_opened_again() -> None:
    vault = KeyVault(KeyRing([NEW]))
    assert vault.open(stored(vault)) == KEY
    assert vault.open(stored(vault, None)) is None


def test_the_same_key_never_looks_the_same() -> None:
    vault = KeyVault(KeyRing([NEW]))
    sealed = {stored(vault).sealed_key for _ in range(50)}
    assert len(sealed) == 50
    assert len({one[:12] for one in sealed if one}) == 50
    assert not any(KEY.encode() in one for one in sealed if one)


def test_an_older_key_of_the_ring_still_opens_and_the_newest_seals() -> None:
    before, after = KeyVault(KeyRing([OLD])), KeyVault(KeyRing([NEW, OLD]))
    assert after.open(stored(before)) == KEY
    assert stored(after).key_id == "new"


def test_a_missing_key_of_the_ring_is_told() -> None:
    with pytest.raises(KeyUnreadable, match="give it again") as unreadable:
        KeyVault(KeyRing([NEW])).open(stored(KeyVault(KeyRing([OLD]))))
    assert "missing" in unreadable.value.details["reason"]


def test_a_row_that_was_swapped_or_changed_gives_nothing() -> None:
    vault = KeyVault(KeyRing([NEW]))
    row, other = stored(vault), stored(vault)
    assert row.sealed_key
    flipped = [bytes([*row.sealed_key[:at], row.sealed_key[at] ^ 1, *row.sealed_key[at + 1 :]]) for at in (0, 12, -1)]
    for changed in (
        replace(row, sealed_key=other.sealed_key),
        replace(row, owner_id=other.owner_id),
        replace(row, id=other.id),
        *(replace(row, sealed_key=sealed) for sealed in (*flipped, b"", b"short", row.sealed_key[:-1])),
    ):
        with pytest.raises(KeyUnreadable):
            vault.open(changed)


@pytest.mark.parametrize(
    ("key", "shown"),
    [("ollama", None), ("12345678901", None), ("123456789012", "9012"), (KEY, "6789")],
)
def test_the_end_of_a_key_is_shown_only_where_much_of_it_is_left(key: str, shown: str | None) -> None:
    assert stored(KeyVault(KeyRing([NEW])), key).last_four == shown


def test_nothing_of_a_key_is_in_representations() -> None:
    vault = KeyVault(KeyRing([NEW]))
    row = stored(vault)
    assert row.sealed_key
    told = f"{vault!r} {row!r} {vault.seal(KEY, row.id, row.owner_id)!r}"
    assert KEY not in told
    assert row.sealed_key.hex() not in told
    assert repr(row.sealed_key) not in told
    assert repr(NEW.material) not in told
