"""Settings that belong together: each group's are written GROUP__NAME. The text under a field is its explanation."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class SettingGroup(BaseModel):
    """Settings whose names begin with the same word and two underscores."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Limits(SettingGroup):
    """How much is too much."""

    frame_bytes: PositiveInt = 65_536
    """The largest WebSocket message taken from a client."""
    frames_per_minute: PositiveInt = 600
    """Frames that one user may send in a minute, on all sockets together; each process counts for itself."""
    sign_ins_per_user: PositiveInt = 100
    """Devices that one user may be signed in with; one more ends the oldest."""
    connections_per_user: PositiveInt = 200
    """Sockets that one user may have open, whatever they showed; each process counts for itself."""
    strangers: PositiveInt = 1_000
    """Sockets that may be open without having said yet who is there (accounts only)."""
    strangers_per_address: PositiveInt = 100
    """The same from one address; behind a proxy all come from one, unless it is in TRUSTED_PROXIES."""
    tickets_per_user: PositiveInt = 100
    """Tickets for sockets that one user may have without using them."""
    api_keys_per_user: PositiveInt = 50
    """API keys that one user may have."""
    runs_per_user: PositiveInt = 100
    """Replies of one user that may be in the making at once."""
    requests_per_minute: NonNegativeInt = 3_000
    """Requests that one user may send to one process in a minute; 0 is as many as they like."""
    tokens_per_user_day: NonNegativeInt = 0
    """Tokens that one user may use from midnight to midnight UTC; 0 is as many as they like."""
    queued_per_session: PositiveInt = 20
    """Messages that may wait in a session for the reply before them."""
    body_bytes: PositiveInt = 1_048_576
    """The largest body of an HTTP request."""
    url_bytes: PositiveInt = 8_192
    """The longest address of a request."""
    head_bytes: PositiveInt = 32_768
    """All headers of a request together, with its address."""
    headers: PositiveInt = 100
    """Headers of a request."""
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
    saved_connections_per_user: PositiveInt = 50
    """Connections to model servers that one user may save."""
    connection_tests_per_minute: PositiveInt = 30
    """How often one user may have a model server tried."""
    model_clients: PositiveInt = 256
    """Clients of saved connections that are kept open, of all users together."""
    tool_message_bytes: PositiveInt = 4_194_304
    """The largest message taken from a tool server; an answer beyond it is a fault of the tool."""
    tool_text_characters: PositiveInt = 1_048_576
    """The longest text of a tool's answer; the rest is cut off."""
    tool_calls_per_server: PositiveInt = 16
    """Calls that one tool server is given at once; further ones wait."""
    tool_server_copies: PositiveInt = 16
    """Processes of tool servers that are kept for one user or session each, all together."""


class Tokens(SettingGroup):
    """How long what was given at a sign-in is good for (with accounts)."""

    access_seconds: Annotated[int, Field(ge=10, le=86_400)] = 900
    """An access token; each request is checked against the database anyway."""
    refresh_seconds: Annotated[int, Field(ge=60, le=31_536_000)] = 2_592_000
    """A sign-in that does not come back; each refresh begins it anew."""


class Passwords(SettingGroup):
    """What it takes to verify a password: Argon2id (RFC 9106). Stored ones are brought up to it at the next sign-in."""

    memory_kib: Annotated[int, Field(ge=8, le=4_194_304)] = 47_104
    """Memory of one verification."""
    passes: Annotated[int, Field(ge=1, le=100)] = 1
    """Passes over that memory."""
    lanes: Annotated[int, Field(ge=1, le=16)] = 1
    """Threads of one verification; MEMORY_KIB is at least eight times as much."""
    at_once: PositiveInt = 2
    """Verifications at once."""
    waiting: PositiveInt = 50
    """Further ones that may wait; beyond that people are asked to come again."""

    @model_validator(mode="after")
    def _has_memory_for_its_lanes(self) -> Self:
        if self.memory_kib < 8 * self.lanes:
            raise ValueError(f"MEMORY_KIB={self.memory_kib} is less than eight times LANES={self.lanes}")
        return self


class Guessing(SettingGroup):
    """How often passwords, codes and tokens may be tried, counted by each process for itself."""

    seconds: PositiveInt = 900
    """Within how long the attempts are counted."""
    per_account_and_address: PositiveInt = 10
    """Sign-ins to one account from one address that fail."""
    per_account: PositiveInt = 100
    """Sign-ins to one account from addresses that it was not signed in from before."""
    per_address: PositiveInt = 100
    """Sign-ins from one address."""
    registrations_per_address: PositiveInt = 20
    """Registrations from one address."""


class Titles(SettingGroup):
    """What sessions are called that nobody has named."""

    enabled: bool = True
    """Name a session after its first reply."""
    connection: str | None = None
    """The model server that is asked for a title; with neither this nor a model, the first words are the title."""
    model: str | None = None
    """The model that is asked; a small one will do."""


class Timeouts(SettingGroup):
    """How long is too long, in seconds."""

    head: Seconds = 10
    """For the headers of a request to come."""
    body: Seconds = 60
    """For its body to come, unless it comes at 16 KiB a second or more."""
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
    ticket: Seconds = 30
    """How long a ticket for a socket can be used."""
    stall: Seconds = 5
    """A socket that takes nothing for so long is cut."""
    ping_interval: Seconds = 20
    """Between two pings on a quiet socket."""
    ping_timeout: Seconds = 15
    """For the answer to a ping."""
    database: Seconds = 30
    """For a database that is starting too to take connections, when the service starts."""
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


class Journal(SettingGroup):
    """The log of events from which every reader reads."""

    retention_hours: PositiveInt = 24
    """How long a reader may be away and still continue where it stopped; the messages themselves are kept for good."""
    pending_bytes: PositiveInt = 1_048_576
    """What one reply may have waiting to be stored before its model is made to wait."""
    durable: bool = True
    """Wait for the disk at each commit. Without it, a power cut may take the last fractions of a second."""


class Context(SettingGroup):
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


class SandboxLimits(SettingGroup):
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
