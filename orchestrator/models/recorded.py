"""A model that answers from a file of recorded samples, so that no model is needed to compare.

A file has one JSON object per line, gzipped or not: ``problem``, ``samples`` (objects with a
``text``, or indices into ``unique_solutions``), and optionally ``reference`` and ``model``. A row
without a problem is asked for by its ``pid``.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from longthought.errors import BackendError, InvalidInput, QuestionRefused
from longthought.orchestrator.models import toytokens
from longthought.orchestrator.models.scripted import ScriptedModel
from longthought.types import (
    JSON,
    Delta,
    Grant,
    JSONObject,
    ModelReply,
    ModelRequest,
    Usage,
    text_of,
)

__all__ = ["RecordedModel", "RecordedQuestion"]


@dataclass(frozen=True, slots=True)
class RecordedQuestion:
    """One question with its samples in recorded order; ``row`` is all that its line holds."""

    problem: str
    samples: tuple[JSONObject, ...]
    reference: JSON
    row: JSONObject


class RecordedModel:
    """Answers with recorded samples; which one depends on the question and the seed alone.

    The question is the text of the conversation's first user message, or the longest recorded
    problem in it. ``sampling.seed`` (0 if absent) counts through the samples of the question: in
    ``order="recorded"`` as they stand, in ``"seeded"`` as shuffled by ``seed`` and the question.
    With ``wrap`` the samples start over when they run out. ``source`` keeps those samples whose
    ``source`` it is, for files with samples of several models.

    Replies are cut at the grant like those of a scripted model. Their usage is counted by the toy
    tokenizer and marked as estimated.
    """

    def __init__(
        self,
        path_or_samples: str | Path | Iterable[Mapping[str, JSON]],
        *,
        name: str | None = None,
        order: Literal["recorded", "seeded"] = "recorded",
        seed: int = 0,
        wrap: bool = False,
        source: str | None = None,
        slots: int = 16,
        latency: Callable[[ModelRequest], float] | None = None,
    ) -> None:
        if order not in ("recorded", "seeded"):
            raise InvalidInput("order", f"no order {order!r}", "Use recorded or seeded")
        if isinstance(path_or_samples, (str, Path)):
            path = Path(path_or_samples)
            name = name or path.name.split(".")[0]
            rows = _read(path)
        else:
            rows = [dict(row) for row in path_or_samples]
        self._questions = _questions(rows, source)
        if not self._questions:
            raise InvalidInput("samples", "there are none", "Rows need `problem` and `samples`")
        self._order, self._seed, self._wrap, self._source = order, seed, wrap, source
        self._digest = hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
        self._found: dict[str, RecordedQuestion] = {}
        self._script = ScriptedModel(
            self._answer, name=name or "recorded", slots=slots, latency=latency
        )
        self.name, self.slots = self._script.name, slots
        self.capabilities = self._script.capabilities

    def __repr__(self) -> str:
        return f"RecordedModel({self.name!r}, {len(self._questions)} questions)"

    @property
    def calls(self) -> int:
        """Calls of :meth:`generate` so far."""
        return self._script.calls

    @property
    def questions(self) -> list[RecordedQuestion]:
        """All questions in the order of the file."""
        return list(self._questions.values())

    def question(self, text: str) -> RecordedQuestion:
        """The recorded question that a text asks.

        Raises:
            QuestionRefused: it asks none of them.
        """
        text = text.strip()
        found = self._questions.get(text) or self._found.get(text)
        if found is None:
            inside = [known for known in self._questions if known in text and self._is_prose(known)]
            if not inside:
                raise QuestionRefused(
                    "question",
                    f"{self.name} has no samples for {_short(text)!r}",
                    f"It knows {len(self._questions)} questions, "
                    f"one is {_short(next(iter(self._questions)))!r}",
                )
            found = self._found[text] = self._questions[max(inside, key=len)]
        return found

    def _is_prose(self, known: str) -> bool:
        # A bare `pid` may stand in any text by chance.
        return "problem" in self._questions[known].row

    def sample(self, question: RecordedQuestion, draw: int) -> JSONObject:
        """The ``draw``-th sample of a question, as recorded, counted from 0.

        Raises:
            BackendError: the samples have run out and do not start over.
        """
        size = len(question.samples)
        if draw < 0 or (draw >= size and not self._wrap):
            raise BackendError(
                f"{self.name}: sample {draw + 1} of {_short(question.problem)!r} was asked for "
                f"and {size} are recorded"
            )
        position = draw % size
        if self._order == "seeded":
            salt = f"{self._seed}\n{question.problem}".encode()
            order = list(range(size))
            random.Random(hashlib.sha256(salt).digest()).shuffle(order)
            position = order[position]
        return question.samples[position]

    async def generate(
        self,
        request: ModelRequest,
        grant: Grant,
        emit: Callable[[Delta], None] | None = None,
    ) -> ModelReply:
        """The recorded sample that the request's seed draws, within the grant.

        Raises:
            BackendError: the samples of this question have run out.
            QuestionRefused: nothing is recorded for this question.
        """
        reply = await self._script.generate(request, grant, emit)
        usage = replace(Usage.from_json(reply["usage"]), estimated=True)
        reply["usage"] = usage.to_json()
        return reply

    def count_prompt(self, request: ModelRequest) -> int | None:
        """Prompt tokens as the usage will say: the toy tokenizer's."""
        return toytokens.count_request(request)

    def fingerprint(self) -> JSONObject:
        """Kind, name, hash of the samples, and what decides which of them is drawn."""
        return {
            "kind": "recorded",
            "name": self.name,
            "sha256": self._digest,
            "order": self._order,
            "seed": self._seed,
            "wrap": self._wrap,
            "source": self._source,
        }

    async def aclose(self) -> None:
        """Nothing to release."""

    def _answer(self, request: ModelRequest) -> ModelReply:
        asked = next((text_of(m) for m in request["messages"] if m["role"] == "user"), "")
        question = self.question(asked)
        draw = request.get("sampling", {}).get("seed", 0)
        text = str(self.sample(question, draw)["text"])
        return {
            "message": {"role": "assistant", "content": text},
            "finish_reason": "stop",
            "usage": {},
            "model": str(question.row.get("model") or self.name),
        }


def _read(path: Path) -> list[JSONObject]:
    if not path.is_file():
        raise InvalidInput("recorded", f"no file {str(path)!r}", "Give a .jsonl or .jsonl.gz file")
    rows: list[JSONObject] = []
    number = 0
    try:
        with _open(path) as lines:
            for line in lines:
                number += 1
                if line.strip():
                    rows.append(_object(json.loads(line)))
    except (ValueError, EOFError, OSError) as error:
        where = f"{path.name}, line {number}" if number else path.name
        raise InvalidInput("recorded", f"{where} cannot be read: {error}") from error
    return rows


def _open(path: Path) -> Any:
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rt", encoding="utf-8") if zipped else path.open(encoding="utf-8")


def _object(value: JSON) -> JSONObject:
    if not isinstance(value, dict):
        raise ValueError("a row has to be a JSON object")
    return value


def _questions(rows: Iterable[JSONObject], source: str | None) -> dict[str, RecordedQuestion]:
    """Questions by their text; rows with the same question add up."""
    questions: dict[str, RecordedQuestion] = {}
    for row in rows:
        problem = str(row.get("problem") or row.get("pid", "")).strip()
        samples = tuple(_samples(row, source))
        if not problem or not samples:
            continue
        if problem in questions:
            samples = questions[problem].samples + samples
        questions[problem] = RecordedQuestion(problem, samples, row.get("reference"), row)
    return questions


def _samples(row: JSONObject, source: str | None) -> Iterable[JSONObject]:
    for sample in row.get("samples") or ():
        if isinstance(sample, int):
            yield {"text": row["unique_solutions"][sample], "unique": sample}
        elif isinstance(sample, dict) and isinstance(sample.get("text"), str):
            if source is None or sample.get("source") == source:
                yield sample
        else:
            raise InvalidInput("samples", f"{_short(str(sample))!r} has no text")


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
