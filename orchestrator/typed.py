"""Typed answers: what a model is told of their form, and how a reply becomes an instance.

A backend that keeps to a schema is sent it with the request. The others are told it in the system
prompt, and so is a model that thinks in steps: a decoder bound to a schema could not think first.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from longthought.errors import InvalidInput
from longthought.orchestrator.strict_schemas import strict_form
from longthought.types import (
    JSON,
    Candidate,
    JSONObject,
    JudgeContext,
    Message,
    Verdict,
)
from longthought.verifiers.json_answers import JSONKind
from longthought.verifiers.shapes import canonical_json, plain_instance

if TYPE_CHECKING:
    from longthought.orchestrator.definition import Definition

__all__ = [
    "OUTPUT_CHECK",
    "OutputCheck",
    "find_answer",
    "mend_prompt",
    "output_json",
    "output_of",
    "sent_schema",
    "with_schema",
]

OUTPUT_CHECK = "typed output"
"""The kind of the recorded verdict on a reply that is no valid answer."""

_SCHEMA_PROMPT = (
    "Give your final answer as JSON alone, on one line, valid against this JSON schema:\n"
)
_MEND_PROMPT = (
    "That is no valid answer: {}. Give the whole answer again, as JSON alone, with this mended."
)


def sent_schema(kind: JSONKind) -> JSONObject:
    """The schema as backends are sent it: one given as JSON stays as it is."""
    return kind.schema if isinstance(kind.form, dict) else strict_form(kind.schema)


def with_schema(opening: Sequence[Message], schema: JSONObject) -> list[Message]:
    """An opening whose system prompt tells the schema of the answer as well."""
    # in the order of its fields: a model that is to give its reasons first gives them first
    told = _SCHEMA_PROMPT + json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
    first, *rest = opening
    if first["role"] != "system":
        return [{"role": "system", "content": told}, *opening]
    content = first["content"]
    if isinstance(content, list):
        parts = [*content, {"type": "text", "text": told}]
        return [{**first, "content": parts}, *rest]
    return [{**first, "content": f"{content}\n\n{told}" if content else told}, *rest]


def mend_prompt(problem: str) -> str:
    """What a model is told of a reply that is not valid."""
    return _MEND_PROMPT.format(problem.rstrip("."))


def find_answer(definition: Definition, text: str) -> str | None:
    """The answer in a text; None as well where a typed answer was wanted and is not valid.

    Raises:
        InvalidInput: an answer kind of the user's own returned something else than text or None.
    """
    kind, typed = definition.answer, definition.typed
    answer = kind.find(text) if kind else (text.strip() or None)
    if answer is not None and not isinstance(answer, str):
        raise InvalidInput("answer", f"{kind!r}.find returned {answer!r}", "Return text or None")
    if typed is not None and typed is not kind and typed.find(text) is None:
        return None
    return answer


def output_of(definition: Definition, outcome: JSONObject) -> Any:
    """The typed answer of a run: an instance, or the parsed JSON; None where there is none."""
    kind = definition.typed or definition.answer
    answer = outcome.get("answer")
    if not isinstance(kind, JSONKind) or answer is None:
        return None
    own = definition.graph is not None or kind is definition.answer
    for source in (answer if own else None, outcome.get("text")):
        try:
            text = source if isinstance(source, str) else canonical_json(source)
            found = kind.find(text)
            if found is not None:
                return kind.made(found)
        except (InvalidInput, TypeError, ValueError):
            continue
    return None


def output_json(output: object) -> JSON:
    """A typed answer as JSON; as text where the model cannot be written as JSON."""
    if not isinstance(output, BaseModel):
        return output
    try:
        return plain_instance(output)
    except Exception:  # a serializer of the user's own
        return str(output)


class OutputCheck:
    """Says what is wrong with a reply that is no valid answer.

    It is recorded like a verdict: the words are those of the validating library, and a replay has
    to tell the model the same ones whatever version of it is installed.
    """

    name = OUTPUT_CHECK

    def __init__(self, kind: JSONKind) -> None:
        self._kind = kind

    def spec(self) -> JSONObject:
        """The kind; the form stands in the manifest."""
        return {"kind": self.name}

    async def judge(self, candidate: Candidate, context: JudgeContext) -> Verdict:
        """Fails a candidate whose text holds no valid answer; the reason says why."""
        problem = self._kind.problem(candidate.text)
        return Verdict(float(not problem), not problem, problem)
