"""Everything an operator can set: read from the environment and `.env` here, and nowhere else.

Names have no prefix; a group's settings are written GROUP__NAME. `.env.example` is made from this file
(`make env-example`): the text under a field is its explanation there.
"""

import difflib
import ipaddress
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    PositiveInt,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from api.logs import LogFormat
from api.setting_groups import Context, Journal, Limits, SandboxLimits, SettingGroup, Timeouts, Titles

OpenAIApi = Literal["chat_completions", "responses"]


class BadSettings(Exception):
    """The settings cannot be used. The message has one line per problem, naming the setting."""


def _origin(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.path or parts.query or parts.fragment:
        raise ValueError(f"{text!r} is not an origin such as https://chat.example.org (no path, no final slash)")
    return text.lower()


def _http_address(text: str) -> str:
    if urlsplit(text).scheme not in ("http", "https") or not urlsplit(text).netloc:
        raise ValueError("must start with http:// or https://")
    return text.rstrip("/")


def _split(value: object) -> object:
    return tuple(word for part in value.split(",") if (word := part.strip())) if isinstance(value, str) else value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


HttpAddress = Annotated[str, AfterValidator(_http_address)]
Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Origins = Annotated[tuple[Annotated[str, AfterValidator(_origin)], ...], NoDecode, BeforeValidator(_split)]


class Settings(BaseSettings):
    """The settings of one process. Made by `load_settings`."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8",
        env_nested_delimiter="__",
        env_ignore_empty=True,  # `NAME=` in a file means that it is not set
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,  # a mistyped line may hold a key
        use_attribute_docstrings=True,
    )

    host: str = "127.0.0.1"
    """Where to listen."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """0 takes any free port."""
    data_dir: Path = Path(".data")
    """The embedded database and files; readable by nobody else."""
    database_url: SecretStr | None = None
    """A PostgreSQL (15 or newer) to use instead of the embedded one: postgresql://user:password@host/database"""
    pg_bin: Path | None = None
    """The directory of `postgres` and `initdb`, if the embedded database shall use others than it finds."""
    auth_mode: Literal["local"] = "local"
    """local: no logins; whoever reaches the port is the owner, so only this machine may reach it."""
    allowed_origins: Origins = ()
    """Other web sites whose pages may use this service, separated by commas."""
    trusted_hosts: Words = ()
    """Further names under which browsers reach this service, separated by commas."""
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = "info"
    """How much to tell: debug, info, warning or error."""
    log_format: Annotated[LogFormat, BeforeValidator(_lower)] = "auto"
    """json (an object a line), console (for people), or auto: console at a terminal, json elsewhere."""
    audit_days: PositiveInt = 365
    """How long entries of the audit log are kept, in days."""
    first_run_content: bool = True
    """Give an owner who has made nothing yet a persona with some modules to look at. It happens once."""
    mcp_config: Path | None = None
    """The file that says which tool servers there are; otherwise mcp.json if there is one here, else the built-in."""

    default_provider: Annotated[Literal["openai", "azure", "ollama", "demo"] | None, BeforeValidator(_lower)] = None
    """Which of the model servers answers when nobody chose; otherwise the first that is found."""
    openai_api_key: SecretStr | None = None
    """The key for OpenAI or a compatible server."""
    openai_base_url: HttpAddress | None = None
    """A compatible server instead of OpenAI's own, up to and including /v1."""
    openai_default_model: str | None = None
    """The model to use when nobody chose."""
    openai_api: OpenAIApi = "chat_completions"
    """chat_completions (every compatible server has it) or responses."""
    azure_openai_endpoint: HttpAddress | None = None
    """The address of an Azure OpenAI resource."""
    azure_openai_api_key: SecretStr | None = None
    """Its key."""
    azure_openai_api_version: str | None = None
    """Its API version."""
    azure_openai_deployment: str | None = None
    """The deployment to use when nobody chose."""
    azure_openai_api: OpenAIApi = "chat_completions"
    """chat_completions or responses."""
    ollama_host: str | None = None
    """Where Ollama is; otherwise it is looked for on this machine."""
    ollama_default_model: str | None = None
    """The model to use when nobody chose."""
    ollama_num_ctx: PositiveInt = 8192
    """The context window that Ollama is asked to provide, in tokens. More needs more memory."""

    limits: Limits = Limits()
    timeouts: Timeouts = Timeouts()
    journal: Journal = Journal()
    context: Context = Context()
    titles: Titles = Titles()
    sandbox: SandboxLimits = SandboxLimits()

    @field_validator("auth_mode", mode="before")
    @classmethod
    def _only_local_yet(cls, value: object) -> object:
        if value == "accounts":
            raise ValueError("accounts do not exist yet; the only mode is local")
        return value

    @field_validator("database_url")
    @classmethod
    def _is_postgresql(cls, value: SecretStr | None) -> SecretStr | None:
        if value and urlsplit(value.get_secret_value()).scheme not in ("postgresql", "postgres"):
            raise ValueError("must start with postgresql://")
        return value

    @model_validator(mode="after")
    def _default_provider_is_configured(self) -> Self:
        if self.default_provider == "openai" and not (self.openai_api_key or self.openai_base_url):
            raise ValueError("DEFAULT_PROVIDER=openai needs OPENAI_API_KEY or OPENAI_BASE_URL")
        if self.default_provider == "azure" and not self.azure_openai_endpoint:
            raise ValueError("DEFAULT_PROVIDER=azure needs AZURE_OPENAI_ENDPOINT")
        return self

    @model_validator(mode="after")
    def _local_stays_on_this_machine(self) -> Self:
        if self.auth_mode == "local" and not _is_loopback(self.host):
            raise ValueError(
                f"HOST={self.host} is refused with AUTH_MODE=local: there are no logins, so everybody who can reach "
                "that address could read and write every conversation. Use 127.0.0.1, ::1 or localhost."
            )
        return self


def load_settings(env_file: Path | None = Path(".env")) -> Settings:
    """The settings of the environment, then of `env_file`, then the defaults. Raises BadSettings."""
    try:
        # The file is an argument of pydantic's own, which its type does not show.
        return Settings(_env_file=env_file)  # pyright: ignore[reportCallIssue]
    except ValidationError as error:
        problems = [_explain(problem) for problem in error.errors(include_input=False, include_url=False)]
        raise BadSettings("\n".join(problems)) from None
    except SettingsError as error:
        raise BadSettings(str(error)) from None


def setting_names() -> list[str]:
    """Every name that can stand in the environment, as it is written there."""
    return [name for name, _ in _leaves(Settings, "")]


def _leaves(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, Any]]:
    for field_name, field in model.model_fields.items():
        name = (prefix + field_name).upper()
        if isinstance(field.default, SettingGroup):
            yield from _leaves(type(field.default), f"{name}__")
        else:
            yield name, field


def _explain(problem: ErrorDetails) -> str:
    name = "__".join(str(part) for part in problem["loc"]).upper()
    if problem["type"] != "extra_forbidden":
        message = problem["msg"].removeprefix("Value error, ")
        return f"{name}: {message}" if name else message
    similar = difflib.get_close_matches(name, setting_names(), n=1)
    return f"{name}: there is no such setting." + (f" Did you mean {similar[0]}?" if similar else "")


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
