"""Everything an operator can set: read from the environment and `.env` here, and nowhere else.

Names have no prefix; a group's settings are written GROUP__NAME. `.env.example` is made from this file
(`make env-example`): the text under a field is its explanation there.
"""

import difflib
import ipaddress
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import quote, urlsplit, urlunsplit

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
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from api.logs import LogFormat
from api.setting_files import SecretFiles
from api.setting_groups import (
    Context,
    Guessing,
    Journal,
    Limits,
    Passwords,
    SandboxLimits,
    SettingGroup,
    Timeouts,
    Titles,
    Tokens,
)
from services.accounts.secrets import SHORTEST_SECRET, weakness_of
from services.connections.addresses import AddressRules

OpenAIApi = Literal["chat_completions", "responses"]

_ANY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - to ask for a name there, not to listen


class BadSettings(Exception):
    """The settings cannot be used. The message has one line per problem, naming the setting."""


def _origin(text: str) -> str:
    if "*" in text:
        raise ValueError("names each site: with a * any page in the world could act for whoever opens it")
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.path or parts.query or parts.fragment:
        raise ValueError(f"{text!r} is not an origin such as https://chat.example.org (no path, no final slash)")
    return text.lower()


def _host(text: str) -> str:
    if "*" in text or "/" in text:
        raise ValueError(f"{text!r} is not a name such as chat.example.org, with a port or without")
    return text


def _http_address(text: str) -> str:
    if urlsplit(text).scheme not in ("http", "https") or not urlsplit(text).netloc:
        raise ValueError("must start with http:// or https://")
    return text.rstrip("/")


def _network(text: str) -> str:
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise ValueError(f"{text!r} is no address or network such as 10.0.0.0/8") from error
    if network.prefixlen == 0:
        raise ValueError(
            f"{text} is everybody: whoever likes could choose the address that attempts to sign in are counted by"
        )
    return str(network)


def _place(text: str) -> str:
    AddressRules((text,))
    return text


def _split(text: str) -> tuple[str, ...]:
    return tuple(word for part in text.split(",") if (word := part.strip()))


def _listed(value: object) -> object:
    return _split(value) if isinstance(value, str) else value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


HttpAddress = Annotated[str, AfterValidator(_http_address)]
Hosts = Annotated[tuple[Annotated[str, AfterValidator(_host)], ...], NoDecode, BeforeValidator(_listed)]
Origins = Annotated[tuple[Annotated[str, AfterValidator(_origin)], ...], NoDecode, BeforeValidator(_listed)]
Places = Annotated[tuple[Annotated[str, AfterValidator(_place)], ...], NoDecode, BeforeValidator(_listed)]
Networks = Annotated[tuple[Annotated[str, AfterValidator(_network)], ...], NoDecode, BeforeValidator(_listed)]


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
    serve_docs: bool = True
    """Show the REST interface at /docs, /openapi.json and /asyncapi.json, to be read and tried out."""
    data_dir: Path = Path(".data")
    """The embedded database, files and the secret key; readable by nobody else."""
    database_url: SecretStr | None = None
    """A PostgreSQL (15 or newer) to use instead of the embedded one: postgresql://user:password@host/database"""
    database_password: SecretStr | None = None
    """Its password, where DATABASE_URL names none."""
    pg_bin: Path | None = None
    """The directory of `postgres` and `initdb`, if the embedded database shall use others than it finds."""
    auth_mode: Annotated[Literal["local", "accounts"], BeforeValidator(_lower)] = "local"
    """local: no logins; whoever reaches the port is the owner, so only this machine may reach it. accounts: people
    register and sign in."""
    registration: Annotated[Literal["open", "invite", "closed"], BeforeValidator(_lower)] = "open"
    """Who may register with AUTH_MODE=accounts: anybody (open), whom an administrator invited (invite), or nobody
    (closed). The first account is the administrator's."""
    secret_key: SecretStr | None = None
    """What access tokens are signed with and saved keys are encrypted with: at least 32 random bytes. Otherwise one is
    made and kept in DATA_DIR. To change it, put the new one before the old one, with a comma."""
    trusted_proxies: Networks = ()
    """Addresses or networks (CIDR) of proxies whose X-Forwarded-For and X-Forwarded-Proto are believed, separated by
    commas."""
    allowed_origins: Origins = ()
    """Other web sites whose pages may use this service, separated by commas."""
    trusted_hosts: Hosts = ()
    """Further names under which browsers reach this service, separated by commas."""
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = "info"
    """How much to tell: debug, info, warning or error."""
    log_format: Annotated[LogFormat, BeforeValidator(_lower)] = "auto"
    """json (an object a line), console (for people), or auto: console at a terminal, json elsewhere."""
    metrics_token: Annotated[SecretStr, Field(min_length=16)] | None = None
    """What `/metrics` wants to be shown as a bearer token; without it only administrators may read there."""
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

    allowed_private_hosts: Places | None = None
    """Where connections of users may lead although it is not public, separated by commas: names, addresses or networks,
    with a port or without; otherwise this machine in local mode, and nothing with accounts."""

    tokens: Tokens = Tokens()
    passwords: Passwords = Passwords()
    guessing: Guessing = Guessing()
    limits: Limits = Limits()
    timeouts: Timeouts = Timeouts()
    journal: Journal = Journal()
    context: Context = Context()
    titles: Titles = Titles()
    sandbox: SandboxLimits = SandboxLimits()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, SecretFiles(settings_cls), dotenv_settings

    @property
    def database_address(self) -> str | None:
        """DATABASE_URL, with the password that was given apart from it."""
        if self.database_url is None:
            return None
        url = self.database_url.get_secret_value()
        parts = urlsplit(url)
        if self.database_password is None or parts.password is not None:
            return url
        user, at, host = parts.netloc.rpartition("@")
        password = quote(self.database_password.get_secret_value(), safe="")
        return urlunsplit(parts._replace(netloc=f"{user}:{password}{at or '@'}{host}"))

    @property
    def is_for_this_machine(self) -> bool:
        """Whether nobody from elsewhere comes in, not even through a proxy."""
        return _is_loopback(self.host) and not self.trusted_hosts

    @property
    def secret_keys(self) -> tuple[str, ...]:
        """The operator's secrets, newest first; none if one is to be kept in `data_dir`."""
        return _split(self.secret_key.get_secret_value()) if self.secret_key else ()

    @field_validator("secret_key")
    @classmethod
    def _is_a_secret(cls, value: SecretStr | None) -> SecretStr | None:
        secrets = _split(value.get_secret_value()) if value else ()
        for secret in secrets:
            weakness = weakness_of(secret)
            if weakness is not None:
                raise ValueError(
                    f"{weakness}, and whoever finds it out can sign in as anybody. Take {SHORTEST_SECRET} random bytes "
                    "or more, such as `openssl rand -base64 48` prints, or leave it out."
                )
        if len(set(secrets)) < len(secrets):
            raise ValueError("names the same secret twice")
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
                "that address could read and write every conversation. Use 127.0.0.1, ::1 or localhost, or "
                "AUTH_MODE=accounts."
            )
        return self

    @model_validator(mode="after")
    def _is_known_by_name(self) -> Self:
        if self.auth_mode == "accounts" and self.host in _ANY_ADDRESS and not self.trusted_hosts:
            raise ValueError(
                f"HOST={self.host} needs TRUSTED_HOSTS, the name under which browsers reach this service: without it "
                "any site could point a name of its own here and act with what its visitors have."
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
