"""The secret of a service, and what is made of it."""

import os
import secrets
import stat
import threading
from pathlib import Path

import pytest

from services.accounts.secrets import SecretKeys, SecretUnusable, kept_secret, weakness_of

OLD, NEW = "f3Jw8_qLz5nXvR2kTbYpC7dHsGmA4eUo1iKyQxW0MZt", "Nq0zJ8vYw3bTfLr6XgK1mUe9HsPd4CaI7oBxV2nS5yQ"


def test_each_purpose_has_a_key_of_its_own() -> None:
    keys = SecretKeys([NEW])
    made = [keys.derive(purpose).current for purpose in ("access tokens", "provider keys", "access tokens ")]

    assert len({key.material for key in made}) == len({key.id for key in made}) == 3
    assert all(len(key.material) == 32 for key in made)
    assert SecretKeys([NEW]).derive("access tokens").current == made[0]


def test_the_newest_secret_makes_and_all_are_accepted() -> None:
    ring = SecretKeys([NEW, OLD]).derive("x")
    before = SecretKeys([OLD]).derive("x").current

    assert ring.current == SecretKeys([NEW]).derive("x").current
    assert ring.find(before.id) == before
    assert ring.find("another") is None
    assert [key.id for key in ring] == [ring.current.id, before.id]
    assert len(ring) == 2


def test_no_key_shows_itself() -> None:
    key = SecretKeys([NEW]).derive("x").current

    assert repr(key) == f"Key(id={key.id!r})"
    assert NEW not in repr(SecretKeys([NEW]))


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "short",
        "x" * 31,
        "a" * 64,
        "ab" * 32,
        "0123456789" * 4,
        "changemechangemechangemechangeme!",
        "CHANGE_ME_please_this_is_32_bytes_long",
        "your-secret-key-your-secret-key-here-x",
        "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7-example",
        "super-secret-jwt-key-for-development-only",
        "insecure-development-token-0987654321",
        "replace-this-with-32-random-characters",
        "my_password_is_very_long_and_good_92",
        "abcdefghijklmnopqrstuvwxyz0123456789",
        "aaaaaaaaaaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbbbbbbbbb",
        "d7f" * 20,
    ],
)
def test_a_secret_that_can_be_guessed_is_weak(secret: str) -> None:
    assert weakness_of(secret) is not None


def test_random_secrets_are_strong_in_whatever_letters() -> None:
    made = [make(32) for make in (secrets.token_hex, secrets.token_urlsafe) for _ in range(500)]
    made += [secrets.token_hex(16) for _ in range(500)]

    assert [secret for secret in made if weakness_of(secret)] == []


def test_a_secret_is_made_once_and_kept_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "data" / "secret_key"

    made = kept_secret(path)

    assert kept_secret(path) == made
    assert weakness_of(made) is None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [file.name for file in path.parent.iterdir()] == ["secret_key"]
    assert kept_secret(tmp_path / "other") != made


def test_all_that_start_at_once_have_one_secret(tmp_path: Path) -> None:
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(kept_secret(tmp_path / "secret_key"))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 16
    assert len(set(found)) == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o777])
def test_a_secret_that_others_could_read_is_not_used(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "secret_key"
    kept_secret(path)
    path.chmod(mode)

    with pytest.raises(SecretUnusable, match="chmod 600"):
        kept_secret(path)


@pytest.mark.parametrize("text", ["", "short\n", "a" * 64])
def test_a_file_without_a_good_secret_is_not_used(tmp_path: Path, text: str) -> None:
    path = tmp_path / "secret_key"
    path.write_text(text)
    path.chmod(0o600)

    with pytest.raises(SecretUnusable, match="Delete the file"):
        kept_secret(path)


def test_a_link_to_another_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text(NEW)
    (tmp_path / "secret_key").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(SecretUnusable, match="cannot be read"):
        kept_secret(tmp_path / "secret_key")


def test_a_secret_that_cannot_be_kept_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(SecretUnusable, match="set SECRET_KEY"):
        kept_secret(tmp_path / "file" / "secret_key")
    assert os.listdir(tmp_path) == ["file"]
