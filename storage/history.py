"""Checks that the events of one run make a history, and that its row repeats what they say."""

from __future__ import annotations

from longthought.storage.chain import Finding
from longthought.storage.events import (
    AttemptStarted,
    EffectFinished,
    EffectStarted,
    EffectToppedUp,
    PayloadDeleted,
    RunEnded,
    RunStarted,
    TraceEvent,
)
from longthought.storage.recording import due_of
from longthought.types import JSONObject

__all__ = ["HistoryCheck"]


class HistoryCheck:
    """Takes the parsed events of one run in order."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.findings: list[Finding] = []
        self.deleted: set[str] = set()
        self._start: RunStarted | None = None
        self._attempts = 0
        self._status = "running"
        self._wake_at: float | None = None
        self._started: dict[str, EffectStarted] = {}
        self._finished: set[tuple[str, int]] = set()

    def take(self, event: TraceEvent) -> None:
        """Check the next event against those before it."""
        if isinstance(event, EffectStarted):
            self._effect_started(event)
        elif isinstance(event, EffectFinished):
            self._effect_finished(event)
        elif isinstance(event, EffectToppedUp):
            if event.key not in self._started:
                self._report(event, "more was granted to an effect that was never started")
        elif isinstance(event, RunStarted):
            if event.seq != 1:
                self._report(event, "a run starts once, with its first event")
            if event.run != self.run_id:
                self._report(event, f"this is the chain of run {event.run}")
            self._start = self._start or event
        elif isinstance(event, AttemptStarted):
            if event.attempt != self._attempts + 1:
                self._report(event, f"attempt {event.attempt} follows attempt {self._attempts}")
            self._attempts = event.attempt
            self._status, self._wake_at = "running", None
        elif isinstance(event, RunEnded):
            self._status = event.status
            self._wake_at = due_of(event.waiting)
        elif isinstance(event, PayloadDeleted):
            self.deleted.update(event.payloads)
            if self._status == "running":
                self._status = "failed"
            self._wake_at = None  # it cannot be gone on with
        if event.seq == 1 and not isinstance(event, RunStarted):
            self._report(event, "the first event is not the manifest")

    def finish(self, row: JSONObject, head: str, length: int) -> None:
        """Compare the run's row with what its events say; owner and lease are nobody's word."""
        start = self._start
        told: JSONObject = {
            "attempt": self._attempts,
            "status": self._status,
            "head": head,
            "length": length,
        }
        if self._status != "running" and "wake_at" in row:  # while it runs it is the fence's
            told["wake_at"] = self._wake_at
        if start is not None:
            told |= {"workflow": start.workflow, "created_at": start.at}
        for column, value in told.items():
            if row[column] != value:
                self._row(f"the row's {column} is {row[column]!r}, its events say {value!r}")
        if "run_key" not in row:  # an exported run
            return
        if self.deleted and row["run_key"] is not None:
            self._row("payloads were deleted, but the run key is still there")
        if not self.deleted and row["run_key"] is None:
            self._row("the run key is gone, but no payload was deleted")

    def _effect_started(self, event: EffectStarted) -> None:
        before = self._started.get(event.key)
        if before is not None and event.attempt <= before.attempt:
            self._report(event, f"started again as attempt {event.attempt}")
        self._started[event.key] = event

    def _effect_finished(self, event: EffectFinished) -> None:
        start = self._started.get(event.key)
        if (event.key, event.attempt) in self._finished:
            self._report(event, "the effect was finished before")
        self._finished.add((event.key, event.attempt))
        if start is not None and event.attempt == start.attempt:
            if (event.kind, event.request) != (start.kind, start.request):
                self._report(event, "finished as another request than it was started with")
        elif start is not None and event.attempt > start.attempt:
            self._report(event, f"attempt {event.attempt} was never started")

    def _report(self, event: TraceEvent, problem: str) -> None:
        self.findings.append(Finding(self.run_id, event.seq, event.type, event.key, problem))

    def _row(self, problem: str) -> None:
        self.findings.append(Finding(self.run_id, None, "run", "", problem))
