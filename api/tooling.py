"""Which tools runs have, from the settings."""

from dataclasses import dataclass

from api.settings import Settings
from db.pool import Database
from db.stores.messages import MessageStore
from db.stores.tool_calls import ToolCallStore
from services.context.tokens import TokenCounter
from services.conversation.opening import Conversations
from services.files.service import FileService
from services.mcp.pool import McpPool
from services.prompt.on_demand import OnDemand
from services.tools.books import CallBooks
from services.tools.builtin.files import FileTools
from services.tools.builtin.history import SearchHistory
from services.tools.builtin.modules import RunModule
from services.tools.builtin.results import ReadToolResult
from services.tools.decisions import Decisions
from services.tools.ledger import LedgerLimits
from services.tools.results import ResultCutter
from services.tools.toolbox import Toolbox


@dataclass(frozen=True, slots=True)
class Tooling:
    """Which tools runs have, and what was done with them."""

    toolbox: Toolbox
    books: CallBooks


def make_tooling(
    settings: Settings,
    database: Database,
    pool: McpPool,
    on_demand: OnDemand,
    conversations: Conversations,
    tokens: TokenCounter,
    decisions: Decisions,
    files: FileService,
) -> Tooling:
    """The tools of the pool's servers and our own."""
    limits = settings.limits
    calls = ToolCallStore(database)
    cutter = ResultCutter(tokens, budget=limits.tool_result_tokens)
    own = (
        FileTools(files, cutter),
        SearchHistory(MessageStore(database)),
        RunModule(on_demand),
    )
    toolbox = Toolbox(pool, own, ReadToolResult(calls, cutter), most=limits.tools_per_run)
    kept = LedgerLimits(limits.tool_result_characters, settings.timeouts.approval)
    return Tooling(toolbox, CallBooks(calls, conversations, cutter, decisions, kept))
