"""What came of a module in a turn."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from services.prompt.building import Contribution
from services.scripts.types import ScriptResult
from services.scripts.values import Json

ModuleState = Literal["spoke", "silent", "failed", "stale"]


@dataclass(frozen=True, slots=True)
class Said:
    """What came of one module. `why` explains silence and staleness; a stale one says what it said last."""

    state: ModuleState
    contribution: Contribution
    why: str = ""
    ran: bool = False
    outputs: Mapping[str, Json] = field(default_factory=dict[str, Json])
    variables: Mapping[str, Json] = field(default_factory=dict[str, Json])
    error: Mapping[str, Any] | None = None
    ms: int = 0
    result: ScriptResult | None = None
    """All that its script left behind, if one ran."""


def texts_of(outputs: Mapping[str, Json]) -> dict[str, str]:
    """Outputs as they stand in prompts."""
    return {name: value if isinstance(value, str) else orjson.dumps(value).decode() for name, value in outputs.items()}
