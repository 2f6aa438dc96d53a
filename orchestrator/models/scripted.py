"""A model that says what it is told: for tests, examples and benchmarks without a model.

A reply depends on the request alone, never on the order or the time of calls, so that a run with a
scripted model is the same under any concurrency and can be resumed and replayed.

    model = ScriptedModel([call("calculator", expression="6*7"), "The answer is 42."])
    model = ScriptedModel({"How much is 6*7?": "42"})
    model = ScriptedModel(lambda request: f"I guess {rng(request).randint(1, 6)}.")
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import json
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, cast

from longthought.errors import BackendError, InvalidInput, QuestionRefused
from longthought.orchestrator.models import toytokens
from longthought.types import (
    Capabilities,
    Delta,
    FinishReason,
    Grant,
    JSONObject,
    Message,
    ModelReply,
    ModelRequest,
    ToolCallPart,
    Usage,
    text_of,
)

__all__ = ["Answer", "Script", "ScriptedModel", "call", "rng", "says"]

Answer: TypeAlias = str | Mapping[str, Any] | Sequence[ToolCallPart]
"""A text; a message, a whole reply or one tool call as a dict; or several tool calls."""

Answering: TypeAlias = Callable[[ModelRequest], "Answer | Awaitable[Answer]"]

Script: TypeAlias = "Answering | Sequence[Answer | Answering] | Mapping[str, Answer | Answering]"
"""Where answers come from, see :class:`ScriptedModel`."""

CutFor: TypeAlias = Literal["thought_cut", "thought_short"]

_CAPABILITIES = Capabilities(top_up=True, continues=True, seeds=True)


def call(name: str, /, **arguments: Any) -> ToolCallPart:
    """A call of the tool ``name``. Its id is filled in when the model says it."""
    return {"id": "", "name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}


def says(text: str | None, *calls: ToolCallPart, reasoning: str = "") -> Message:
    """An assistant message with text, tool calls and visible reasoning."""
    message: Message = {"role": "assistant", "content": text}
    if reasoning:
        message["reasoning"] = [{"text": reasoning}]
    if calls:
        message["tool_calls"] = list(calls)
    return message


def rng(request: ModelRequest, *salt: object) -> random.Random:
    """Random numbers that depend on nothing but the request (its seed included) and ``salt``."""
    return random.Random(int.from_bytes(_digest([request, [str(part) for part in salt]])[:8]))


class ScriptedModel:
    """Answers from a script, token by token, exactly within its grant.

    ``script`` is one of

    - a function of the request, plain or async;
    - a list: the answer to a conversation that holds *n* finished assistant messages is item *n*;
    - a mapping from the text of the last user or tool message.

    Items of a list and values of a mapping may be functions too. When an unfinished message is
    continued (``continue_last``), an answer that starts with its text is given without that start;
    the reply holds only what is new.

    Tokens are those of :mod:`longthought.orchestrator.models.toytokens`; at the end of the grant
    the model asks for ``top_up_by`` more. ``latency`` is the time before the first token and
    ``token_delay`` the time for each token, both in seconds.

    ``faults(request, attempt)`` may return an exception to raise instead of answering; ``attempt``
    counts, from 0, the tries of the same request since it last succeeded.

    ``capabilities`` may take away what the model can do, to play a poorer backend: without
    ``top_up`` it ends at the first grant, without ``honours_max_tokens`` it ignores the grant,
    without ``streams`` it emits nothing.

    ``calls`` counts calls of :meth:`generate` and ``peak`` the most that were in flight at once.
    """

    def __init__(
        self,
        script: Script,
        *,
        name: str = "scripted",
        slots: int = 16,
        context_capacity: int | None = None,
        latency: Callable[[ModelRequest], float] | None = None,
        token_delay: float = 0.0,
        top_up_by: int = 64,
        faults: Callable[[ModelRequest, int], Exception | None] | None = None,
        capabilities: Capabilities = _CAPABILITIES,
    ) -> None:
        if slots < 1:
            raise InvalidInput("slots", f"{slots} calls at once is too few", "Use 1 or more")
        if top_up_by < 1:
            raise InvalidInput("top_up_by", f"{top_up_by} tokens is too few", "Use 1 or more")
        self.name, self.slots, self.capabilities = name, slots, capabilities
        self.context_capacity = context_capacity
        self.calls = self.peak = 0
        self._script, self._latency, self._token_delay = script, latency, token_delay
        self._top_up_by, self._faults = top_up_by, faults
        self._tries: dict[bytes, int] = {}
        self._in_flight = 0

    def __repr__(self) -> str:
        return f"ScriptedModel(name={self.name!r})"

    async def generate(
        self,
        request: ModelRequest,
        grant: Grant,
        emit: Callable[[Delta], None] | None = None,
    ) -> ModelReply:
        """The scripted answer, cut where the grant or ``sampling.max_tokens`` ends.

        Raises:
            BackendError: a list has no answer for this turn, or ``faults`` said so.
            QuestionRefused: a mapping has no answer for this text.
        """
        self.calls += 1
        self._in_flight += 1
        self.peak = max(self.peak, self._in_flight)
        try:
            # Even without a latency a call gives way once, so that others start meanwhile.
            await asyncio.sleep(self._latency(request) if self._latency else 0)
            self._fail(request)
            answer = await _answer(self._script, request)
            reply = self._reply(request, answer)
            if not self.capabilities.streams:
                emit = None
            message, cut_for = self._thought(request, reply["message"])
            said, finish = await self._say(request, message, grant, emit)
            if cut_for is not None and finish is None:
                reply[cut_for] = True
                finish = "cut" if message is not reply["message"] else None
            return self._counted(request, reply, said, finish)
        finally:
            self._in_flight -= 1

    def count_prompt(self, request: ModelRequest) -> int | None:
        """Prompt tokens of the request, exactly as its usage will say."""
        return toytokens.count_request(request)

    def fingerprint(self) -> JSONObject:
        """Kind, name and what the script is: its hash if it is data, its name if it is code."""
        return {"kind": "scripted", "name": self.name, "script": _script_name(self._script)}

    async def aclose(self) -> None:
        """Nothing to release."""

    def _fail(self, request: ModelRequest) -> None:
        if self._faults is None:
            return
        key = _digest(request)
        attempt = self._tries.pop(key, 0)
        fault = self._faults(request, attempt)
        if fault is not None:
            self._tries[key] = attempt + 1
            raise fault

    def _reply(self, request: ModelRequest, answer: Answer) -> ModelReply:
        """The whole reply that the script wants to give, with an empty usage unless it gave one."""
        whole = cast(
            "ModelReply",
            dict(answer) if isinstance(answer, Mapping) and "message" in answer else {},
        )
        message = _message(whole["message"] if whole else answer)
        _drop_start(request, message)
        stops = request.get("sampling", {}).get("stop", ())
        stopped = _cut_at_stop(message, stops)
        turn = sum(1 for old in request["messages"] if old["role"] == "assistant")
        for index, part in enumerate(message.get("tool_calls", ())):
            part["id"] = part["id"] or f"call_{turn}_{index}"
        finish: FinishReason = "tool_calls" if message.get("tool_calls") else "stop"
        base: ModelReply = {
            "message": message,
            "finish_reason": finish,
            "usage": {},
            "model": self.name,
        }
        if stops:
            base["stopped_by"] = stopped
        return cast("ModelReply", {**base, **whole, "message": message})

    async def _say(
        self,
        request: ModelRequest,
        message: Message,
        grant: Grant,
        emit: Callable[[Delta], None] | None,
    ) -> tuple[Message, FinishReason | None]:
        """What can be said within the grant, and ``length`` if that was not everything."""
        deltas = list(_deltas(message))
        complete = _complete(message, len(deltas))
        wish = request.get("sampling", {}).get("max_tokens", len(deltas))
        done = 0
        while done < len(deltas):
            allowed = min(len(deltas), wish, await self._room(grant, done, wish))
            if allowed <= done:
                return _first(message, deltas[:done]), "length"
            for number, delta in enumerate(deltas[done:allowed], done + 1):
                if self._token_delay:
                    await asyncio.sleep(self._token_delay)
                if emit is not None:
                    emit(delta)
                if emit is not None and number in complete:
                    emit(complete[number])
            done = allowed
        return message, None

    def _thought(self, request: ModelRequest, message: Message) -> tuple[Message, CutFor | None]:
        """What is said before the stream is closed for its thought, and why it is."""
        sampling, deltas = request.get("sampling", {}), list(_deltas(message))
        thought = sum(delta.kind == "reasoning" for delta in deltas)
        most = sampling.get("thinking_tokens") or thought
        if most < thought:
            return _first(message, deltas[:most]), "thought_cut"
        if not 0 < thought < min(sampling.get("min_thinking_tokens", 0), len(deltas)):
            return message, None
        if not self.capabilities.streams:
            return message, "thought_short"
        return _first(message, deltas[:thought]), "thought_short"

    async def _room(self, grant: Grant, done: int, wish: int) -> int:
        """Tokens that may have been said before the next look at the grant."""
        if not self.capabilities.honours_max_tokens:
            return wish
        room = grant.tokens
        if room <= done < wish and self.capabilities.top_up:
            room = await grant.top_up(min(self._top_up_by, wish - done))
        return room

    def _counted(
        self, request: ModelRequest, reply: ModelReply, said: Message, finish: FinishReason | None
    ) -> ModelReply:
        if finish is None and reply["usage"]:
            return reply
        thought = sum(toytokens.count(item.get("text", "")) for item in said.get("reasoning", ()))
        usage = Usage(
            prompt_tokens=toytokens.count_request(request),
            completion_tokens=toytokens.count_message(said),
            reasoning_tokens=thought,
            calls=1,
        )
        reply["message"], reply["usage"] = said, usage.to_json()
        reply["finish_reason"] = finish or reply["finish_reason"]
        return reply


async def _answer(script: Script, request: ModelRequest) -> Answer:
    """The item of the script for this request, called and awaited until it is data."""
    item: Any = script
    if isinstance(script, Mapping):
        item = _by_text(script, request)
    elif isinstance(script, Sequence):
        item = _by_turn(script, request)
    if callable(item):
        item = item(request)
        if inspect.isawaitable(item):
            item = await item
    return cast("Answer", item)


def _by_text(script: Mapping[str, Any], request: ModelRequest) -> Any:
    text = next(
        (text_of(m) for m in reversed(request["messages"]) if m["role"] in ("user", "tool")), ""
    )
    try:
        return script[text]
    except KeyError:
        raise QuestionRefused(
            "question", f"the script has no answer to {text!r}", f"It knows {sorted(script)}"
        ) from None


def _by_turn(script: Sequence[Any], request: ModelRequest) -> Any:
    turn = sum(1 for message in request["messages"] if message["role"] == "assistant")
    if request.get("continue_last"):
        turn -= 1
    if turn >= len(script):
        raise BackendError(f"the script has {len(script)} answers and turn {turn + 1} was asked")
    return script[turn]


def _message(answer: Any) -> Message:
    """An assistant message of its own, whatever short form the answer has."""
    if isinstance(answer, str):
        return says(answer)
    if not isinstance(answer, Mapping):
        return says(None, *(cast("ToolCallPart", dict(part)) for part in answer))
    if "arguments" in answer:
        return says(None, cast("ToolCallPart", dict(answer)))
    message = cast("Message", {"role": "assistant", "content": None, **answer})
    if "tool_calls" in message:
        message["tool_calls"] = [cast("ToolCallPart", dict(part)) for part in message["tool_calls"]]
    return message


def _drop_start(request: ModelRequest, message: Message) -> None:
    if not request.get("continue_last"):
        return
    start, text = text_of(request["messages"][-1]), text_of(message)
    if start and text.startswith(start):
        message["content"] = text[len(start) :]


def _cut_at_stop(message: Message, stops: Iterable[str]) -> str | None:
    """Leave out the first stop string and all behind it; the stop string, if there was one."""
    content = message["content"]
    if not isinstance(content, str):
        return None
    ends = [(end, stop) for stop in stops if stop and (end := content.find(stop)) >= 0]
    if not ends:
        return None
    end, stop = min(ends)
    message["content"] = content[:end]
    return stop


def _deltas(message: Message) -> Iterable[Delta]:
    """The message one token at a time: reasoning, text, tool calls (each name, then arguments)."""
    for index, item in enumerate(message.get("reasoning", ())):
        for token in toytokens.split(item.get("text", "")):
            yield Delta("reasoning", token, index=index)
    for token in toytokens.split(text_of(message)):
        yield Delta("content", token)
    for index, part in enumerate(message.get("tool_calls", ())):
        for token in (part["name"], *toytokens.split(part["arguments"])):
            yield Delta("tool_call", token, index=index)


def _complete(message: Message, tokens: int) -> dict[int, Delta]:
    """The calls of a message as they are told, by the number of tokens that have gone before."""
    calls = message.get("tool_calls", [])
    sizes = [1 + toytokens.count(part["arguments"]) for part in calls]
    told, end = {}, tokens - sum(sizes)
    for index, (part, size) in enumerate(zip(calls, sizes, strict=True)):
        end += size
        call = cast("ToolCallPart", dict(part))
        told[end] = Delta("tool_call", "", tokens=0, index=index, call=call)
    return told


def _first(message: Message, deltas: Sequence[Delta]) -> Message:
    """The message as far as these deltas go; a tool call that has not begun is left out."""
    said = cast("Message", dict(message))
    texts: dict[tuple[str, int], str] = {}
    for delta in deltas:
        texts[delta.kind, delta.index] = texts.get((delta.kind, delta.index), "") + delta.text
    if message["content"] is not None:
        said["content"] = texts.get(("content", 0), "")
    if "reasoning" in message:
        items = enumerate(message["reasoning"])
        kept = [
            {**item, "text": texts["reasoning", i]}
            for i, item in items
            if ("reasoning", i) in texts
        ]
        said["reasoning"] = cast("Any", kept)
    parts: list[ToolCallPart] = []
    for index, part in enumerate(said.pop("tool_calls", ())):
        text = texts.get(("tool_call", index), "")
        if text:
            parts.append({**part, "arguments": text[len(part["name"]) :]})
    if parts:
        said["tool_calls"] = parts
    return said


def _digest(value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).digest()


def _script_name(script: Script) -> str:
    if callable(script):
        return f"{script.__module__}.{getattr(script, '__qualname__', type(script).__qualname__)}"
    try:
        return "sha256:" + _digest(script).hex()
    except TypeError:
        return type(script).__name__  # functions among the answers have no stable hash
