"""How often somebody may guess."""

import pytest

from services.accounts.guesses import GuessLimits, GuessSettings, MovingWindow, TooManyAttempts


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limits(clock: Clock) -> GuessLimits:
    settings = GuessSettings(
        seconds=60, per_account_and_address=3, per_account=6, per_address=8, registrations_per_address=2
    )
    return GuessLimits(settings, clock=clock)


def refused(limits: GuessLimits, account: str, address: str) -> int | None:
    """Seconds to wait, if one has to."""
    try:
        limits.guess_password(account, address)
    except TooManyAttempts as error:
        return error.details["retry_after"]
    return None


def test_a_window_moves(clock: Clock) -> None:
    window = MovingWindow(2, 60, clock=clock)
    window.count("a")
    clock.now += 40
    window.count("a")

    assert window.wait("a") == 20
    assert window.wait("b") == 0
    clock.now += 20
    assert window.wait("a") == 0
    window.count("a")
    assert window.wait("a") == 40


def test_who_fails_too_often_waits_and_nobody_else(limits: GuessLimits, clock: Clock) -> None:
    assert [refused(limits, "ada", "10.0.0.1") for _ in range(4)] == [None, None, None, 60]
    assert refused(limits, "ben", "10.0.0.1") is None
    assert refused(limits, "ada", "10.0.0.2") is None
    clock.now += 60
    assert refused(limits, "ada", "10.0.0.1") is None


def test_one_address_cannot_try_one_account_after_the_other(limits: GuessLimits) -> None:
    assert [refused(limits, f"account {n}", "10.0.0.1") for n in range(9)] == [None] * 8 + [60]


def test_many_addresses_cannot_try_one_account(limits: GuessLimits) -> None:
    assert [refused(limits, "ada", f"10.0.0.{n}") for n in range(7)] == [None] * 6 + [60]


def test_an_owner_is_not_kept_out_by_guesses_from_elsewhere(limits: GuessLimits) -> None:
    limits.guess_password("ada", "192.0.2.1")
    limits.password_was_right("ada", "192.0.2.1")
    for n in range(20):
        refused(limits, "ada", f"10.0.0.{n}")

    assert refused(limits, "ada", "10.0.1.1") == 60
    assert refused(limits, "ada", "192.0.2.1") is None


def test_who_gets_it_right_has_failed_never(limits: GuessLimits) -> None:
    for _ in range(2):
        limits.guess_password("ada", "10.0.0.1")
        limits.guess_password("ada", "10.0.0.1")
        limits.password_was_right("ada", "10.0.0.1")

    assert [refused(limits, "ada", "10.0.0.1") for _ in range(4)] == [None, None, None, 60]


def test_an_address_that_comes_with_tokens_of_nobody_is_refused(limits: GuessLimits) -> None:
    for _ in range(8):
        limits.may_refresh("10.0.0.1")
        limits.token_was_wrong("10.0.0.1")

    with pytest.raises(TooManyAttempts):
        limits.may_refresh("10.0.0.1")
    limits.may_refresh("10.0.0.2")


def test_registrations_are_counted_for_themselves(limits: GuessLimits) -> None:
    limits.register("10.0.0.1")
    limits.register("10.0.0.1")

    with pytest.raises(TooManyAttempts):
        limits.register("10.0.0.1")
    assert refused(limits, "ada", "10.0.0.1") is None


def test_what_is_counted_is_bounded(clock: Clock) -> None:
    window = MovingWindow(1, 60, clock=clock)
    for n in range(20_001):
        window.count(str(n))

    assert window.wait("0") == 0
    assert window.wait("20000") == 60
