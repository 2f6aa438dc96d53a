"""What one call of :mod:`benchmarks.protocol_server` asks for, and the reply it is to get."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from benchmarks import responses_protocol

__all__ = ["FINAL", "Job", "compact"]

FINAL = "The sum of all numbers is 42, naïve as 漢字 may seem."

_HIDDEN_TOKENS = 40
_THOUGHT = ["Add", " them", " up", "."]


class Job:
    """One call: what its address and its body ask for."""

    def __init__(self, address: str, body: bytes, *, responses: bool = False) -> None:
        self.address = address
        self.modes = [mode for mode in address.split(",") if mode]
        if "reset" in self.modes or "stall" in self.modes:
            self.modes.append("truncated")
        if "late-usage" in self.modes:
            self.modes.append("lost-end")
        self.silent = "stall" in self.modes or "late-usage" in self.modes
        self.headers: dict[str, str] = {}
        self.sent: dict[str, Any] = json.loads(body)
        self.responses = responses
        self.request = responses_protocol.chat_request(self.sent) if responses else self.sent
        self.prompt_tokens = len(compact(self.request["messages"])) // 4
        self.stream = bool(self.request.get("stream"))
        self.limit = self._limit()
        hidden = _HIDDEN_TOKENS if self.has("hidden") else 0
        self.hidden = min(hidden, self.limit)
        pieces = self._pieces()
        room = max(0, self.limit - self.hidden)
        self.cut = len(pieces) > room
        self.pieces = pieces[:room]
        self.completion_tokens = self.hidden + len(self.pieces)

    def has(self, mode: str) -> bool:
        """Whether the address has this mode."""
        return mode in self.modes

    def number(self, letters: str, default: int = 0) -> int:
        """The number of the mode that begins with these letters."""
        for mode in self.modes:
            if mode.startswith(letters) and mode[len(letters) :].isdigit():
                return int(mode[len(letters) :])
        return default

    def behind_first_call(self) -> int:
        """How many parts of a streamed Chat Completion come before its second tool call."""
        heads = [
            number
            for number, piece in enumerate(self.pieces)
            if piece.get("tool_calls", [{}])[0].get("id")
        ]
        return 3 + (heads[1] if len(heads) > 1 else len(self.pieces))

    @property
    def finish(self) -> str:
        """Why the reply ends."""
        if self.cut:
            return "length"
        return "tool_calls" if "tool_calls" in self.message() else "stop"

    def message(self) -> dict[str, Any]:
        """The whole message: the pieces put together."""
        message: dict[str, Any] = {"role": "assistant", "content": None}
        for piece in self.pieces:
            for field, value in piece.items():
                if field == "tool_calls":
                    self._add_call(message.setdefault("tool_calls", []), value[0])
                elif isinstance(value, str):
                    message[field] = (message.get(field) or "") + value
                else:
                    message[field] = value
        return message

    def usage(self) -> dict[str, Any]:
        """The tokens of prompt and reply."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.prompt_tokens // 2},
            "completion_tokens_details": {"reasoning_tokens": self.hidden + self._thought()},
        }

    def _thought(self) -> int:
        return sum("reasoning" in piece or "reasoning_content" in piece for piece in self.pieces)

    def _limit(self) -> int:
        if self.has("ignore-max"):
            return 1 << 30
        for field in ("max_completion_tokens", "max_tokens"):
            if field in self.request:
                return int(self.request[field])
        return 1 << 30

    def _pieces(self) -> list[dict[str, Any]]:
        """The reply as deltas of one token each."""
        messages = self.request["messages"]
        turn = sum(1 for message in messages if message["role"] == "assistant")
        pieces: list[dict[str, Any]] = []
        if self.has("reasoning"):
            pieces += [{"reasoning_content": word} for word in _THOUGHT]
        if self.has("opaque"):
            pieces += [{"reasoning": word} for word in _THOUGHT]
            pieces[0]["reasoning_details"] = [{"index": 0, "type": "secret", "data": "s3"}]
        if turn == 0:
            pieces += [{"reasoning_content": "hm "} for _ in range(self.number("think"))]
        if self.has("refusal"):
            return [*pieces, *({"refusal": word} for word in ("I", " cannot", "."))]
        if turn < self.number("t"):
            for index in range(self.number("p", 1)):
                pieces += self._call(turn, index)
            return pieces
        words = [f"{word} " for word in FINAL.split(" ")]
        count = self.number("w", len(words))
        text = [words[index % len(words)] for index in range(count)]
        text[-1:] = [word.rstrip() for word in text[-1:]]
        return pieces + [{"content": word} for word in text]

    def _call(self, turn: int, index: int) -> Iterator[dict[str, Any]]:
        arguments = json.dumps({"a": turn, "b": index + 1})
        more = ["word "] * self.number("long") if index else []
        if more:
            arguments = arguments[:-1] + ', "note": "'
        if self.has("bad-arguments"):
            arguments = arguments.replace(":", "=")
        head: dict[str, Any] = {"index": index, "id": f"call_{turn}{index}", "type": "function"}
        head["function"] = {"name": "add", "arguments": ""}
        if self.has("no-tool"):
            head["function"]["name"] = "subtract"
        if self.has("opaque"):
            head["extra_content"] = {"signature": "s4"}
        yield {"tool_calls": [head]}
        for part in (arguments[:6], arguments[6:], *more, *(['"}'] if more else [])):
            yield {"tool_calls": [{"index": index, "function": {"arguments": part}}]}

    def _add_call(self, calls: list[dict[str, Any]], piece: dict[str, Any]) -> None:
        if piece["index"] == len(calls):
            own = {key: value for key, value in piece.items() if key != "index"}
            calls.append({**own, "function": dict(piece["function"])})
        else:
            calls[piece["index"]]["function"]["arguments"] += piece["function"]["arguments"]


def compact(value: Any) -> bytes:
    """JSON without blanks."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
