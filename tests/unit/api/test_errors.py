"""The table of statuses."""

from http import HTTPStatus

import pytest

from api.errors import STATUSES, status_of
from services import errors


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.NotFound(), 404),
        (errors.NothingRunning(), 409),
        (errors.SessionBusy(), 409),
        (errors.StaleVersion(), 412),
        (errors.InvalidControl(), 422),
        (errors.TooManyRequests(), 429),
        (errors.ProviderRejected(), 502),
        (errors.ProviderTimeout(), 504),
        (errors.Unavailable(), 503),
        (errors.ServerError(), 500),
    ],
)
def test_the_most_specific_class_decides_the_status(error: errors.ColloquyError, status: int) -> None:
    assert status_of(error) == status


def test_faults_of_the_caller_are_4xx_and_all_others_5xx() -> None:
    for kind, status in STATUSES.items():
        is_the_callers = issubclass(kind, errors.CallerError)
        assert is_the_callers == (status < HTTPStatus.INTERNAL_SERVER_ERROR), kind
