"""Puts a streamed Chat Completion together, chunk by chunk, without I/O."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Literal

from longthought.orchestrator.models.openai.chat_wire import (
    REASONING_FIELDS,
    finish_reason,
    joined_halves,
    read_answer,
    reported_usage,
)
from longthought.orchestrator.models.openai.closing_object import ClosingObject
from longthought.orchestrator.models.openai.dialect import (
    Answer,
    CutFor,
    Emit,
    ServerFault,
    known_form,
)
from longthought.orchestrator.models.openai.thought_count import ThoughtCount
from longthought.types import JSON, Delta, JSONObject, Message, ToolCallPart, Usage

__all__ = ["ChatStream"]

_SET_FIELDS = frozenset(("id", "index", "type", "format", "name", "role"))
_CALLING: Message = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "", "name": "", "arguments": ""}],
}
_loads = json.JSONDecoder().decode


class ChatStream:
    """The reply so far, in the shape of one that was not streamed.

    ``tokens`` counts what arrived, one for each piece of text, arguments or reasoning: a piece
    may stand for more, never for less. A tool call's first piece is its name, its last the whole
    call: emitted once its arguments close, or once the server says that the reply ended by itself.
    Where a count of ``thoughts`` is given, it says why the stream is to be closed.
    """

    def __init__(
        self, turn: int = 0, emit: Emit | None = None, thoughts: ThoughtCount | None = None
    ) -> None:
        self._turn = turn
        self._thoughts = thoughts
        self.message: JSONObject = {"role": "assistant"}
        self.head: JSONObject = {}
        self.usage: JSON = None
        self._so_far: Usage | None = None  # that of a chunk which is not the last
        self._counted = 0  # tokens that had come when a usage did
        self.logprobs: list[JSONObject] = []
        self.ending: JSONObject = {}  # the choice of the chunk that says how it ended
        self.done = False
        self.tokens = 0
        self._emit = emit
        self._fresh: list[Delta] = []
        self._texts: dict[str, list[str]] = {}
        self._calls: list[JSONObject] = []
        self._arguments: list[list[str]] = []
        self._untold: dict[int, ClosingObject] = {}  # calls that are not complete yet
        self._call_ids: list[str] = []
        self._slots: dict[JSON, int] = {}
        self._reasoning_field: str | None = None
        self._fingerprint = ""

    @property
    def cut_for(self) -> CutFor | None:
        """Why the stream is to be closed, None while it may go on."""
        return self._thoughts.cut_for if self._thoughts is not None else None

    @property
    def ended(self) -> bool:
        """Whether the server said how the reply ended."""
        return bool(self.ending)

    @property
    def complete(self) -> bool:
        """Whether the server said that the reply has ended."""
        return bool(self.ending) or (self.done and self.tokens > 0)

    def take(self, kind: str, data: str) -> None:
        """Take in the data of one event.

        Raises:
            ServerFault: it is an error, or no JSON object.
        """
        if data.startswith("[DONE]"):
            self.done = True
            if not self.ending:
                self._tell_all()
        else:
            self._take_json(kind, data)
        if self._emit is not None and self._fresh:
            halves = "\\ud" in data or "\\uD" in data  # of a character that the next completes
            for delta in self._fresh:
                self._emit(replace(delta, text=_printable(delta.text)) if halves else delta)
            self._fresh.clear()

    def _take_json(self, kind: str, data: str) -> None:
        try:
            chunk = _loads(data)
        except (ValueError, RecursionError):
            chunk = None
        if not isinstance(chunk, dict):
            raise ServerFault("a piece of the stream is not JSON")
        if (chunk.get("error")) or kind == "error":
            error = chunk.get("error") or chunk
            raise ServerFault("an error in mid-reply", error, begun=self.tokens > 0)
        try:
            self._take_chunk(chunk)
        except (AttributeError, LookupError, TypeError, ValueError):
            raise ServerFault("a piece of the stream has no known form") from None

    def assembled(self) -> JSONObject:
        """The whole message in wire form."""
        message = {**self.message, **{name: "".join(t) for name, t in self._texts.items()}}
        if self._calls:
            for call, pieces in zip(self._calls, self._arguments, strict=True):
                call["function"]["arguments"] = "".join(pieces)
            message["tool_calls"] = self._calls
        return message

    def answer(self) -> Answer:
        """What has come so far, as a reply."""
        with known_form():
            head = {**self.head, "usage": self.usage}
            head["system_fingerprint"] = head.get("system_fingerprint") or self._fingerprint
            answer = read_answer(head, self.assembled(), self.ending, self.logprobs, self._turn)
        answer.counts_all = self._counted == self.tokens
        return answer

    def _take_chunk(self, chunk: JSONObject) -> None:
        if not self.head:
            self.head = chunk
        if chunk.get("usage"):
            self.usage = chunk["usage"]
            # vLLM sends it with the last chunk alone
            self._fingerprint = chunk.get("system_fingerprint") or self._fingerprint
            if chunk.get("choices"):
                self._so_far = reported_usage(self.usage)
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta")
            if delta:
                self._take_delta(delta)
            if choice.get("logprobs"):
                self.logprobs += choice["logprobs"].get("content") or ()
            if choice.get("finish_reason"):
                self.ending = choice
                if finish_reason(choice["finish_reason"], _CALLING, False) == "tool_calls":
                    self._tell_all()
        if chunk.get("usage"):
            self._counted = self.tokens

    def _take_delta(self, delta: JSONObject) -> None:
        for field, value in delta.items():
            if not value or field == "role":
                continue
            if field == "content" and isinstance(value, str):
                self._say("content", field, value)
            elif field == "tool_calls":
                for piece in value:
                    self._take_call(piece)
            elif field in REASONING_FIELDS and isinstance(value, str):
                self._reasoning_field = self._reasoning_field or _first_reasoning(delta)
                if field == self._reasoning_field:
                    self._say("reasoning", field, value)
            elif field == "refusal" and isinstance(value, str):
                self._say("content", field, value)
            else:
                _merge(self.message, {field: value})

    def _say(self, kind: Literal["content", "reasoning"], field: str, text: str) -> None:
        if field in self._texts:
            self._texts[field].append(text)
        else:
            self._texts[field] = [text]
        self.tokens += 1
        if self._thoughts is not None:
            self._count_thought(self._thoughts, kind)
        if self._emit is not None:
            self._fresh.append(Delta(kind, text, usage=self._so_far))

    def _count_thought(self, thoughts: ThoughtCount, kind: str) -> None:
        if kind == "reasoning":
            thoughts.thought()
        else:
            thoughts.said(self._so_far.completion_tokens if self._so_far is not None else 0)

    def _take_call(self, piece: JSONObject) -> None:
        function = piece.get("function") or {}
        identity = piece.get("id")
        slot = self._slots.get(piece.get("index"), len(self._calls))
        if identity and slot < len(self._calls) and self._calls[slot].get("id") != identity:
            slot = len(self._calls)  # servers that give every call the same index
        if slot == len(self._calls):
            self._slots[piece.get("index")] = slot
            name = function.get("name") or ""
            self._calls.append({"id": identity, "type": "function", "function": {"name": name}})
            self._arguments.append([])
            self._called(name, slot)
            if self._emit is not None:
                self._untold[slot] = ClosingObject()
                self._call_ids.append(self._call_id(identity or "", slot))
        arguments = function.get("arguments")
        if arguments:
            text = arguments if isinstance(arguments, str) else json.dumps(arguments)
            self._arguments[slot].append(text)
            self._called(text, slot)
            if slot in self._untold and self._untold[slot].closes(text):
                self._tell(slot)
        for field, value in piece.items():
            if field not in ("id", "type", "function", "index") and value is not None:
                _merge(self._calls[slot], {field: value})

    def _called(self, text: str, index: int) -> None:
        self.tokens += 1
        if self._thoughts is not None:
            self._count_thought(self._thoughts, "tool_call")
        if self._emit is not None:
            self._fresh.append(Delta("tool_call", text, index=index, usage=self._so_far))

    def _call_id(self, identity: str, slot: int) -> str:
        """The id that the call will have in the message."""
        if not identity or identity in self._call_ids:
            return f"call_{self._turn}_{slot}"
        return identity

    def _tell_all(self) -> None:
        for slot in list(self._untold):
            self._tell(slot, ended=True)

    def _tell(self, slot: int, *, ended: bool = False) -> None:
        """Emit a call that is complete: its arguments are a JSON object, or nothing will follow."""
        arguments = joined_halves("".join(self._arguments[slot]))
        if not ended and not _is_object(arguments):
            return
        del self._untold[slot]
        name = self._calls[slot]["function"]["name"]
        call: ToolCallPart = {"id": self._call_ids[slot], "name": name, "arguments": arguments}
        self._fresh.append(Delta("tool_call", "", tokens=0, index=slot, call=call))


def _is_object(text: str) -> bool:
    try:
        return isinstance(_loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _printable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _first_reasoning(delta: JSONObject) -> str | None:
    return next((field for field in REASONING_FIELDS if delta.get(field)), None)


def _merge(into: JSONObject, piece: JSONObject) -> None:
    """Add a piece of opaque data: texts grow, lists grow, listed objects meet by ``index``."""
    for key, value in piece.items():
        old: Any = into.get(key)
        if old is None or key in _SET_FIELDS:
            into[key] = value
        elif isinstance(old, str) and isinstance(value, str):
            into[key] = old + value
        elif isinstance(old, dict) and isinstance(value, dict):
            _merge(old, value)
        elif isinstance(old, list) and isinstance(value, list):
            for item in value:
                _merge_item(old, item)
        else:
            into[key] = value


def _merge_item(items: list[Any], item: Any) -> None:
    index = item.get("index") if isinstance(item, dict) else None
    for old in items if index is not None else ():
        if isinstance(old, dict) and old.get("index") == index:
            _merge(old, item)
            return
    items.append(item)
