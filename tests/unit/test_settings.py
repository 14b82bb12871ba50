"""What an operator can rely on when writing settings."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from api.env_example import env_example
from api.settings import BadSettings, Settings, load_settings, setting_names

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in setting_names():
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    return tmp_path / ".env"


def refusal(env_file: Path | None = None) -> str:
    with pytest.raises(BadSettings) as refused:
        load_settings(env_file)
    return str(refused.value)


def test_without_any_setting_it_serves_this_machine_only() -> None:
    settings = load_settings(None)

    assert (settings.host, settings.port, settings.database_url) == ("127.0.0.1", 8000, None)


def test_the_environment_goes_before_the_file(env_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env_file.write_text("PORT=1111\nLOG_LEVEL=DEBUG\n")
    monkeypatch.setenv("PORT", "2222")

    settings = load_settings(env_file)

    assert (settings.port, settings.log_level) == (2222, "debug")


def test_one_setting_of_a_group_leaves_its_others_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMITS__FRAME_BYTES", "1000")
    monkeypatch.setenv("TIMEOUTS__LEASE", "0.5")

    settings = load_settings(None)

    assert settings.limits.frame_bytes == 1000
    assert settings.limits.max_turns == 25
    assert settings.timeouts.lease == 0.5


def test_an_unknown_name_in_the_file_is_refused_with_a_suggestion(env_file: Path) -> None:
    env_file.write_text("OPENAI_API_KEYS=sk-secret\n")

    message = refusal(env_file)

    assert message == "OPENAI_API_KEYS: there is no such setting. Did you mean OPENAI_API_KEY?"


def test_an_unknown_group_in_the_file_is_refused_with_a_suggestion(env_file: Path) -> None:
    env_file.write_text("LIMIT__FRAME_BYTES=1\n")

    assert "LIMIT__FRAME_BYTES: there is no such setting. Did you mean LIMITS__FRAME_BYTES?" in refusal(env_file)


def test_an_unknown_name_in_a_group_is_refused_from_the_environment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMITS__FRAMES_BYTES", "1")

    assert refusal() == "LIMITS__FRAMES_BYTES: there is no such setting. Did you mean LIMITS__FRAME_BYTES?"


def test_a_name_like_no_other_gets_no_suggestion(env_file: Path) -> None:
    env_file.write_text("XYZZY=1\n")

    assert refusal(env_file) == "XYZZY: there is no such setting."


def test_every_problem_is_told_at_once(env_file: Path) -> None:
    env_file.write_text("PORT=many\nLIMITS__POOL_SIZE=0\n")

    message = refusal(env_file)

    assert "PORT: " in message
    assert "LIMITS__POOL_SIZE: " in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("LIMITS__BODY_BYTES", "0"),
        ("TIMEOUTS__RUN", "0"),
        ("TIMEOUTS__RUN", "nan"),
        ("TIMEOUTS__RUN", "inf"),
        ("JOURNAL__RETENTION_HOURS", "-1"),
        ("OPENAI_API", "completions"),
        ("OPENAI_BASE_URL", "localhost:8080/v1"),
        ("DATABASE_URL", "mysql://localhost/x"),
        ("ALLOWED_ORIGINS", "https://example.org/path"),
        ("LOG_LEVEL", "loud"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)

    assert refusal().startswith(f"{name}: ") or f"{name}__" in refusal()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_without_logins_this_machine_may_be_served(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("HOST", host)

    assert load_settings(None).host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "chat.example.org", ""])
def test_without_logins_other_machines_are_refused_and_told_why(env_file: Path, host: str) -> None:
    env_file.write_text(f"HOST={host}\n")
    if host:
        assert "there are no logins" in refusal(env_file)
    else:  # not set
        assert load_settings(env_file).host == "127.0.0.1"


@pytest.mark.parametrize("name", ["openai", "azure"])
def test_a_default_provider_that_is_not_configured_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("DEFAULT_PROVIDER", name)
    with pytest.raises(BadSettings, match=f"DEFAULT_PROVIDER={name} needs"):
        load_settings(None)


def test_lists_are_written_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLOWED_ORIGINS", "https://A.example, http://b.example:8080,")
    monkeypatch.setenv("TRUSTED_HOSTS", "chat.example")

    settings = load_settings(None)

    assert settings.allowed_origins == ("https://a.example", "http://b.example:8080")
    assert settings.trusted_hosts == ("chat.example",)


def test_keys_are_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:sk-secret@127.0.0.1/x")

    assert "sk-secret" not in repr(load_settings(None))


def test_a_refused_value_is_not_repeated_because_it_may_be_a_key(env_file: Path) -> None:
    env_file.write_text("PORT=sk-secret\nOPENAI_API=sk-secret\n")

    assert "sk-secret" not in refusal(env_file)


def test_env_example_is_up_to_date() -> None:
    assert (ROOT / ".env.example").read_text() == env_example(), "run `make env-example`"


def test_env_example_with_every_line_taken_in_means_the_defaults(env_file: Path) -> None:
    lines = env_example().splitlines()
    env_file.write_text("\n".join(line[1:] for line in lines if line.startswith("#") and line[1:2] not in ("", " ")))

    assert load_settings(env_file) == Settings.model_construct()
    assert isinstance(load_settings(env_file).openai_api_key, SecretStr | None)


STRONG = "Nq0zJ8vYw3bTfLr6XgK1mUe9HsPd4CaI7oBxV2nS5yQ"
STRONGER = "f3Jw8_qLz5nXvR2kTbYpC7dHsGmA4eUo1iKyQxW0MZt"


def settings_of(monkeypatch: pytest.MonkeyPatch, **named: str) -> Settings:
    for name, value in named.items():
        monkeypatch.setenv(name, value)
    return load_settings(None)


def test_with_accounts_any_address_may_be_listened_on(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(
        monkeypatch, AUTH_MODE="Accounts", HOST="0.0.0.0", TRUSTED_HOSTS="chat.example.org", REGISTRATION="INVITE"
    )

    assert (settings.auth_mode, settings.registration) == ("accounts", "invite")


def test_without_accounts_no_other_machine_gets_in(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadSettings, match=r"HOST=0\.0\.0\.0 is refused with AUTH_MODE=local"):
        settings_of(monkeypatch, HOST="0.0.0.0", TRUSTED_HOSTS="chat.example.org")


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_service_for_all_says_what_it_is_called(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    with pytest.raises(BadSettings, match="needs TRUSTED_HOSTS"):
        settings_of(monkeypatch, AUTH_MODE="accounts", HOST=host)


def test_secrets_are_a_ring_newest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings_of(monkeypatch, SECRET_KEY=f"{STRONG} , {STRONGER}").secret_keys == (STRONG, STRONGER)
    assert settings_of(monkeypatch, SECRET_KEY="").secret_keys == ()


@pytest.mark.parametrize(
    ("secret", "why"),
    [
        ("short", "shorter than 32 bytes"),
        ("ab" * 20, "not random enough"),
        ("please-change-me-please-change-me-please", "placeholder"),
        (f"{STRONG},short", "shorter than 32 bytes"),
        (f"{STRONG},{STRONG}", "the same secret twice"),
    ],
)
def test_a_secret_that_can_be_guessed_is_refused_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, secret: str, why: str
) -> None:
    monkeypatch.setenv("SECRET_KEY", secret)

    told = refusal()

    assert told.startswith("SECRET_KEY: ")
    assert why in told
    assert STRONG not in told


def test_a_secret_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert STRONG not in repr(settings_of(monkeypatch, SECRET_KEY=STRONG))


@pytest.mark.parametrize("origin", ["*", "https://*", "https://*.example.org"])
def test_no_pages_of_all_the_world_are_let_in(monkeypatch: pytest.MonkeyPatch, origin: str) -> None:
    monkeypatch.setenv("ALLOWED_ORIGINS", origin)

    assert "names each site" in refusal()


@pytest.mark.parametrize("host", ["*", "*.example.org", "https://chat.example.org", "chat.example.org/path"])
def test_a_trusted_host_is_a_name(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("TRUSTED_HOSTS", host)

    assert "is not a name such as chat.example.org" in refusal()


@pytest.mark.parametrize("network", ["0.0.0.0/0", "::/0"])
def test_nobody_can_be_told_to_trust_everybody_as_a_proxy(monkeypatch: pytest.MonkeyPatch, network: str) -> None:
    monkeypatch.setenv("TRUSTED_PROXIES", network)
    with pytest.raises(BadSettings, match="everybody"):
        load_settings(None)


def test_passwords_have_memory_for_their_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSWORDS__LANES", "16")
    monkeypatch.setenv("PASSWORDS__MEMORY_KIB", "127")
    with pytest.raises(BadSettings, match="LANES=16"):
        load_settings(None)


def test_trusted_proxies_are_addresses_or_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(monkeypatch, TRUSTED_PROXIES="10.1.2.3/8, ::1,192.0.2.7")
    assert settings.trusted_proxies == ("10.0.0.0/8", "::1/128", "192.0.2.7/32")

    monkeypatch.setenv("TRUSTED_PROXIES", "proxy.example.org")
    assert "'proxy.example.org' is no address or network" in refusal()
