"""Writes the tables of the guide to modules from the sources: `make guide`."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from services.prompt.host import MOST_VARIABLES, VARIABLE_BYTES
from services.prompt.turn import ScriptTimes
from services.scripts.api import plugin_functions
from services.scripts.types import ScriptLimits

GUIDE = Path(__file__).parents[1] / "docs" / "writing-modules.md"


def filled(guide: str) -> str:
    """The guide with the tables of today between their marks."""
    for mark, table in (("limits", _limits()), ("functions", _functions())):
        text = "\n".join(table)
        guide = re.sub(
            rf"(<!-- {mark} -->\n).*?(<!-- /{mark} -->)",
            lambda found, text=text: f"{found[1]}\n{text}\n\n{found[2]}",
            guide,
            flags=re.DOTALL,
        )
    return guide


def _limits() -> Iterator[str]:
    limits, times = ScriptLimits(), ScriptTimes()
    yield from ("| limit | default |", "|---|---|")
    yield f"| computing | {limits.cpu_seconds:g} s; waiting for `ctx` is not counted |"
    yield (
        f"| time in all | {times.without_ai / 1000:g} s, {times.with_ai / 1000:g} s for a script that asks a model; "
        "or the module's `timeout_ms`; waiting for a free process and for `ctx.run_module` is not counted |"
    )
    yield f"| memory | {limits.memory_bytes // 1024**2} MiB |"
    yield f"| calls within calls | {limits.recursion} deep |"
    yield f"| calls of `ctx` | {limits.host_calls} |"
    yield f"| printed text | {_kib(limits.printed_bytes)}, and as much of `ctx.log` |"
    yield f"| all outputs together | {_kib(limits.output_bytes)} |"
    yield f"| the script itself | {_kib(limits.source_bytes)} |"
    yield f"| variables of a module in a session | {MOST_VARIABLES}, {_kib(VARIABLE_BYTES)} together |"


def _kib(size: int) -> str:
    return f"{size // 1024} KiB"


def _functions() -> Iterable[str]:
    yield from ("| | function | |", "|---|---|---|")
    for function in plugin_functions():
        cells = (function.category, f"`{function.usage}`", function.docstring)
        yield f"| {' | '.join(' '.join(cell.split()).replace('|', chr(92) + '|') for cell in cells)} |"


if __name__ == "__main__":
    GUIDE.write_text(filled(GUIDE.read_text(encoding="utf-8")), encoding="utf-8")
