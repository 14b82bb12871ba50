"""The log of the process: one pipeline for us and for every library, readable or as JSON, without secrets."""

import logging
import sys
import threading
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Literal, TextIO, cast

import orjson

from db.ids import ReplicaId
from services.telemetry.circumstances import circumstances
from services.telemetry.redaction import Redactor

LogFormat = Literal["auto", "json", "console"]

_OURS: Final = ("api", "websocket", "services", "db")
# They write whole addresses and ids of other services' sessions, in which there may be keys; and whatever a tool server
# sends that they do not understand, as often as it does. The pool of tool servers says what went wrong. The pool of
# connections tells of each attempt with a traceback while the database is away; whoever waits for it says enough.
_QUIET: Final = {
    "httpx": logging.WARNING,
    "httpx2": logging.WARNING,
    "httpcore2": logging.WARNING,
    "openai": logging.WARNING,
    "mcp": logging.CRITICAL,
    "client": logging.CRITICAL,
    "asyncpg.pool": logging.ERROR,
}
_OF_EVERY_RECORD: Final = frozenset((*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"))
_CONTROLS: Final = {code: f"\\x{code:02x}" for code in (*range(32), *range(0x7F, 0xA0))} | {
    ord("\n"): "\\n",
    ord("\r"): "\\r",
    ord("\t"): "\\t",
    0x2028: "\\u2028",
    0x2029: "\\u2029",
}
"""What a client sends must not make a line that looks like one of ours, nor move the cursor of a terminal."""

_log = logging.getLogger(__name__)


def set_up_logs(level: str, format: LogFormat, redactor: Redactor, stream: TextIO) -> None:
    """Send all that is logged, warned of and not caught in this process through one handler to `stream`.

    At `debug` we tell more; libraries do not, because they would tell whole requests.
    """
    kind = JsonLines if format == "json" or (format == "auto" and not stream.isatty()) else ConsoleLines
    handler = LogHandler(stream)
    handler.setFormatter(kind(redactor))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    number = logging.getLevelNamesMapping()[level.upper()]
    root.setLevel(max(number, logging.INFO))
    for name in _OURS:
        logging.getLogger(name).setLevel(number)
    for name, quiet in _QUIET.items():
        logging.getLogger(name).setLevel(max(number, quiet))
    logging.captureWarnings(capture=True)
    sys.excepthook = _tell_uncaught
    threading.excepthook = lambda failed: _tell_uncaught(failed.exc_type, failed.exc_value, failed.exc_traceback)
    sys.unraisablehook = lambda failed: _tell_uncaught(failed.exc_type, failed.exc_value, failed.exc_traceback)


def name_replica(replica_id: ReplicaId) -> None:
    """Put this on every line from now on."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, LogHandler):
            handler.replica_id = replica_id


class LogHandler(logging.StreamHandler[TextIO]):
    """Writes lines with what is known of the work that they come from."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self.replica_id: ReplicaId | None = None

    def emit(self, record: logging.LogRecord) -> None:
        record.around = self._around()
        super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the base's name
        """Say that a line is lost, and nothing of it: the base would print its arguments as they are."""
        try:
            self.stream.write(f"a line of {record.name} could not be written\n")
        except (OSError, ValueError):
            return  # there is nobody to tell

    def _around(self) -> dict[str, str]:
        around = circumstances()
        known = {
            "request_id": around.request_id,
            "session_id": around.session_id,
            "run_id": around.run_id,
            "user_id": around.user_id,
            "replica": self.replica_id,
        }
        return {name: str(value) for name, value in known.items() if value is not None}


class _Lines(logging.Formatter):
    """What both formats have in common: nothing of a record gets out that was not cleaned."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def message(self, record: logging.LogRecord) -> str:
        """What is said."""
        try:
            text = record.getMessage()
        except (TypeError, ValueError):
            text = f"{record.msg} (its arguments do not fit)"
        return self._redactor.clean(text)

    def fields(self, record: logging.LogRecord) -> dict[str, object]:
        """What else is known: circumstances, then what the line brought itself."""
        extra = {name: value for name, value in vars(record).items() if name not in _OF_EVERY_RECORD}
        around: Mapping[str, str] = extra.pop("around", {})
        return {name: self._redactor.clean_field(name, value) for name, value in {**around, **extra}.items()}

    def exception(self, record: logging.LogRecord) -> str | None:
        """The traceback, if there is one: its end, where the fault is, if it is long."""
        if record.exc_info and record.exc_info[0] is not None:
            text = "".join(traceback.format_exception(*record.exc_info)).rstrip()
        else:
            text = record.exc_text or ""
        if record.stack_info:
            text = f"{text}\n{record.stack_info}".strip()
        return self._redactor.clean_end(text) if text else None


class JsonLines(_Lines):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": _at(record).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self.message(record),
            "exception": self.exception(record),
        }
        line |= {name: value for name, value in self.fields(record).items() if name not in line}
        line = {name: value for name, value in line.items() if value is not None}
        return orjson.dumps(_sound(line), default=str).decode()


class ConsoleLines(_Lines):
    """A line for people; what surrounds it stands behind it, and a traceback under it."""

    def format(self, record: logging.LogRecord) -> str:
        at = _at(record).astimezone().strftime("%H:%M:%S.%f")[:-3]
        fields = (f"{name}={value}" for name, value in self.fields(record).items() if value is not None)
        said = f"{self.message(record)}  {' '.join(fields)}".rstrip().translate(_CONTROLS)
        line = f"{at} {record.levelname.lower():<7} {record.name}: {said}"
        exception = self.exception(record)
        return f"{line}\n{exception}" if exception else line


def _at(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


def _sound(value: object) -> object:
    """With texts that UTF-8 can carry, which lone surrogates are not."""
    match value:
        case str():
            return value.encode(errors="backslashreplace").decode()
        case dict():
            members = cast(dict[object, object], value)
            return {_sound(str(key)): _sound(inner) for key, inner in members.items()}
        case list():
            return [_sound(inner) for inner in cast(list[object], value)]
        case _:
            return value


def _tell_uncaught(kind: type[BaseException], error: BaseException | None, where: TracebackType | None) -> None:
    if error is None or issubclass(kind, KeyboardInterrupt):
        return
    _log.critical("nobody caught this", exc_info=(kind, error, where))
