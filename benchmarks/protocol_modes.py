"""How :mod:`benchmarks.protocol_server` may behave: modes, shares of calls, a rate limit."""

from __future__ import annotations

import random
from collections import Counter

__all__ = ["MODES", "RateLimit", "Shares"]

MODES = {
    "tN": "N turns with tool calls before the final text (default 0)",
    "pN": "N tool calls in each of them (default 1)",
    "wN": "a final text of N words",
    "longN": "every tool call of a turn but the first has an argument of N words more",
    "hold": "stop in mid-reply, behind the first tool call, until somebody asks for /release",
    "thinkN": "N words of visible reasoning before the first message of a conversation",
    "ignore-max": "never stop at the maximum",
    "hidden": "40 reasoning tokens in the usage that nobody sees",
    "reasoning": "visible reasoning in `reasoning_content`",
    "opaque": "visible reasoning in `reasoning`, with `reasoning_details` and call signatures",
    "no-usage": "send no usage",
    "running": "send the usage so far with every piece of a stream",
    "lost-end": "close the connection after the reply and before its usage",
    "late-usage": "fall silent after the reply and before its usage",
    "no-done": "leave out [DONE] at the end of a stream",
    "statusN": "refuse every call with status N",
    "afterN": "add Retry-After: N to refusals",
    "limitN": "refuse calls with 429 that are more than N in a period",
    "periodN": "a period of N milliseconds (default 100)",
    "told": "say so in headers, as OpenAI does",
    "flakyN": "refuse the first N calls of this address with 503 and Retry-After: 0",
    "context": "refuse with 400: the context is too long",
    "echo-key": "refuse with 401 and repeat the key",
    "echo": "repeat all headers of the request, in headers of the reply and in refusals",
    "drop": "close the connection instead of answering",
    "stale": "the same, if the connection has answered a call before",
    "malformed": "answer with something that is no JSON",
    "truncated": "close the connection in mid-reply",
    "reset": "reset the connection in mid-reply",
    "stall": "fall silent in mid-reply",
    "alive": "send comments that keep the connection alive, and no reply",
    "bad-arguments": "call tools with arguments that are no JSON",
    "no-tool": "call a tool that nobody has",
    "broken-off": "end a stream properly, but in mid-reply",
    "empty": "answer without choices",
    "odd": "answer with choices of a form that nobody knows",
    "error": "answer with an error object and status 200, in mid-reply if streamed",
    "refusal": "refuse to answer, politely",
    "bytes": "send 7 bytes at a time",
    "slow": "pause 20 ms before each piece of a reply",
    "hang": "never answer",
}


class Shares:
    """Modes that hold for a share of calls: ``drop@30`` drops 30 % of the calls of an address.

    Which ones depends on nothing but the address and how many calls of it came before. ``usual`` is
    the share of a mode that names none: ``drop@``; ``drop@first`` drops the first call alone.
    ``drawn`` counts the draws that hit.
    """

    def __init__(self) -> None:
        self.usual = 0.0
        self.drawn: Counter[str] = Counter()
        self._calls: Counter[str] = Counter()

    def modes(self, address: str) -> str:
        """The modes of the next call: of those with a share, the ones that it drew."""
        if "@" not in address:
            return address
        self._calls[address] += 1
        drawn = []
        for mode in address.split(","):
            name, shared, share = mode.partition("@")
            draw = random.Random(f"{address}/{mode}/{self._calls[address]}")
            if share == "first":
                hit = self._calls[address] == 1
            else:
                hit = not shared or draw.random() < float(share or self.usual) / 100
            if hit:
                drawn.append(name)
                self.drawn[address] += bool(shared)
        return ",".join(drawn)


class RateLimit:
    """A bucket of ``limit`` calls that fills in ``period`` milliseconds."""

    def __init__(self, limit: int, period: int) -> None:
        self._limit, self._period = limit, period
        self._left, self._at = float(limit), 0.0

    def wait(self, now: float) -> float:
        """0 for a call that is taken on, else the milliseconds until one would be."""
        filled = 1000 * (now - self._at) * self._limit / self._period
        self._left, self._at = min(self._limit, self._left + filled), now
        if self._left < 1:
            return (1 - self._left) * self._period / self._limit
        self._left -= 1
        return 0.0

    def headers(self) -> dict[str, str]:
        """What a server says about it, as OpenAI does."""
        reset = self._period * (self._limit - self._left) / self._limit
        return {
            "x-ratelimit-limit-requests": str(self._limit),
            "x-ratelimit-remaining-requests": str(int(self._left)),
            "x-ratelimit-reset-requests": f"{reset:.3f}ms",
        }
