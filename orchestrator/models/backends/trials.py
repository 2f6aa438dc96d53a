"""Small real calls that show what a server does, and what can be read from its answers.

Each trial asks for one thing alone, so that a refusal has one reason. Nothing here raises for what
a stranger answers: that is what is to be found out.
"""

from __future__ import annotations

from dataclasses import dataclass

from longthought.orchestrator.models.backends.calls import (
    REASONING_FIELDS,
    Caller,
    Heard,
    read_json,
    shown,
)
from longthought.types import JSONObject

__all__ = ["CUT_OFF", "MOST_CALLS", "MOST_OUTPUT_TOKENS", "QUESTION", "Finding", "Trials"]

QUESTION = "Count from 1 to 20."
CUT_OFF = "The capital of France is Par"
"""An answer cut in mid-word: whoever goes on with it writes the rest of the word."""

_SHORT, _LONG = 16, 200
MOST_CALLS = 14
"""All trials together; one less where the first call does not have to be made twice."""
MOST_OUTPUT_TOKENS = 541
"""All trials together, of a server that keeps to what it is asked for."""
_TOOL: JSONObject = {
    "type": "function",
    "function": {
        "name": "multiply",
        "description": "The product of two numbers.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
            "additionalProperties": False,
        },
    },
}
_SCHEMA: JSONObject = {
    "type": "json_schema",
    "json_schema": {
        "name": "weather",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"rain": {"type": "boolean"}},
            "required": ["rain"],
            "additionalProperties": False,
        },
    },
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: whether it is so (None: nobody can say), and what was seen."""

    name: str
    found: bool | None
    seen: str

    def to_json(self) -> JSONObject:
        """All fields."""
        return {"name": self.name, "found": self.found, "seen": self.seen}


class Trials:
    """The trials, one after the other. ``question`` is one that the model takes."""

    def __init__(self, caller: Caller, question: str = QUESTION) -> None:
        self._caller, self._question = caller, question
        self._streams = True

    async def answers(self) -> list[Finding]:
        """Whether it answers at all; and by which name it takes its maximum."""
        heard = await self._caller.chat(self._question)
        if heard.refused and "max_completion_tokens" in heard.problem:
            self._caller.max_tokens_field = "max_completion_tokens"
            heard = await self._caller.chat(self._question)
        if not heard.well:
            return [Finding("answers", False, heard.problem)]
        if not heard.choices:
            return [Finding("answers", False, "the reply holds no choice")]
        return [Finding("answers", True, heard.said())]

    async def streams(self) -> list[Finding]:
        """Whether replies come piece by piece, and their usage with them."""
        options = {"include_usage": True}
        heard = await self._caller.chat(self._question, stream=True, stream_options=options)
        found = None if heard.timed_out else heard.well and heard.pieces > 0
        self._streams = bool(found)
        seen = f"{heard.pieces} pieces" if heard.pieces else heard.said()
        if heard.well and not heard.pieces:
            seen = "one whole reply"
        usage = bool(heard.usage)
        told = "with the last piece" if usage else "none came"
        with_usage = Finding("usage in streams", usage if found else None, told if found else "-")
        return [Finding("streams", found, seen), with_usage]

    async def honours_max_tokens(self) -> list[Finding]:
        """Whether a reply ends at the maximum that was sent."""
        name = "honours max_tokens"
        heard = await self._caller.chat(self._question, most=1)
        if not heard.well:
            return [Finding(name, None, heard.problem)]
        tokens = heard.usage.get("completion_tokens")
        if isinstance(tokens, int) and not isinstance(tokens, bool):
            return [Finding(name, tokens <= 1, f"asked for 1 token, {tokens} came")]
        if len(heard.text.split()) > 2:
            return [Finding(name, False, f"asked for 1 token, {shown(heard.text)} came")]
        return [Finding(name, None, f"no usage; {shown(heard.text)} came")]

    async def tools(self) -> list[Finding]:
        """Whether it takes tools, and this model calls one."""
        question = "What is 123456 * 654321? Call the tool multiply."
        heard = await self._caller.chat(question, _LONG, tools=[_TOOL])
        if not heard.well:
            return [Finding("tools", False if heard.refused else None, heard.problem)]
        calls = heard.message.get("tool_calls")
        if not isinstance(calls, list) or not calls or not isinstance(calls[0], dict):
            return [Finding("tools", None, f"took a tool and called none, {heard.said()}")]
        function = calls[0].get("function")
        function = function if isinstance(function, dict) else {}
        arguments = function.get("arguments")
        called = f"{function.get('name')} {arguments if isinstance(arguments, str) else ''}"
        return [Finding("tools", True, f"called {shown(called)}")]

    async def structured_output(self) -> list[Finding]:
        """Whether it keeps to a JSON schema that nobody mentioned in words."""
        name = "structured output"
        question = "Write a line about rain."
        heard = await self._caller.chat(question, _LONG, response_format=_SCHEMA)
        if not heard.well:
            return [Finding(name, False if heard.refused else None, heard.problem)]
        value = read_json(heard.text.encode())
        kept = isinstance(value, dict) and isinstance(value.get("rain"), bool)
        unfinished = heard.text.lstrip().startswith("{") and heard.finish == "length"
        if kept or (heard.text.strip() and not unfinished):
            return [Finding(name, kept, heard.said())]
        return [
            Finding(name, None, f"{heard.said()}, cut off" if unfinished else "answered nothing")
        ]

    async def continues(self) -> list[Finding]:
        """Whether it goes on with an answer that was cut in mid-word."""
        messages = [
            {"role": "user", "content": "What is the capital of France? Answer in one sentence."},
            {"role": "assistant", "content": CUT_OFF},
        ]
        fields = {"continue_final_message": True, "add_generation_prompt": False}
        stream = {"stream": True} if self._streams else {}
        heard = await self._caller.chat(messages, 8, **fields, **stream)
        if not heard.well:
            return [Finding("continues", False if heard.refused else None, heard.problem)]
        seen = f"after {shown(CUT_OFF)} it {heard.said()}"
        text = heard.text
        if text.startswith("is"):
            return [Finding("continues", True, seen)]
        anew = text.lstrip().startswith(("Par", "The ", "France", "**Par"))
        return [Finding("continues", False if anew else None, seen)]

    async def seeds(self) -> list[Finding]:
        """Whether equal seeds draw equal replies, and others other ones."""
        question = self._question if self._question != QUESTION else "Write eight random words."
        texts: list[str] = []
        for seed in (1, 1, 2):
            heard = await self._caller.chat(question, seed=seed, temperature=1.0)
            if not heard.well:
                found = False if heard.refused else None
                return [Finding("seeds", found, heard.problem)]
            texts.append(_whole_text(heard))
            if len(texts) == 2 and texts[0] != texts[1]:
                return [Finding("seeds", False, "equal seeds drew different replies")]
        if texts[2] == texts[0]:
            return [Finding("seeds", None, "every seed drew the same reply")]
        return [Finding("seeds", True, "equal seeds drew equal replies, another another")]

    async def logprobs(self) -> list[Finding]:
        """Whether it gives the log-probabilities of what it chose."""
        heard = await self._caller.chat(self._question, most=1, logprobs=True)
        if not heard.well:
            return [Finding("logprobs", False if heard.refused else None, heard.problem)]
        found = heard.choices[0].get("logprobs") if heard.choices else None
        content = found.get("content") if isinstance(found, dict) else None
        given = isinstance(content, list) and bool(content)
        return [Finding("logprobs", given, "given" if given else "none came")]

    async def samples(self) -> list[Finding]:
        """Whether one call may ask for several samples."""
        heard = await self._caller.chat(self._question, most=1, n=2)
        if not heard.well:
            return [Finding("n", False if heard.refused else None, heard.problem)]
        count = len(heard.choices)
        return [Finding("n", count == 2, f"asked for 2, {count} came")]

    async def priority(self) -> list[Finding]:
        """Whether it serves by priority; one that does not and reads the field, refuses it."""
        heard = await self._caller.chat(self._question, most=1, priority=1)
        if heard.well:
            return [Finding("priority", True, "taken")]
        refused = heard.refused and "priority" in heard.problem.lower()
        return [Finding("priority", False if refused else None, heard.problem)]

    async def responses(self) -> list[Finding]:
        """Whether it speaks Responses, too."""
        body = {"model": self._caller.model, "input": self._question, "max_output_tokens": _SHORT}
        heard = await self._caller.post("/responses", body)
        there = heard.well and isinstance(heard.body.get("output"), list)
        if there:
            return [Finding("responses", True, "answered")]
        absent = heard.well or heard.status in (404, 405, 501)
        said = "something else answered" if heard.well else heard.problem
        return [Finding("responses", False if absent else None, said)]

    def by_the_way(self) -> list[Finding]:
        """What the replies to all trials have shown together."""
        cached = [one for one in map(_cached, self._caller.seen) if one is not None]
        most = max(cached, default=0)
        told = f"up to {most} of a prompt" if most else "none of any prompt"
        fields = [
            name for name in REASONING_FIELDS if any(one.message.get(name) for one in self._seen())
        ]
        return [
            Finding("cached tokens", True if most else None, told if cached else "not reported"),
            Finding("reasoning", bool(fields) or None, ", ".join(fields) or "none came"),
        ]

    def _seen(self) -> list[Heard]:
        return [heard for heard in self._caller.seen if heard.well]


def _whole_text(heard: Heard) -> str:
    """All that was written, thoughts too."""
    parts = [heard.message.get(name) for name in (*REASONING_FIELDS, "content")]
    return "\n".join(part for part in parts if isinstance(part, str))


def _cached(heard: Heard) -> int | None:
    details = heard.usage.get("prompt_tokens_details")
    found = details.get("cached_tokens") if isinstance(details, dict) else None
    return found if isinstance(found, int) and not isinstance(found, bool) else None
