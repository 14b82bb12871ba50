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
    ConfigDict,
    Field,
    PositiveInt,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

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


Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
HttpAddress = Annotated[str, AfterValidator(_http_address)]
Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Origins = Annotated[tuple[Annotated[str, AfterValidator(_origin)], ...], NoDecode, BeforeValidator(_split)]


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Limits(_Group):
    """How much is too much."""

    frame_bytes: PositiveInt = 65_536
    """The largest WebSocket message taken from a client."""
    frames_per_minute: PositiveInt = 600
    """Frames that one user may send in a minute, on all sockets together."""
    connections_per_user: PositiveInt = 200
    """Sockets that one user may have open."""
    runs_per_user: PositiveInt = 100
    """Replies of one user that may be in the making at once."""
    queued_per_session: PositiveInt = 20
    """Messages that may wait in a session for the reply before them."""
    body_bytes: PositiveInt = 1_048_576
    """The largest body of an HTTP request."""
    import_bytes: PositiveInt = 16_777_216
    """The largest document to be imported: personas and modules, or a session."""
    image_bytes: PositiveInt = 5_242_880
    """The largest picture to be uploaded, as a file."""
    image_pixels: PositiveInt = 25_000_000
    """The largest picture to be uploaded, unpacked."""
    images_per_user: PositiveInt = 500
    """Pictures that one user may keep."""
    file_bytes: PositiveInt = 26_214_400
    """The largest file to be uploaded into a session."""
    files_per_session: PositiveInt = 200
    """Files that one session may have."""
    file_bytes_per_user: PositiveInt = 2_147_483_648
    """Bytes that all files of one user may have."""
    file_characters: PositiveInt = 1_000_000
    """What is read of one document; the rest is left out."""
    file_unpacked_bytes: PositiveInt = 104_857_600
    """What may be unpacked of one document."""
    reading_memory_mib: PositiveInt = 1024
    """Memory of the process that reads a document or paints a picture."""
    reading_at_once: PositiveInt = 2
    """Such processes at once; further files wait."""
    message_bytes: PositiveInt = 262_144
    """The longest message of a user, in UTF-8."""
    backlog_bytes: PositiveInt = 1_048_576
    """What may wait for one slow reader before it is disconnected (nothing is lost: it reads on when it is back)."""
    reply_bytes: PositiveInt = 4_194_304
    """The longest reply, in UTF-8."""
    max_turns: PositiveInt = 25
    """Calls to the model within one reply; in the last of them it has to do without tools."""
    tools_per_run: PositiveInt = 100
    """Tools that a model is offered."""
    tool_calls_at_once: PositiveInt = 8
    """Calls of tools that one reply makes side by side; further ones wait."""
    tool_calls_per_turn: PositiveInt = 50
    """Calls that a model may ask for in one go; those beyond are not made."""
    tool_calls_per_run: PositiveInt = 250
    """Calls of one reply."""
    tool_result_tokens: PositiveInt = 4_000
    """What a model is given of a tool's result at once; the rest it can read on."""
    tool_result_characters: PositiveInt = 262_144
    """What is kept of a tool's result."""
    pool_size: PositiveInt = 10
    """Connections to PostgreSQL."""
    tool_message_bytes: PositiveInt = 4_194_304
    """The largest message taken from a tool server; an answer beyond it is a fault of the tool."""
    tool_text_characters: PositiveInt = 1_048_576
    """The longest text of a tool's answer; the rest is cut off."""
    tool_calls_per_server: PositiveInt = 16
    """Calls that one tool server is given at once; further ones wait."""
    tool_server_copies: PositiveInt = 16
    """Processes of tool servers that are kept for one user or session each, all together."""


class Titles(_Group):
    """What sessions are called that nobody has named."""

    enabled: bool = True
    """Name a session after its first reply."""
    connection: str | None = None
    """The model server that is asked for a title; with neither this nor a model, the first words are the title."""
    model: str | None = None
    """The model that is asked; a small one will do."""


class Timeouts(_Group):
    """How long is too long, in seconds."""

    connect: Seconds = 10
    """To reach a model server."""
    first_token: Seconds = 120
    """Until a model says its first word; loading a large local model counts."""
    between_tokens: Seconds = 60
    """Silence within a reply."""
    run: Seconds = 1800
    """A whole reply, tools included."""
    reading: Seconds = 30
    """For a document to be read or a picture to be painted."""
    summary: Seconds = 60
    """For a model to summarize older messages; after that they are left out without a summary."""
    lease: Seconds = 8
    """After this silence another process finishes what a dead one had begun."""
    authenticate: Seconds = 10
    """Until a new socket has said who it is."""
    stall: Seconds = 5
    """A socket that takes nothing for so long is cut."""
    ping_interval: Seconds = 20
    """Between two pings on a quiet socket."""
    ping_timeout: Seconds = 15
    """For the answer to a ping."""
    drain: Seconds = 10
    """For running replies to end when the service is stopped."""
    approval: Seconds = 86_400
    """For somebody to say whether a tool may be called; after that it is not."""
    tool_call: Seconds = 60
    """For a tool to answer, where the server's configuration says nothing else."""
    tool_start: Seconds = 30
    """For a tool server to start."""
    tool_wait: Seconds = 5
    """How long a message waits for tool servers that are starting; after that it does without them."""
    tool_idle: Seconds = 600
    """After which a tool server that is kept for one user or session is stopped."""


class Journal(_Group):
    """The log of events from which every reader reads."""

    retention_hours: PositiveInt = 24
    """How long a reader may be away and still continue where it stopped; the messages themselves are kept for good."""
    pending_bytes: PositiveInt = 1_048_576
    """What one reply may have waiting to be stored before its model is made to wait."""
    durable: bool = True
    """Wait for the disk at each commit. Without it, a power cut may take the last fractions of a second."""


class Context(_Group):
    """What the model is given of a long conversation."""

    default_window: PositiveInt = 8192
    """Tokens that a model is taken to hold if its server does not say."""
    reply_tokens: PositiveInt = 1024
    """Tokens kept free for the reply."""
    compact_at: Annotated[float, Field(gt=0, le=1)] = 0.8
    """From which share of the window on (without the room for the reply) older messages are summarized."""
    summary_connection: str | None = None
    """Which model server summarizes; otherwise the one that answers."""
    summary_model: str | None = None
    """Which model summarizes; otherwise the one that answers, or the first of that server."""
    file_tokens: PositiveInt = 1500
    """Tokens of a document that a model is told at once when it comes with a message; all documents of a message share
    twice that."""


class SandboxLimits(_Group):
    """What the script of a module may use up in one run."""

    cpu_seconds: Seconds = 0.5
    """Computing; waiting for a model is not counted."""
    timeout_ms: PositiveInt = 2_000
    """In all, for scripts that ask no model and whose module says nothing else."""
    ai_timeout_ms: PositiveInt = 30_000
    """The same for scripts that ask one."""
    memory_mib: PositiveInt = 32
    """Memory of the interpreter."""
    recursion: PositiveInt = 200
    """Calls within calls."""
    host_calls: PositiveInt = 500
    """Calls of ctx."""
    workers: PositiveInt = 64
    """Scripts that may run at once in all conversations together, not counting those that they run themselves."""
    wait_ms: PositiveInt = 10_000
    """How long further scripts wait for others to end; it is not counted as their own time."""


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
        if isinstance(field.default, _Group):
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
