"""What the page of a run shows, read with the rights of whoever looks."""

from __future__ import annotations

from rowcron.web.actor import Asker, Record
from rowcron.web.problems import Refusal
from rowcron.web.queries import ATTEMPTS, RUN

_RUN = (
    "select r.*, jsonb_pretty(r.args) as args_text,"
    " r.owner = rowcron._me() or pg_has_role(current_user, 'rowcron_operator', 'usage') as may_ask"
    f" from ({RUN}) as r"
)
_ATTEMPTS = f"select r.*, jsonb_pretty(r.result) as result_text from ({ATTEMPTS}) as r"


async def look_at_run(asker: Asker, run: int) -> Record:
    """Return all that the page of a run shows. Raises `Refusal` 404."""
    found = await asker.one(_RUN, {"run": run})
    if found is None:
        raise Refusal(404, f"there is no run {run}", detail="Or none that your role may see.")
    return {"run": found, "attempts": await asker.rows(_ATTEMPTS, (run,))}
