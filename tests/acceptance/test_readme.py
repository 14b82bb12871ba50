"""What the README tells a newcomer to do works."""

import asyncio
from urllib.parse import urlsplit

from tests.readme import first_conversation
from tests.service import local_settings, running_service


async def test_the_first_conversation_of_the_readme_prints_a_reply(database_url: str) -> None:
    async with running_service(local_settings(), database_url) as address:
        port = urlsplit(address).port
        assert port
        printed = await asyncio.to_thread(first_conversation, port)
    assert printed.startswith("Demo (no model is connected)")
    assert '"Good morning!"' in printed
