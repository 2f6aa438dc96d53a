"""Everything that can be verified about one run from its raw rows: chain, history, payloads."""

from __future__ import annotations

from collections.abc import Iterable

from longthought.storage.chain import ChainCheck, Expectation, Finding, RawEvent
from longthought.storage.contents import ContentCheck
from longthought.storage.history import HistoryCheck
from longthought.types import JSON, JSONObject

__all__ = ["RunCheck"]


class RunCheck:
    """Takes the rows of one run, first all events, then all payloads; counts and collects."""

    def __init__(self, run_id: str, expectations: Iterable[Expectation] = ()) -> None:
        self.events = 0
        self.payloads = 0
        self.loose = 0
        self._chain = ChainCheck(run_id, expectations)
        self._history = HistoryCheck(run_id)
        self._contents = ContentCheck(run_id)
        self._run_id = run_id

    @property
    def deleted(self) -> int:
        """How many payloads were deleted behind tombstones."""
        return len(self._history.deleted)

    def event(self, row: RawEvent) -> None:
        """Check the next event: seq, type, key, body, hash."""
        self.events += 1
        event = self._chain.take(row)
        if event is not None:
            self._history.take(event)
            self._contents.name(event)

    def payload(self, name: JSON, salt: JSON, body: JSON, run_key: bytes | None) -> None:
        """Check a payload row; the order does not matter."""
        self.payloads += 1
        self._contents.take(name, salt, body, run_key)

    def finish(self, row: JSONObject) -> list[Finding]:
        """Compare with the run's row; all findings in the order of the events."""
        self._chain.finish()
        self._history.finish(row, self._chain.head, self._chain.length)
        self.loose = self._contents.finish(self._history.deleted, sealed=bool(self.deleted))
        findings = self._chain.findings + self._history.findings + self._contents.findings
        if self.events == 0:
            findings.append(Finding(self._run_id, None, "run", "", "the run has no events"))
        return sorted(findings, key=lambda finding: (finding.seq is None, finding.seq))
