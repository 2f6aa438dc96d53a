"""Puts a streamed response together, event by event, without I/O."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace

from longthought.orchestrator.models.openai.chat_wire import joined_halves
from longthought.orchestrator.models.openai.dialect import (
    Answer,
    CutFor,
    Emit,
    ServerFault,
    known_form,
)
from longthought.orchestrator.models.openai.responses_items import REASONING_BREAK
from longthought.orchestrator.models.openai.responses_wire import failure, read_answer
from longthought.orchestrator.models.openai.thought_count import ThoughtCount
from longthought.types import JSON, Delta, JSONObject

__all__ = ["ResponsesStream"]

_TEXT, _REFUSAL, _THOUGHT, _SUMMARY = "output_text", "refusal", "reasoning_text", "summary_text"
_ARGUMENTS = "arguments"
_DELTAS = {
    "response.output_text.delta": (_TEXT, "content_index"),
    "response.refusal.delta": (_REFUSAL, "content_index"),
    "response.reasoning_text.delta": (_THOUGHT, "content_index"),
    "response.reasoning_summary_text.delta": (_SUMMARY, "summary_index"),
    "response.function_call_arguments.delta": (_ARGUMENTS, ""),
}
_DONE = {
    "response.output_text.done": (_TEXT, "content_index", "text"),
    "response.refusal.done": (_REFUSAL, "content_index", "refusal"),
    "response.reasoning_text.done": (_THOUGHT, "content_index", "text"),
    "response.reasoning_summary_text.done": (_SUMMARY, "summary_index", "text"),
    "response.function_call_arguments.done": (_ARGUMENTS, "", "arguments"),
}
_ITEM_TYPES = {
    _TEXT: "message",
    _REFUSAL: "message",
    _THOUGHT: "reasoning",
    _SUMMARY: "reasoning",
    _ARGUMENTS: "function_call",
}
_BEGINNINGS = frozenset(("response.created", "response.in_progress", "response.queued"))
_ENDINGS = {
    "response.completed": "completed",
    "response.incomplete": "incomplete",
    "response.failed": "failed",
}
_loads = json.JSONDecoder().decode


@dataclass(slots=True)
class _Item:
    """An output item under way. ``pieces`` are its texts, by kind and index of their part."""

    wire: JSONObject
    place: int
    call: int = -1
    call_id: str = ""
    finished: bool = False
    told: bool = False
    pieces: dict[tuple[str, int], list[str]] = field(default_factory=dict)

    def text(self, *kinds: str) -> str:
        """What came of some kinds of parts, in the order of the parts."""
        return "".join("".join(self.pieces[key]) for key in sorted(self.pieces) if key[0] in kinds)

    @property
    def arguments(self) -> JSON:
        """The arguments of a function call, as far as they came."""
        if self.finished or not self.pieces:
            return self.wire.get("arguments", "")
        return self.text(_ARGUMENTS)


class ResponsesStream:
    """The response so far. Items are told apart by their ids or, without, by their index.

    ``tokens`` counts what arrived, one for each piece of text, arguments or reasoning, and one for
    the name of a function: a piece may stand for more, never for less. Pieces of a summary are not
    counted: they are no part of the reasoning that they stand for. Where a count of ``thoughts`` is
    given, it says why the stream is to be closed.
    """

    def __init__(
        self, turn: int = 0, emit: Emit | None = None, thoughts: ThoughtCount | None = None
    ) -> None:
        self._turn = turn
        self._count = thoughts
        self.head: JSONObject = {}
        self.ending: JSONObject = {}
        self.done = False
        self.tokens = 0
        self._last: JSONObject = {}
        self._emit = emit
        self._fresh: list[Delta] = []
        self._items: list[_Item] = []
        self._by_id: dict[JSON, _Item] = {}
        self._by_index: dict[JSON, _Item] = {}
        self._call_ids: set[str] = set()
        self._calls = 0
        self._thoughts = ""  # which kind of reasoning is shown: the other repeats it
        self._logprobs: list[JSONObject] = []

    @property
    def cut_for(self) -> CutFor | None:
        """Why the stream is to be closed, None while it may go on."""
        return self._count.cut_for if self._count is not None else None

    @property
    def ended(self) -> bool:
        """Whether the server said how the reply ended."""
        return bool(self.ending)

    @property
    def complete(self) -> bool:
        """Whether the server said that the reply has ended."""
        return bool(self.ending) or (self.done and self.tokens > 0)

    @property
    def number(self) -> int | None:
        """The ``sequence_number`` of the last event, None if it had none."""
        return self._last.get("sequence_number")

    def finish(self, response: JSONObject) -> None:
        """Take the rest from the whole response, which was had in another way.

        Raises:
            ServerFault: it failed, or has no known form.
        """
        with known_form():
            self._end(f"response.{response.get('status')}", {"response": response})

    def take(self, kind: str, data: str) -> None:
        """Take in one event.

        Raises:
            ServerFault: it is an error, the response failed, or it is nothing that can be read.
        """
        if data.startswith("[DONE]"):
            self.done = True
            if not self.ending:
                self._tell_all()
        else:
            try:
                event = _loads(data)
            except (ValueError, RecursionError):
                event = None
            if not isinstance(event, dict):
                raise ServerFault("a piece of the stream is not JSON")
            self._last = event
            try:
                self._take(event.get("type") or kind, event)
            except (AttributeError, LookupError, TypeError, ValueError):
                raise ServerFault("a piece of the stream has no known form") from None
        if self._emit is not None and self._fresh:
            halves = "\\ud" in data or "\\uD" in data  # of a character that the next completes
            for delta in self._fresh:
                self._emit(replace(delta, text=_printable(delta.text)) if halves else delta)
            self._fresh.clear()

    def answer(self) -> Answer:
        """What has come so far, as a reply."""
        with known_form():
            response = {**self.head, **self.ending}
            return read_answer(response, self.assembled(), self._turn, self._logprobs)

    def assembled(self) -> list[JSONObject]:
        """The output items: those that were finished, of the others what there is of them."""
        items = sorted(self._items, key=lambda item: item.place)
        wires = [_called(item) if item.finished else _unfinished(item) for item in items]
        return [wire for wire in wires if wire]

    def _take(self, kind: str, event: JSONObject) -> None:
        if kind in _DELTAS:
            self._say(kind, event)
        elif kind in _DONE:
            self._settle(kind, event)
        elif kind == "response.output_item.added":
            self._add(event["item"], event.get("output_index"))
        elif kind == "response.output_item.done":
            self._finish(event["item"], event.get("output_index"))
        elif kind in _ENDINGS:
            self._end(kind, event)
        elif kind in _BEGINNINGS:
            self.head = event["response"]
        elif kind == "error" or event.get("error"):
            raise ServerFault("an error in mid-reply", _told(event), begun=self.tokens > 0)
        elif kind.endswith(".delta") and event.get("delta"):
            self.tokens += 1  # of a tool that runs at the provider

    def _say(self, kind: str, event: JSONObject) -> None:
        text = event["delta"]
        if not isinstance(text, str) or not text:
            return
        part, index_name = _DELTAS[kind]
        item = self._by_id.get(event.get("item_id")) or self._by_index.get(
            event.get("output_index")
        )
        if item is None:
            item = self._unannounced(part, event)
        key = (part, event.get(index_name, 0))
        pieces = item.pieces.get(key)
        if pieces is None:
            pieces = item.pieces[key] = []
            if part in (_THOUGHT, _SUMMARY):
                self._begin_thought(part, item)
        pieces.append(text)
        self.tokens += part != _SUMMARY
        if self._count is not None:
            self._count_thought(self._count, part)
        if part == _TEXT and event.get("logprobs"):
            self._logprobs += event["logprobs"]
        if self._emit is None:
            return
        if part in (_TEXT, _REFUSAL):
            self._fresh.append(Delta("content", text))
        elif part == _ARGUMENTS:
            self._fresh.append(Delta("tool_call", text, index=item.call))
        elif part == self._thoughts:
            self._fresh.append(Delta("reasoning", text, tokens=int(part == _THOUGHT)))

    def _count_thought(self, count: ThoughtCount, part: str) -> None:
        if part not in (_THOUGHT, _SUMMARY):
            count.said()
        elif part == _THOUGHT:
            count.thought()

    def _begin_thought(self, part: str, item: _Item) -> None:
        self._thoughts = self._thoughts or part
        if self._emit is not None and part == self._thoughts and len(item.pieces) > 1:
            self._fresh.append(Delta("reasoning", REASONING_BREAK, tokens=0))

    def _unannounced(self, part: str, event: JSONObject) -> _Item:
        """The item of a piece that names none we know: the last one if it names none at all."""
        wire: JSONObject = {"type": _ITEM_TYPES[part]}
        index = event.get("output_index")
        if event.get("item_id"):
            wire["id"] = event["item_id"]
        elif index is None and self._items:
            last = self._items[-1]
            if last.wire["type"] == wire["type"] and not last.finished:
                return last
        return self._add(wire, index)

    def _add(self, wire: JSONObject, index: JSON) -> _Item:
        known = self._known(wire, None)
        if known is not None:
            return known
        place = index if isinstance(index, int) else len(self._items)
        item = _Item(wire, place)
        self._items.append(item)
        for name in ("id", "call_id"):
            if wire.get(name):
                self._by_id[wire[name]] = item
        if index is not None:
            self._by_index[index] = item
        if wire["type"] == "function_call":
            item.call, self._calls = self._calls, self._calls + 1
            self.tokens += 1
            if self._emit is not None:
                self._fresh.append(Delta("tool_call", wire.get("name") or "", index=item.call))
        return item

    def _known(self, wire: JSONObject, index: JSON) -> _Item | None:
        item = self._by_id.get(wire.get("id"))
        if item is None:
            item = self._by_id.get(wire.get("call_id"))
            if item is not None and item.finished:
                item = None  # another call of the same id
        if item is None:
            item = self._by_index.get(index)
            if item is not None and (item.finished or item.wire["type"] != wire["type"]):
                item = None  # servers that give every item the same index
        return item

    def _settle(self, kind: str, event: JSONObject) -> None:
        """A part is complete: what it says at its end counts."""
        part, index_name, text_name = _DONE[kind]
        item = self._by_id.get(event.get("item_id"))
        item = item or self._by_index.get(event.get("output_index"))
        if item is None:
            item = self._unannounced(part, event)
        if isinstance(event.get(text_name), str):
            item.pieces[part, event.get(index_name, 0)] = [event[text_name]]
        if part == _ARGUMENTS:
            self._tell(item)

    def _finish(self, wire: JSONObject, index: JSON) -> None:
        item = self._known(wire, index)
        if item is None:
            item = self._add(wire, index)
        item.wire, item.finished = wire, True
        self._tell(item)

    def _end(self, kind: str, event: JSONObject) -> None:
        response: JSONObject = dict(event.get("response") or {})
        if response.get("status") not in ("completed", "incomplete", "failed", "cancelled"):
            response["status"] = _ENDINGS[kind]
        fault = failure(response, begun=self.tokens > 0)
        if fault is not None:
            raise fault
        self.ending, self.done = response, True
        self._fill_in(response.get("output") or [])
        if response["status"] == "completed":
            self._tell_all()

    def _fill_in(self, output: list[JSONObject]) -> None:
        """Take from the last event what was not finished before, or never announced."""
        if len(output) <= len(self._items) and all(item.finished for item in self._items):
            return
        by_place = {item.place: item for item in self._items}
        for place, wire in enumerate(output):
            item = self._by_id.get(wire.get("id")) or self._by_id.get(wire.get("call_id"))
            item = item or by_place.get(place)
            if item is None or item.wire["type"] != wire["type"]:
                item = self._add(wire, place)
            if not item.finished:
                item.wire, item.finished = wire, True
                self._tell(item)

    def _tell_all(self) -> None:
        for item in self._items:
            self._tell(item, ended=True)

    def _tell(self, item: _Item, *, ended: bool = False) -> None:
        """Say, once, that a call is complete: its arguments are an object, or the reply ended."""
        if self._emit is None or item.told or item.call < 0:
            return
        arguments = item.arguments
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments or {}, ensure_ascii=False)
        name = item.wire.get("name") or ""
        if not (ended or (name and _is_object(arguments))):
            return
        item.told = True
        identity = item.wire.get("call_id") or ""
        if not identity or identity in self._call_ids:
            identity = f"call_{self._turn}_{item.place}"
        item.call_id = identity
        self._call_ids.add(identity)
        arguments = joined_halves(arguments)
        call = Delta(
            "tool_call",
            "",
            tokens=0,
            index=item.call,
            call={"id": identity, "name": name, "arguments": arguments},
        )
        self._fresh.append(call)


def _called(item: _Item) -> JSONObject:
    """A finished item, a call under the id that was told."""
    return {**item.wire, "call_id": item.call_id} if item.call_id else item.wire


def _unfinished(item: _Item) -> JSONObject | None:
    """What there is of an item whose end never came, in a form that can be sent back."""
    kind = item.wire["type"]
    if kind == "message":
        refusal: list[JSONObject] = [{"type": _REFUSAL, "refusal": item.text(_REFUSAL)}]
        said = item.text(_TEXT) or (refusal if refusal[0]["refusal"] else None)
        return {"type": kind, "role": "assistant", "content": said} if said else None
    if kind == "function_call":
        own = {key: value for key, value in item.wire.items() if key not in ("id", "status")}
        return _called(replace(item, wire={**own, "arguments": item.arguments}))
    if kind == "reasoning":
        parts = {
            name: [
                {"type": part, "text": "".join(item.pieces[key])}
                for key in sorted(item.pieces)
                if key[0] == part
            ]
            for name, part in (("content", _THOUGHT), ("summary", _SUMMARY))
        }
        return {"type": kind, **parts, "status": "in_progress"} if any(parts.values()) else None
    return None


def _told(event: JSONObject) -> JSON:
    """The error in an ``error`` event; the type of the event says nothing about it."""
    return event.get("error") or {key: event.get(key) for key in ("code", "message", "param")}


def _is_object(text: str) -> bool:
    try:
        return isinstance(_loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _printable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
