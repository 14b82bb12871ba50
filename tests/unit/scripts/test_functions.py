"""What the functions of ctx do that need only a clock and a time zone."""

import inspect
from datetime import UTC, datetime
from typing import Any

import pytest

from services.scripts.api import plugin_functions
from services.scripts.functions import PureFunctions
from services.scripts.types import ScriptFault, ScriptLimits

DECLARED = {function.name: function for function in plugin_functions()}
FRIDAY = datetime(2026, 3, 6, 22, 30, tzinfo=UTC)


async def four_characters_each(text: str) -> int:
    return (len(text) + 3) // 4


class Functions:
    """Calls as a script makes them."""

    def __init__(self, now: datetime = FRIDAY, timezone: str = "UTC", **limits: Any) -> None:
        self.own = PureFunctions(ScriptLimits(**limits), lambda: now, timezone, four_characters_each)

    async def __call__(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return await self.own.call(name, DECLARED[name].bind(args, kwargs))

    async def fault(self, name: str, *args: Any, **kwargs: Any) -> str:
        with pytest.raises(ScriptFault) as caught:
            await self(name, *args, **kwargs)
        assert caught.value.kind == "ValueError"
        return caught.value.message


@pytest.fixture
def ctx() -> Functions:
    return Functions()


def test_each_function_takes_exactly_the_declared_parameters() -> None:
    own = Functions().own
    here = [name for name in DECLARED if name in own and name != "count_tokens"]
    assert len(here) == 13
    for name in here:
        parameters = inspect.signature(getattr(own, name)).parameters
        declared = DECLARED[name].signature.parameters
        assert [(one.name, one.annotation) for one in parameters.values()] == [
            (one.name, one.annotation) for one in declared.values()
        ]


async def test_an_output_is_read_back_and_a_missing_one_is_none(ctx: Functions) -> None:
    await ctx("set_output", "mood", {"now": ["calm"]})
    assert await ctx("get_output", "mood") == {"now": ["calm"]}
    assert await ctx("get_output", "other") is None


async def test_an_output_can_be_replaced_and_only_its_last_value_counts() -> None:
    ctx = Functions(output_bytes=100)
    for _ in range(20):
        await ctx("set_output", "text", "x" * 80)
    assert "larger than 100 bytes" in await ctx.fault("set_output", "more", "x" * 20)
    assert ctx.own.outputs == {"text": "x" * 80}


async def test_outputs_are_counted_in_bytes_of_utf_8() -> None:
    ctx = Functions(output_bytes=100)
    assert "larger than 100 bytes" in await ctx.fault("set_output", "text", "\N{GRINNING FACE}" * 30)


@pytest.mark.parametrize("name", ["", "1st", "a b", "a.b", "ä", "x" * 65, "a\n", "${x}"])
async def test_an_output_needs_a_name_that_a_template_can_write(ctx: Functions, name: str) -> None:
    assert "cannot name an output" in await ctx.fault("set_output", name, 1)


async def test_log_lines_are_kept_in_order_up_to_a_limit() -> None:
    ctx = Functions(printed_bytes=12)
    await ctx("log", "one")
    await ctx("log", 22)
    assert ctx.own.logs == ["one", "22"]
    assert "log is larger than 12 bytes" in await ctx.fault("log", "three3")


@pytest.mark.parametrize(
    ("timezone", "format", "text"),
    [
        ("UTC", "%Y-%m-%d %H:%M", "2026-03-06 22:30"),
        ("Europe/Vienna", "%H:%M %Z", "23:30 CET"),
        ("Asia/Tokyo", "%d %H:%M %z", "07 07:30 +0900"),
        ("UTC", "100 %% at %H", "100 % at 22"),
        ("UTC", "", ""),
    ],
)
async def test_the_time_is_told_in_the_user_s_zone_or_the_one_named(timezone: str, format: str, text: str) -> None:
    assert await Functions(timezone=timezone)("get_current_time", format) == text
    assert await Functions(timezone="America/Lima")("get_current_time", format, timezone) == text


@pytest.mark.parametrize("format", ["%1000000000d", "%", "%E", "%-d", "%Q", "%\n", "x" * 201, "%_9d"])
async def test_formats_that_not_every_platform_knows_are_refused(ctx: Functions, format: str) -> None:
    assert "is not a time format" in await ctx.fault("get_current_time", format)


@pytest.mark.parametrize(
    "timezone", ["Mars/Olympus", "../../etc/passwd", "/etc/passwd", "Europe", "a" * 10_000, "UTC/..", "\ud800", "é"]
)
async def test_an_unknown_time_zone_is_refused(ctx: Functions, timezone: str) -> None:
    assert "is not a time zone" in await ctx.fault("get_current_time", "%H", timezone)


async def test_a_relative_time_counts_real_minutes_over_a_change_of_the_clocks() -> None:
    night = Functions(datetime(2026, 3, 29, 0, 30, tzinfo=UTC), "Europe/Vienna")  # 01:30, half an hour before
    assert await night("get_relative_time", 60, "%H:%M") == "03:30"
    assert await night("get_relative_time", -1.5, "%H:%M:%S") == "01:28:30"


@pytest.mark.parametrize("minutes", [1e12, -1e12, 1e300, 2**62])
async def test_a_relative_time_beyond_the_calendar_is_refused(ctx: Functions, minutes: float) -> None:
    assert "out of range" in await ctx.fault("get_relative_time", minutes)


@pytest.mark.parametrize(
    ("moment", "open_"),
    [
        ("2026-03-06T09:00", True),
        ("2026-03-06T08:59", False),
        ("2026-03-06T16:59", True),
        ("2026-03-06T17:00", False),
        ("2026-03-07T12:00", False),
        ("2026-03-08T12:00", False),
        ("2026-03-09T12:00", True),
    ],
)
async def test_business_hours_are_monday_to_friday_with_an_open_end(moment: str, open_: bool) -> None:
    ctx = Functions(datetime.fromisoformat(moment).replace(tzinfo=UTC))
    assert await ctx("is_business_hours") is open_
    assert await ctx("is_business_hours", 0, 24) is (ctx.own.get_day_of_week(True)[0] != "S")
    assert await ctx("is_business_hours", 12, 12) is False


async def test_business_hours_outside_of_the_day_are_refused(ctx: Functions) -> None:
    for hours in ((-1, 5), (9, 25), (17, 9)):
        assert "hours must be" in await ctx.fault("is_business_hours", *hours)


async def test_the_day_of_the_week_is_the_time_zone_s() -> None:
    assert await Functions()("get_day_of_week") == "Friday"
    assert await Functions()("get_day_of_week", full_name=False) == "Fri"
    assert await Functions(timezone="Asia/Tokyo")("get_day_of_week") == "Saturday"


@pytest.mark.parametrize(
    ("ts", "text"),
    [
        (0, "1970-01-01 01:00"),
        (1772836200.9, "2026-03-06 23:30"),
        (-86400, "1969-12-31 01:00"),
        ("2026-03-06T22:30:00Z", "2026-03-06 23:30"),
        ("2026-03-06T22:30:00+02:00", "2026-03-06 21:30"),
        ("2026-03-06", "2026-03-06 00:00"),
    ],
)
async def test_a_timestamp_is_told_in_the_run_s_time_zone(ts: float | str, text: str) -> None:
    assert await Functions(timezone="Europe/Vienna")("format_timestamp", ts) == text


@pytest.mark.parametrize("ts", ["", "yesterday", "12", 1e18, -1e18, 2**62, "9999-99-99", "x" * 10_000])
async def test_what_is_no_timestamp_is_refused(ctx: Functions, ts: float | str) -> None:
    assert "neither Unix seconds nor ISO text" in await ctx.fault("format_timestamp", ts)


async def test_json_goes_out_and_comes_back(ctx: Functions) -> None:
    value = {"a": [1, 2.5, None, True, "ü"]}
    assert await ctx("to_json", value) == '{"a": [1, 2.5, null, true, "ü"]}'
    assert await ctx("from_json", await ctx("to_json", value, indent=2)) == value
    assert "indent" in await ctx.fault("to_json", value, indent=10**6)


@pytest.mark.parametrize(
    "text", ["", "{", "NaN", "[1e999]", "[" * 100_000, "9" * 5000, '{"a": Infinity}', "[" + "0," * 6000 + "0]"]
)
async def test_what_is_not_json_is_refused(ctx: Functions, text: str) -> None:
    await ctx.fault("from_json", text)


async def test_strings_are_joined_and_split(ctx: Functions) -> None:
    assert await ctx("join_strings", ["a", "b"]) == "a, b"
    assert await ctx("join_strings", [], "-") == ""
    assert await ctx("split_string", " a  b ") == ["a", "b"]
    assert await ctx("split_string", "a,b,,c", ",") == ["a", "b", "", "c"]
    assert "must not be empty" in await ctx.fault("split_string", "a", "")
    assert "parts" in await ctx.fault("split_string", "a," * 10_000, ",")
    assert "too large" in await ctx.fault("join_strings", ["", "", "", ""] * 1000, "x" * 200_000)


async def test_words_and_tokens_are_counted(ctx: Functions) -> None:
    assert await ctx("count_words", " one two\nthree ") == 3
    assert await ctx("count_words", "") == 0
    assert await ctx("count_tokens", "12345678") == 2


async def test_the_same_clock_gives_the_same_results() -> None:
    assert [await Functions()("get_current_time") for _ in range(3)] == ["2026-03-06 22:30"] * 3
