"""Signals to runs, from whoever has what they wait for."""

from __future__ import annotations

from longthought.errors import InvalidInput
from longthought.orchestrator.results import out_of_budget
from longthought.storage import Store
from longthought.types import JSON

__all__ = ["send_signal"]


async def send_signal(
    store: Store, run_id: str, name: str, value: JSON = None, key: str = ""
) -> str:
    """Send a signal to a run that can take it; see :meth:`Store.send_signal`. Returns its id.

    One that a limit has ended can: it goes on when that is raised.

    Raises:
        RunNotFound: there is no such run.
        InvalidInput: the run has ended, or name, value or key cannot be used.
    """
    row = await store.row(run_id)
    ends = row.status == "completed"
    if row.status == "incomplete":
        ended = (await store.read(run_id)).ended()
        ends = ended is not None and not out_of_budget(str(ended.body["stop_reason"]))
    if ends:
        problem = f"{run_id} has ended ({row.status}) and takes no signal"
        raise InvalidInput("run", problem, f"See what it came to: longthought show {run_id}")
    return await store.send_signal(run_id, name, value, key)
