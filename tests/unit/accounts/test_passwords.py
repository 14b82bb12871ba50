"""Passwords: what is kept of them, and what verifying one costs."""

import asyncio
import threading
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from pwdlib.hashers.argon2 import Argon2Hasher

from services.accounts.passwords import PasswordCosts, Passwords, PasswordsBusy, Verdict
from services.errors import InvalidRequest

CHEAP = PasswordCosts(memory_kib=8, passes=1, lanes=1)


@pytest.fixture
async def passwords() -> AsyncGenerator[Passwords, None]:
    made = Passwords(CHEAP, at_once=2, waiting=2)
    async with made.running():
        yield made


async def test_a_password_is_kept_as_argon2id_with_a_salt_of_its_own(passwords: Passwords) -> None:
    first, second = await passwords.hash("correct horse"), await passwords.hash("correct horse")

    assert first.startswith("$argon2id$v=19$m=8,t=1,p=1$")
    assert first != second
    assert await passwords.verify("correct horse", first) == Verdict(True)
    assert await passwords.verify("correct horse!", first) == Verdict(False)


async def test_what_was_hashed_at_another_price_is_hashed_anew(passwords: Passwords) -> None:
    dearer = Passwords(PasswordCosts(memory_kib=16, passes=2, lanes=1), at_once=1, waiting=1)
    async with dearer.running():
        stored = await passwords.hash("correct horse")
        verdict = await dearer.verify("correct horse", stored)

        assert verdict.better_hash is not None
        assert verdict.better_hash.startswith("$argon2id$v=19$m=16,t=2,p=1$")
        assert await dearer.verify("correct horse", verdict.better_hash) == Verdict(True)
        assert (await dearer.verify("wrong horse", stored)).better_hash is None


async def test_for_nobody_the_same_work_is_done(monkeypatch: pytest.MonkeyPatch, passwords: Passwords) -> None:
    work: list[str] = []
    verify = Argon2Hasher.verify

    def counted(self: Argon2Hasher, password: Any, hash: Any) -> bool:
        work.append(str(hash).rpartition("$")[0].rpartition("$")[0])
        return verify(self, password, hash)

    stored = await passwords.hash("correct horse")
    monkeypatch.setattr(Argon2Hasher, "verify", counted)

    assert await passwords.verify("wrong horse", stored) == Verdict(False)
    assert await passwords.verify("wrong horse", None) == Verdict(False)
    assert work == ["$argon2id$v=19$m=8,t=1,p=1"] * 2


async def test_nobodys_hash_is_really_worked_on(passwords: Passwords) -> None:
    # One that cannot be read would be refused in no time.
    nobodys: str = passwords._nobodys  # pyright: ignore[reportPrivateUsage]
    stored = await passwords.hash("correct horse")

    assert [len(part) for part in nobodys.split("$")] == [len(part) for part in stored.split("$")]
    assert Argon2Hasher(1, 8, 1).check_needs_rehash(nobodys) is False


@pytest.mark.parametrize("password", ["1234567", "x" * 1025, "with\0nul in it", "lone \ud800 surrogate"])
async def test_a_password_that_cannot_be_kept_is_refused(passwords: Passwords, password: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await passwords.hash(password, field="new_password")

    assert refused.value.details == {"field": "new_password"}


async def test_letters_that_look_the_same_are_the_same(passwords: Passwords) -> None:
    stored = await passwords.hash("caf\u00e9 cr\u00e8me")

    assert (await passwords.verify("cafe\u0301 cre\u0300me", stored)).matches
    assert not (await passwords.verify("cafe creme", stored)).matches
    # What only looks alike stays apart: folding it would make guessing easier.
    assert not (await passwords.verify("\uff43af\u00e9 cr\u00e8me", stored)).matches


async def test_beyond_those_that_may_wait_people_are_asked_to_come_again(
    monkeypatch: pytest.MonkeyPatch, passwords: Passwords
) -> None:
    may_go_on = threading.Event()
    at_once, most = 0, 0
    lock = threading.Lock()

    def slow(self: Argon2Hasher, password: Any, *, salt: bytes | None = None) -> str:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        may_go_on.wait(20)
        with lock:
            at_once -= 1
        return "hash"

    monkeypatch.setattr(Argon2Hasher, "hash", slow)
    working = [asyncio.create_task(passwords.hash("correct horse")) for _ in range(4)]
    await asyncio.sleep(0)
    with pytest.raises(PasswordsBusy) as refused:
        await passwords.hash("correct horse")
    # Whoever leaves makes no room: the thread works on.
    working[0].cancel()
    await asyncio.wait(working[:1])
    with pytest.raises(PasswordsBusy):
        await passwords.hash("correct horse")

    may_go_on.set()
    assert await asyncio.gather(*working[1:]) == ["hash"] * 3
    assert refused.value.details == {"retry_after": 1}
    assert most <= 2
    assert await passwords.hash("correct horse") == "hash"
