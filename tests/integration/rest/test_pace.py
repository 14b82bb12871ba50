"""Nobody may ask faster than the operator allows, and everybody is told how much is left."""

from uuid import uuid4

import httpx2
import pytest

from db.ids import UserId
from services.errors import TooManyRequests
from services.pace import Pace
from tests.integration.rest.reading import problem
from tests.service import local_settings, running_service


async def test_who_asks_too_fast_is_told_when_to_come_back(database_url: str) -> None:
    async with (
        running_service(local_settings(limits={"requests_per_minute": 3}), database_url) as base_url,
        httpx2.AsyncClient(base_url=base_url) as http,
    ):
        answers = [await http.get("/api/personas") for _ in range(3)]
        refused = await http.get("/api/personas")

        assert [answer.status_code for answer in answers] == [200] * 3
        assert answers[0].headers["ratelimit-policy"] == '"user";q=3;w=60'
        assert answers[0].headers["ratelimit"].startswith('"user";r=2;t=')
        problem(refused, 429, "too_many_requests")
        assert 1 <= int(refused.headers["retry-after"]) <= 21
        assert (await http.get("/livez")).status_code == 200  # whoever watches the service is not counted
        assert "ratelimit" not in (await http.get("/livez")).headers


def test_one_user_does_not_slow_another() -> None:
    pace, one, other = Pace(1), UserId(uuid4()), UserId(uuid4())
    pace.spend(one)

    with pytest.raises(TooManyRequests):
        pace.spend(one)
    left = pace.spend(other)
    assert left is not None
    assert left.left == 0


def test_without_a_limit_nothing_is_counted() -> None:
    assert Pace(0).spend(UserId(uuid4())) is None
