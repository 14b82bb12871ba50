"""What the README tells a newcomer to do works."""

import asyncio
from urllib.parse import urlsplit

from tests.readme import first_conversation, two_accounts
from tests.service import accounts_settings, local_settings, running_service


async def test_the_first_conversation_of_the_readme_prints_a_reply(database_url: str) -> None:
    async with running_service(local_settings(), database_url) as address:
        printed = await asyncio.to_thread(first_conversation, _port(address))
    assert printed.startswith("Demo (no model is connected)")
    assert '"Good morning!"' in printed


async def test_the_two_accounts_of_the_readme_cannot_see_each_others_sessions(database_url: str) -> None:
    async with running_service(accounts_settings(), database_url) as address:
        printed = await asyncio.to_thread(two_accounts, _port(address))
    assert printed.splitlines() == ["Ada has 1 sessions; this one: 200", "Bob has 0 sessions; this one: 404"]


def _port(address: str) -> int:
    port = urlsplit(address).port
    assert port
    return port
