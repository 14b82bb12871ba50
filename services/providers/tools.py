"""Models that cannot call tools."""

import re
from typing import Final

_TOOLS = r"(tools?|functions?|tool use|(tool|function)[ -]call(ing|s)?)\b"
TOOLS_REFUSED: Final = re.compile(
    rf"(not|n't) support (the use of )?{_TOOLS}"
    rf"|\b{_TOOLS}.{{0,20}} (is|are) not (supported|available|enabled)"
    r"|tool choice requires|no endpoints? .{0,60}tool use",
    re.IGNORECASE,
)
"""How servers say that a model takes no tools; it is asked without them then."""
