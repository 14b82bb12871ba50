"""What a run has cost, as it is written down when the run ends."""

from db.ids import PersonaId
from db.stores.runs import Spent
from services.agent.types import Usage
from services.ending import Outcome
from services.runs.active import ActiveRun


def spent_by(run: ActiveRun, outcome: Outcome) -> Spent | None:
    """The tokens of an ended run; None if no model was asked.

    What servers have counted, and beside it an estimate of the calls of which they told nothing: those that were
    stopped, and all calls of servers that never tell. A call that failed before its first word cost nothing.
    """
    usage = run.usage or Usage()
    said = max(0, run.reply_tokens - usage.output_tokens)
    is_uncounted = run.unmeasured > 0 and (outcome.finish_reason != "error" or said > 0)
    estimated = run.unmeasured + said if is_uncounted else 0
    if run.usage is None and not estimated:
        return None
    draft = run.draft
    return Spent(
        usage.input_tokens,
        usage.output_tokens,
        usage.thinking_tokens,
        estimated,
        draft.provider,
        draft.model,
        draft.persona_id and PersonaId(draft.persona_id),
    )
