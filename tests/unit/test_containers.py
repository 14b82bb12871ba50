"""The container image and the stack around it, as far as can be told without an engine that runs them."""

import fnmatch
import re
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from api.compose_secrets import make_secrets
from api.setting_groups import Timeouts
from api.settings import Settings, load_settings, setting_names

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
STACK: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = STACK["services"]
OURS = ("api", "db")


def instructions(name: str) -> list[str]:
    whole = DOCKERFILE.replace("\\\n", " ")
    return re.findall(rf"^(?:\s*){name} (.*)$", whole, re.MULTILINE)


def copied() -> list[str]:
    """What of the checkout goes into the image."""
    return [word for line in instructions("COPY") if not line.startswith("--from") for word in line.split()[:-1]]


def test_the_image_has_all_floors_and_nothing_that_is_not_there() -> None:
    assert {"api", "services", "websocket", "db", "requirements/runtime.txt"} <= set(copied())
    assert [path for path in copied() if not (ROOT / path).exists()] == []


def test_whatever_is_copied_is_let_through_and_nothing_else() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    allowed = [line[1:] for line in lines if line.startswith("!")]
    assert sorted(allowed) == sorted(copied())
    assert not any(fnmatch.fnmatch(secret, pattern) for secret in (".env", "secrets", ".data") for pattern in allowed)


def test_the_image_runs_as_nobody_in_particular_and_without_a_shell() -> None:
    assert instructions("USER") == ["10001:10001"]
    assert instructions("ENTRYPOINT") == ['["python", "-m", "api"]']
    assert instructions("STOPSIGNAL") == ["SIGTERM"]
    assert instructions("VOLUME") == ["/data"]
    assert "/readyz" in instructions("HEALTHCHECK")[0]
    assert "CMD [" in instructions("HEALTHCHECK")[0]


def test_packages_come_from_locks_with_hashes_only() -> None:
    installs = re.findall(r"(pip install|pip sync) ([^&]*)", DOCKERFILE.replace("\\\n", " "))
    assert len(installs) == 2
    assert all("--require-hashes" in words for _, words in installs)


@pytest.mark.parametrize("name", OURS)
def test_our_services_can_write_nowhere_and_become_nobody_else(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["user"] not in ("root", "0", "0:0")
    assert {"cpus", "memory", "pids"} == service["deploy"]["resources"]["limits"].keys()


def test_only_this_machine_reaches_the_stack_and_nobody_its_database() -> None:
    ports = {name: service.get("ports", []) for name, service in SERVICES.items()}
    assert all(port.startswith("127.0.0.1:") for published in ports.values() for port in published)
    assert not ports["db"]
    assert SERVICES["db"]["networks"] == ["back"]
    assert STACK["networks"]["back"] == {"internal": True}


def test_the_service_waits_for_its_database_and_may_take_its_time_to_stop() -> None:
    assert SERVICES["api"]["depends_on"]["db"]["condition"] == "service_healthy"
    assert "healthcheck" in SERVICES["db"]
    assert float(SERVICES["api"]["stop_grace_period"].removesuffix("s")) > Timeouts().drain + 10


def test_what_runs_beside_it_runs_only_when_asked_for() -> None:
    assert {name: service.get("profiles") for name, service in SERVICES.items() if name not in OURS} == {
        "ollama": ["ollama", "openwebui"],
        "openwebui": ["openwebui"],
    }


def test_no_secret_stands_in_the_stack_and_every_setting_exists() -> None:
    environment: dict[str, Any] = SERVICES["api"]["environment"]
    names = {name.removesuffix("_FILE") for name in environment}
    assert names <= set(setting_names())
    for secret in ("DATABASE_PASSWORD", "SECRET_KEY"):
        assert environment[f"{secret}_FILE"] == f"/run/secrets/{secret.lower()}"
    assert re.search(r"://[^@/]*:[^@/]*@", (ROOT / "docker-compose.yml").read_text()) is None


def test_the_stack_and_the_image_give_settings_that_can_be_served_with(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    make_secrets(tmp_path)
    environment: dict[str, Any] = SERVICES["api"]["environment"]
    for name in setting_names():
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        written = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value))
        monkeypatch.setenv(name, written.replace("/run/secrets", str(tmp_path)))

    settings = load_settings(None)

    assert isinstance(settings, Settings)
    password = (tmp_path / "database_password").read_text().strip()
    assert settings.database_address == f"postgresql://colloquy:{password}@db/colloquy"
    assert settings.secret_keys == ((tmp_path / "secret_key").read_text().strip(),)
    image = dict(re.findall(r"([A-Z_]+)=(\S+)", " ".join(instructions("ENV"))))
    assert {name: image[name] for name in ("HOST", "PORT", "DATA_DIR", "AUTH_MODE")} == {
        name: str(environment[name]) for name in ("HOST", "PORT", "DATA_DIR", "AUTH_MODE")
    }


def test_secrets_are_made_once_in_a_folder_that_keeps_others_out(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    assert [path.name for path in make_secrets(folder)] == ["database_password", "secret_key"]
    before = [path.read_text() for path in sorted(folder.iterdir())]
    assert make_secrets(folder) == []
    assert [path.read_text() for path in sorted(folder.iterdir())] == before
    assert len(set(before)) == 2
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
