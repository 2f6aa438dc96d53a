"""Checks the hash chain of one run over its raw rows, trusting nothing that stands in them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import ValidationError

from longthought.storage.digests import EMPTY_HEAD, canonical, chain_hash
from longthought.storage.events import TraceEvent, describe_invalid, parse_event
from longthought.storage.recording import event_text
from longthought.types import JSON

__all__ = ["ChainCheck", "Expectation", "Finding", "RawEvent"]

RawEvent = tuple[JSON, JSON, JSON, JSON, JSON]
"""seq, type, key, body and hash of an event as they stand in the database."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it was written; ``seq``, ``type`` and ``key`` name the event.

    ``run_id`` is empty for what belongs to no run, ``seq`` None for what belongs to no event.
    """

    run_id: str
    seq: int | None
    type: str
    key: str
    problem: str


@dataclass(frozen=True, slots=True)
class Expectation:
    """The head that a checkpoint saw at a length of the run."""

    length: int
    head: str
    checkpoint: str


class ChainCheck:
    """Takes the events of one run in order and collects what is wrong with them.

    A changed event is found where it stands: the check goes on from the stored hash.
    """

    def __init__(self, run_id: str, expectations: Iterable[Expectation] = ()) -> None:
        self.run_id = run_id
        self.findings: list[Finding] = []
        self.length = 0
        self.head = EMPTY_HEAD
        self._expected = sorted(set(expectations), key=lambda expected: expected.length)
        self._vouched = 0  # up to where a checkpoint has confirmed the chain
        self._rewritten = False

    def take(self, row: RawEvent) -> TraceEvent | None:
        """Check the next row; returns the event if it can be read."""
        seq, type_, key, body, digest = row
        place = (seq if isinstance(seq, int) else self.length + 1, str(type_), _shown(key))
        if not all(isinstance(part, str) for part in row[1:]) or not isinstance(seq, int):
            self._report(*place, "the row holds something else than text")
            self._advance(self.length + 1, _shown(digest))
            return None
        if seq != self.length + 1:
            gap = f"{self.length + 1}" + (f" to {seq - 1}" if seq - 1 > self.length + 1 else "")
            self._report(*place, f"event {gap} before it is missing")
        elif not _follows(self.head, digest, event_text(seq, type_, key, body)):
            self._report(*place, "the hash does not fit: this event was changed")
        self._advance(seq, digest, type_, key)
        try:
            value = json.loads(body)
            event = parse_event(seq, type_, key, value)
            if canonical(value) != body:
                self._report(*place, "its JSON is not canonical")
        except ValidationError as error:
            self._report(*place, f"no event of the format: {describe_invalid(error)}")
            return None
        except (ValueError, RecursionError) as error:
            self._report(*place, f"no event of the format: {error}")
            return None
        return event

    def finish(self) -> None:
        """Report what checkpoints saw beyond the last event."""
        beyond = [expected for expected in self._expected if expected.length > self.length]
        if beyond and not self._rewritten:
            last = beyond[-1]
            span = f"{self.length + 1} to {last.length}"
            self._report(
                self.length + 1,
                "",
                "",
                f"events {span} are gone: checkpoint {last.checkpoint} saw {last.length} events",
            )

    def _advance(self, seq: int, digest: str, type_: str = "", key: str = "") -> None:
        self.length, self.head = seq, digest
        while self._expected and self._expected[0].length <= seq:
            expected = self._expected.pop(0)
            if expected.length == 0 or self._rewritten:
                continue
            if expected.length == seq and expected.head == digest:
                self._vouched = seq
                continue
            self._rewritten = True
            self._report(
                expected.length,
                type_,
                key,
                f"rewritten: checkpoint {expected.checkpoint} saw another head here, so an event "
                f"from {self._vouched + 1} to {expected.length} is not what it was",
            )

    def _report(self, seq: int, type_: str, key: str, problem: str) -> None:
        self.findings.append(Finding(self.run_id, seq, type_, key, problem))


def _follows(head: str, digest: str, text: str) -> bool:
    try:
        return chain_hash(head, text) == digest
    except UnicodeEncodeError:  # damaged bytes
        return False


def _shown(value: JSON) -> str:
    return value if isinstance(value, str) else repr(value)
