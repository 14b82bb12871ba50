"""Two small frames in a row must not wait for each other."""

import asyncio
import socket
from collections.abc import Callable

import pytest
import uvloop

from api.listening import bind


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_the_kernel_does_not_hold_small_frames_back(new_loop: Callable[[], asyncio.AbstractEventLoop]):
    async def story() -> int:
        accepted: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def look(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            option = writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            accepted.set_result(option)
            writer.close()

        (bound,) = bind("127.0.0.1", 0)
        async with asyncio.timeout(5), await asyncio.start_server(look, sock=bound):
            _, writer = await asyncio.open_connection(*bound.getsockname())
            option = await accepted
            writer.close()
            return option

    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert runner.run(story())
