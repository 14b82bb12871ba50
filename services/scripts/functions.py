"""The functions of `ctx` that need nothing but their arguments, a clock and a time zone."""

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, cast
from zoneinfo import ZoneInfo

from services.scripts.types import ScriptFault, ScriptLimits
from services.scripts.values import Json, NotPlain, plain, plain_text

Clock = Callable[[], datetime]
"""The time now, with a time zone."""

CountTokens = Callable[[str], Awaitable[int]]

MAX_PARTS = 4_000
MAX_FORMAT = 200
MAX_INDENT = 8
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

_OUTPUT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
# What every platform's strftime understands alike; glibc also has widths, with which four characters fill the memory.
_TIME_FORMAT = re.compile(r"(?:[^%]|%[aAbBcdfHIjmMpSUwWxXyYzZGuV%])*", re.DOTALL)


class PureFunctions:
    """One run's own functions: with the same clock, the same calls give the same results."""

    def __init__(self, limits: ScriptLimits, clock: Clock, timezone: str, count_tokens: CountTokens) -> None:
        self._limits = limits
        self._clock = clock
        self._timezone = timezone
        self._count_tokens = count_tokens
        self._sizes: dict[str, int] = {}
        self._logged = 0
        self.outputs: dict[str, Json] = {}
        self.logs: list[str] = []
        self._functions: Mapping[str, Callable[..., Any]] = {
            function.__name__: function
            for function in (
                self.set_output,
                self.get_output,
                self.log,
                self.get_current_time,
                self.get_relative_time,
                self.is_business_hours,
                self.get_day_of_week,
                self.format_timestamp,
                self.to_json,
                self.from_json,
                self.join_strings,
                self.split_string,
                self.count_words,
            )
        }

    def __contains__(self, name: str) -> bool:
        return name in self._functions or name == "count_tokens"

    async def call(self, name: str, arguments: Mapping[str, Json]) -> Json:
        """Perform `ctx.<name>` with checked arguments.

        Raises:
            ScriptFault: the arguments have the right types, but not values that can be used.
        """
        if name == "count_tokens":
            return await self._count_tokens(cast(str, arguments["text"]))
        return self._functions[name](**arguments)

    def set_output(self, name: str, value: Json) -> None:
        """Keep an output; all of them together have a limited size."""
        if not _OUTPUT_NAME.fullmatch(name):
            raise ScriptFault(
                f"{name[:64]!r} cannot name an output: letters, digits and _, at most 64, no digit first", "ValueError"
            )
        size = len(name) + len(json.dumps(value, ensure_ascii=False).encode())
        total = sum(self._sizes.values()) - self._sizes.get(name, 0) + size
        if total > self._limits.output_bytes:
            raise ScriptFault(f"the outputs are larger than {self._limits.output_bytes:,} bytes", "ValueError")
        self._sizes[name] = size
        self.outputs[name] = value

    def get_output(self, name: str) -> Json:
        """An output of this run, or None."""
        return self.outputs.get(name)

    def log(self, text: Json) -> None:
        """Keep a line; all of them together have the same limit as printed text."""
        line = text if isinstance(text, str) else json.dumps(text, ensure_ascii=False)
        self._logged += len(line.encode()) + 1
        if self._logged > self._limits.printed_bytes:
            raise ScriptFault(f"the log is larger than {self._limits.printed_bytes:,} bytes", "ValueError")
        self.logs.append(line)

    def get_current_time(self, format: str, timezone: str | None) -> str:
        """The time now."""
        return _formatted(self._now(timezone), format)

    def get_relative_time(self, minutes_offset: float, format: str) -> str:
        """The time so many minutes from now, by the clock on the wall of the time zone."""
        try:
            moment = self._now(None).astimezone(UTC) + timedelta(minutes=minutes_offset)
            return _formatted(moment.astimezone(self._zone(None)), format)
        except (OverflowError, ValueError):
            raise ScriptFault(f"{minutes_offset} minutes from now is out of range", "ValueError") from None

    def is_business_hours(self, start_hour: int, end_hour: int, timezone: str | None) -> bool:
        """Monday to Friday from start_hour up to, but not including, end_hour."""
        if not 0 <= start_hour <= end_hour <= 24:
            raise ScriptFault("hours must be 0 <= start_hour <= end_hour <= 24", "ValueError")
        now = self._now(timezone)
        return now.weekday() < 5 and start_hour <= now.hour < end_hour

    def get_day_of_week(self, full_name: bool) -> str:
        """English, whatever the server's language."""
        name = DAYS[self._now(None).weekday()]
        return name if full_name else name[:3]

    def format_timestamp(self, ts: float | str, format: str) -> str:
        """A moment in the run's time zone; ISO text without an offset is taken to be in that zone."""
        zone = self._zone(None)
        try:
            if isinstance(ts, str):
                read = datetime.fromisoformat(ts)
                moment = read.replace(tzinfo=zone) if read.tzinfo is None else read.astimezone(zone)
            else:
                moment = datetime.fromtimestamp(ts, zone)
        except (ValueError, OverflowError, OSError):
            shown = ts[:40] if isinstance(ts, str) else ts
            raise ScriptFault(f"{shown!r} is neither Unix seconds nor ISO text", "ValueError") from None
        return _formatted(moment, format)

    def to_json(self, value: Json, indent: int | None) -> str:
        """Text that `from_json` reads back."""
        if indent is not None and not 0 <= indent <= MAX_INDENT:
            raise ScriptFault(f"indent must be between 0 and {MAX_INDENT}", "ValueError")
        return json.dumps(value, ensure_ascii=False, indent=indent)

    def from_json(self, text: str) -> Json:
        """Strict JSON: no NaN, no endless nesting."""
        try:
            return plain(json.loads(text))
        except RecursionError:
            raise ScriptFault("the JSON is nested too deeply", "ValueError") from None
        except NotPlain as error:
            raise ScriptFault(str(error), "ValueError") from None
        except ValueError as error:
            raise ScriptFault(f"not JSON: {error}", "ValueError") from None

    def join_strings(self, strings: list[str], separator: str) -> str:
        """The strings with the separator between them, if that does not make far more of them."""
        try:
            # Each string could be nothing beside a separator as large as a value may be.
            if len(separator) * len(strings) > self._limits.memory_bytes // 4:
                raise NotPlain("the joined text would be too large")
            return separator.join(strings)
        except NotPlain as error:
            raise ScriptFault(str(error), "ValueError") from None

    def split_string(self, text: str, separator: str | None) -> list[str]:
        """The parts between separators, or the words."""
        if separator == "":
            raise ScriptFault("the separator must not be empty", "ValueError")
        parts = text.split(separator, MAX_PARTS)
        if len(parts) > MAX_PARTS:
            raise ScriptFault(f"the text has more than {MAX_PARTS:,} parts", "ValueError")
        return parts

    def count_words(self, text: str) -> int:
        """Runs of anything but white space."""
        return len(text.split())

    def _now(self, timezone: str | None) -> datetime:
        return self._clock().astimezone(self._zone(timezone))

    def _zone(self, timezone: str | None) -> tzinfo:
        name = timezone or self._timezone
        # Known without a time zone database, which slim containers lack.
        if name.upper() in {"UTC", "Z"}:
            return UTC
        try:
            return ZoneInfo(name)
        except (KeyError, ValueError, OSError):
            raise ScriptFault(f"{name[:64]!r} is not a time zone, such as Europe/Vienna", "ValueError") from None


def _formatted(moment: datetime, format: str) -> str:
    if len(format) > MAX_FORMAT or not _TIME_FORMAT.fullmatch(format):
        raise ScriptFault(f"{format[:MAX_FORMAT]!r} is not a time format, such as %Y-%m-%d %H:%M", "ValueError")
    return plain_text(moment.strftime(format))
