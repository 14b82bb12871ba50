"""python -m benchmarks [NAME ...] [--quick]"""

import argparse
import asyncio
import resource
import signal
import sys
import time

import uvloop

from benchmarks import (
    composing,
    context,
    door,
    durability,
    history,
    interrupt,
    memory,
    relay,
    report,
    saturation,
    scripts,
    start,
    templates,
    tool_rounds,
    tools,
    triggers,
)
from benchmarks.processes import BenchmarkFailed
from benchmarks.servers import scratch

_BENCHMARKS = {
    "relay": relay,
    "saturation": saturation,
    "durability": durability,
    "interrupt": interrupt,
    "memory": memory,
    "history": history,
    "door": door,
    "start": start,
    "scripts": scripts,
    "templates": templates,
    "triggers": triggers,
    "composing": composing,
    "context": context,
    "tools": tools,
    "tool_rounds": tool_rounds,
}


def main() -> int:
    """The exit code: 0, or 1 if something could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Print what the hot paths cost here.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(_BENCHMARKS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="small numbers, to see that everything runs")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in _BENCHMARKS]:
        parser.error(f"there is no benchmark called {unknown[0]}; there are {', '.join(_BENCHMARKS)}")
    if sys.platform != "linux":
        parser.error("benchmarks read CPU time and memory from /proc, which only Linux has")
    # An orderly exit ends the processes that were started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    _allow_many_sockets()
    report.machine()
    begun = time.monotonic()
    try:
        # A new database for each; in a hurry one for all, as making it takes longer than all the rest.
        with scratch() as shared:
            for name in options.names or _BENCHMARKS:
                with scratch() as own, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                    runner.run(_BENCHMARKS[name].run(shared if options.quick else own, quick=options.quick))
    except (BenchmarkFailed, TimeoutError) as failure:
        print(f"\n{str(failure) or 'Something took longer than a minute.'}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(f"\n{time.monotonic() - begun:.0f} s in all.")
    return 0


def _allow_many_sockets() -> None:
    """Take all the files that we may have open; children inherit it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    sys.exit(main())
