"""What an operator is told before it is too late, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from api.cautions import check_surroundings
from api.settings import BadSettings, load_settings
from tests.service import local_settings


@pytest.fixture(autouse=True)
def somebody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


def cautions(data_dir: Path, **settings: Any) -> list[str]:
    return check_surroundings(local_settings(data_dir=data_dir, **settings))


def test_the_defaults_on_a_laptop_need_no_caution(data_dir: Path) -> None:
    assert cautions(data_dir) == []
    assert cautions(data_dir / "not there yet") == []


def test_root_is_told_that_it_is_root(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert "as root" in cautions(data_dir)[0]


def test_a_data_directory_that_others_can_look_into_is_named(data_dir: Path) -> None:
    data_dir.chmod(0o755)
    assert f"chmod 700 {data_dir}" in cautions(data_dir)[0]


def test_a_data_directory_that_others_can_write_into_is_refused(data_dir: Path) -> None:
    data_dir.chmod(0o777)
    with pytest.raises(BadSettings, match="DATA_DIR: everybody"):
        cautions(data_dir)


@pytest.mark.parametrize(
    ("url", "is_told"),
    [
        ("postgresql://me@db.example.org/x", True),
        ("postgresql://me@10.0.0.5/x?sslmode=prefer", True),
        ("postgresql://me@10.0.0.5/x?sslmode=disable", True),
        ("postgresql://me@10.0.0.5/x?sslmode=require", False),
        ("postgresql://me@db.example.org/x?sslmode=verify-full", False),
        ("postgresql://me@127.0.0.1/x", False),
        ("postgresql://me@db/x", False),
        ("postgresql://me@/x?host=/var/run/postgresql", False),
    ],
)
def test_a_database_elsewhere_without_tls_is_named(data_dir: Path, url: str, is_told: bool) -> None:
    told = cautions(data_dir, database_url=url)
    assert [line for line in told if "sslmode=verify-full" in line] == told
    assert bool(told) is is_told


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"timeouts": {"drain": 85}}, "TIMEOUTS__DRAIN=85"),
        ({"timeouts": {"lease": 0.5}}, "TIMEOUTS__LEASE=0.5"),
        ({"limits": {"pool_size": 2}}, "LIMITS__POOL_SIZE=2"),
        ({"database_url": "postgresql://me@db/x", "journal": {"durable": False}}, "JOURNAL__DURABLE=false"),
    ],
)
def test_a_number_that_will_hurt_is_named_with_the_reason(data_dir: Path, settings: dict[str, Any], name: str) -> None:
    (told,) = cautions(data_dir, **settings)
    assert told.startswith(f"{name}: ")


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"allowed_private_hosts": ("10.0.0.7", "0.0.0.0/0")}, "ALLOWED_PRIVATE_HOSTS"),
        ({"passwords": {"memory_kib": 8}}, "PASSWORDS__MEMORY_KIB=8"),
    ],
)
def test_what_gives_users_too_much_is_named_with_the_reason(
    data_dir: Path, settings: dict[str, Any], name: str
) -> None:
    (told,) = cautions(data_dir, auth_mode="accounts", **settings)
    assert told.startswith(f"{name}: ")
    assert cautions(data_dir, auth_mode="accounts", allowed_private_hosts=("10.0.0.0/8",)) == []


def test_a_service_that_strangers_can_reach_is_told_what_that_means(data_dir: Path) -> None:
    public = {"auth_mode": "accounts", "host": "0.0.0.0", "trusted_hosts": ("chat.example.org",)}
    assert [line.split()[0] for line in cautions(data_dir, **public)] == ["HOST=0.0.0.0", "REGISTRATION=open:"]
    behind = {"trusted_proxies": ("10.0.0.1",), "registration": "invite"}
    assert cautions(data_dir, **public, **behind) == []


def test_a_secret_may_lie_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "key"
    file.write_text("sk-from-a-file\n")
    monkeypatch.setenv("OPENAI_API_KEY_FILE", str(file))
    key = load_settings(None).openai_api_key
    assert key is not None
    assert key.get_secret_value() == "sk-from-a-file"


def test_a_file_that_cannot_be_read_is_named_and_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY_FILE", str(tmp_path / "missing"))
    with pytest.raises(BadSettings, match="OPENAI_API_KEY_FILE cannot be read: No such file"):
        load_settings(None)


def test_a_secret_and_a_file_for_it_are_one_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY_FILE", str(tmp_path / "key"))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-other")
    with pytest.raises(BadSettings, match="is set too"):
        load_settings(None)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("postgresql://me@db/x", "postgresql://me:p%40ss%2Fword@db/x"),
        ("postgresql://me:own@db/x", "postgresql://me:own@db/x"),
        ("postgresql://me@db:6432/x?sslmode=require", "postgresql://me:p%40ss%2Fword@db:6432/x?sslmode=require"),
    ],
)
def test_the_password_of_the_database_may_come_apart_from_its_address(url: str, address: str) -> None:
    assert local_settings(database_url=url, database_password="p@ss/word").database_address == address
