"""The embedded model: small transformers in the package behind the ``Model`` protocol."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import replace

from longthought.errors import InvalidInput, QuestionRefused
from longthought.orchestrator.models.scheduling import scheduling_now
from longthought.types import (
    Capabilities,
    Delta,
    FinishReason,
    Grant,
    JSONObject,
    LeaseChange,
    Message,
    ModelReply,
    ModelRequest,
    Sampling,
    Usage,
)

from .catalogue import ALL_TASKS, MODELS, Weights
from .conversation import CALCULATOR, Conversation, read
from .engine import Counters, Engine, Row, Step
from .leased_rows import LeasedRows
from .network import Network
from .reply import Reply
from .sampling import Draw, random_stream
from .tasks import Task

__all__ = ["EmbeddedModel"]

_TOP_UP = 32  # tokens asked for when the grant is used up: more than one attempt takes
_SHOWN = 80  # characters of an unusable result that are shown


class EmbeddedModel:
    """Answers the questions of a few small tasks by thinking, with numpy on the CPU.

    ``name`` is one of :data:`MODELS`, with or without its ``embedded/``: ``embedded`` has every
    task, each other name one. Every task has a network and an engine of its own, made when its
    first question comes. ``slots`` replies of a task are decoded together, more may wait;
    ``cache_bytes`` bounds its prefix cache, but for one sequence more while all others are kept.
    ``network`` replaces the weights of a model with one task (a control with random ones, a copy
    trained further).

    The prefix cache is its memory for contexts that do not generate: as many tokens as it holds of
    the task whose tokens take most, unless another ``context_capacity`` is given. Those that do lie
    in the places of the batch. Rows of a branch that waits for a tool with a lease are kept;
    without leases those used last stay.

    The last user message is the question; the first task that understands it answers. The reply is
    a chain of thought; a direct answer if ``reasoning_effort`` is "none"; and if a tool
    "calculator" is offered, each result is asked of it. A user of ``stop=[";"]`` gets the thought
    on a puzzle step by step.
    """

    def __init__(
        self,
        name: str = ALL_TASKS,
        *,
        slots: int = 16,
        context_capacity: int | None = None,
        network: Network | None = None,
        cache_bytes: int = 16 * 2**20,
    ) -> None:
        if slots < 1:
            raise InvalidInput("slots", "at least one is needed")
        self.name = name if name in MODELS else f"{ALL_TASKS}/{name}"
        self.slots = slots
        self._weights = {weights.task.name: weights for weights in _weights(self.name, network)}
        self._tasks = [weights.task for weights in self._weights.values()]
        self._cache_bytes = cache_bytes
        shapes = [each.shape() for each in self._weights.values()]
        held = max(1, min(cache_bytes // one.position_bytes for one in shapes))
        self.context_capacity: int | None = held if context_capacity is None else context_capacity
        self.takes_scheduling = True  # it says whose rows they are
        self._leased = LeasedRows()
        self._engines: dict[str, Engine] = {}
        self._making = threading.Lock()
        self._fingerprint: JSONObject | None = None
        self.capabilities = Capabilities(
            top_up=True,
            continues=True,
            inline_tools=True,
            seeds=True,
            logprobs=True,
            context_window=max(shape.positions for shape in shapes),
            structured_output=False,
        )

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of the tasks, in the order in which they look at a question."""
        return tuple(self._weights)

    def engine_of(self, task: str) -> Engine:
        """The engine of one of :attr:`tasks`; the first to ask for it loads the weights.

        Raises:
            InvalidInput: the model has no such task.
        """
        if task not in self._weights:
            raise InvalidInput("task", f"{self.name} has no {task!r}", f"It has {self.tasks}")
        with self._making:  # of several threads that ask at once, one loads
            if task not in self._engines:
                network = self._weights[task].load()
                self._engines[task] = Engine(
                    network, slots=self.slots, cache_bytes=self._cache_bytes
                )
            return self._engines[task]

    @property
    def counters(self) -> Counters:
        """What all engines together computed so far."""
        return sum((engine.counters for engine in self._made()), Counters())

    def _made(self) -> list[Engine]:
        with self._making:
            return list(self._engines.values())

    async def generate(
        self,
        request: ModelRequest,
        grant: Grant,
        emit: Callable[[Delta], None] | None = None,
    ) -> ModelReply:
        """Answer a question, or go on with an answer.

        Cancelling frees the place in the batch. The token counts of the deltas add up to
        ``completion_tokens``.

        Raises:
            QuestionRefused: no task of this model understands the conversation.
            InvalidInput: a sampling parameter is out of range.
            BackendError: the model was closed meanwhile.
        """
        conversation = read(request, self._tasks)
        sampling = request.get("sampling", {})
        if sampling.get("min_thinking_tokens"):
            raise QuestionRefused(
                "sampling.min_thinking_tokens",
                f"the thought of {self.name} is its text, which ends where its task does",
                "Leave it out, or use a model whose reasoning stands apart from its answer",
            )
        draw = _draw(sampling, len(conversation.prompt))
        if conversation.unusable is not None:
            return self._unusable(conversation, conversation.unusable, emit)
        show = emit or _ignore
        reply = Reply(conversation, sampling.get("stop", []))
        texts: list[str] = []
        steps: list[Step] = []

        def deliver(new: list[Step]) -> None:
            steps.extend(new)
            texts.append(reply.take())
            show(Delta("content", texts[-1], tokens=len(new)))

        finish, cached = await self._decode(conversation, reply, draw, sampling, grant, deliver)
        self._computed(conversation, reply)
        texts.append(reply.rest())
        if texts[-1]:
            show(Delta("content", texts[-1], tokens=0))
        message = Message(role="assistant", content="".join(texts))
        if finish == "tool_calls":
            arguments = json.dumps({"expression": reply.expression})
            for piece in (CALCULATOR, arguments):  # the name goes first
                show(Delta("tool_call", piece, tokens=0))
            message["tool_calls"] = [
                {"id": f"call_{conversation.calls}", "name": CALCULATOR, "arguments": arguments}
            ]
        usage = Usage(len(conversation.prompt), len(steps), cached, calls=1)
        made = self._reply(conversation.task, message, finish, usage)
        if sampling.get("stop"):
            made["stopped_by"] = reply.stopped_by
        if sampling.get("logprobs"):
            word_of = conversation.task.language.word_of
            made["logprobs"] = [
                {"token": word_of(step.token), "logprob": step.logprob} for step in steps
            ]
        return made

    async def _decode(
        self,
        conversation: Conversation,
        reply: Reply,
        draw: Draw,
        sampling: Sampling,
        grant: Grant,
        deliver: Callable[[list[Step]], None],
    ) -> tuple[FinishReason, int]:
        """Decode in stretches as long as the grant; returns the finish and the cached tokens.

        A stretch that ends at the grant leaves the batch while more is asked for, and comes back
        through the prefix cache.
        """
        engine = self.engine_of(conversation.task.name)
        ceiling = engine.network.shape.positions - len(conversation.prompt)
        ceiling = min(ceiling, sampling.get("max_tokens", ceiling))
        cached: int | None = None
        if conversation.trace and conversation.task.finished(conversation.trace[-1]):
            return "stop", 0
        while reply.finish is None:
            room = await _room(grant, len(reply.tokens), ceiling)
            if room <= 0:
                return "length", cached or 0
            row = Row(
                [*conversation.prompt, *reply.tokens], draw, room, reply.accept, reply.worth_keeping
            )
            await engine.run(row, deliver)
            cached = row.cached if cached is None else cached
        return reply.finish, cached or 0

    def _computed(self, conversation: Conversation, reply: Reply) -> None:
        """What a branch may come back with, if somebody has said whose reply this was."""
        scheduling = scheduling_now()
        if scheduling is None:
            return
        engine, goes_on = self.engine_of(conversation.task.name), reply.worth_keeping()
        tokens = [*conversation.prompt, *reply.tokens]
        self._leased.computed(scheduling.branch, engine, tokens, goes_on=goes_on)

    def _unusable(
        self, conversation: Conversation, result: str, emit: Callable[[Delta], None] | None
    ) -> ModelReply:
        """The honest end of a conversation whose tool returned what the task has no tokens for."""
        shown = result if len(result) <= _SHOWN else result[: _SHOWN - 3] + "..."
        text = conversation.task.unusable(shown)
        (emit or _ignore)(Delta("content", text, tokens=0))
        usage = Usage(prompt_tokens=len(conversation.prompt), calls=1)
        message = Message(role="assistant", content=text)
        return self._reply(conversation.task, message, "stop", usage)

    def _reply(
        self, task: Task, message: Message, finish: FinishReason, usage: Usage
    ) -> ModelReply:
        """The reply, with the digest of the network that gave it."""
        return ModelReply(
            message=message,
            finish_reason=finish,
            usage=usage.to_json(),
            model=self.name,
            fingerprint=self.engine_of(task.name).network.digest[:16],
        )

    def lease_changed(self, branch: str, change: LeaseChange) -> None:
        """Keep the rows of a branch that acts with a lease, and let them go with the lease."""
        self._leased.changed(branch, change)

    def count_prompt(self, request: ModelRequest) -> int | None:
        """Exact prompt tokens of the request.

        Raises:
            QuestionRefused: no task of this model understands the conversation.
        """
        return len(read(request, self._tasks).prompt)

    def fingerprint(self) -> JSONObject:
        """Kind, name, number of parameters, and the SHA-256 of the weights.

        With several tasks it is the parameters of all, and a digest over their names and digests.
        """
        if self._fingerprint is None:
            self._fingerprint = {
                "kind": "embedded",
                "name": self.name,
                "parameters": sum(each.parameter_count() for each in self._weights.values()),
                "weights": "sha256:" + self._digest(),
            }
        return dict(self._fingerprint)

    def _digest(self) -> str:
        digests = {name: weights.digest() for name, weights in self._weights.items()}
        if len(digests) == 1:
            return next(iter(digests.values()))
        lines = "".join(f"{name} {digest}\n" for name, digest in sorted(digests.items()))
        return hashlib.sha256(lines.encode()).hexdigest()

    async def aclose(self) -> None:
        """Stop decoding and free the caches; replies in flight fail. Later use starts afresh."""
        for engine in self._made():
            engine.close()


def _weights(name: str, network: Network | None) -> tuple[Weights, ...]:
    """The weights of a model by its full name; ``network`` takes the place of a single file."""
    if name not in MODELS:
        raise InvalidInput("model", f"no embedded model {name!r}", f"Use one of {list(MODELS)}")
    if network is None:
        return MODELS[name]
    if name == ALL_TASKS:
        alone = [one for one in MODELS if one != ALL_TASKS]
        fix = f"Name a model with one task: {alone}"
        raise InvalidInput("network", f"{name!r} has several tasks, each its own network", fix)
    (weights,) = MODELS[name]
    return (replace(weights, network=network),)


def _ignore(delta: Delta) -> None:
    del delta


def _draw(sampling: Sampling, prompt_length: int) -> Draw:
    temperature = sampling.get("temperature", 1.0)
    top_p = sampling.get("top_p", 1.0)
    if not temperature >= 0:  # NaN, too
        raise InvalidInput("temperature", f"{temperature} is no number from 0 up")
    if not 0 < top_p <= 1:
        raise InvalidInput("top_p", f"{top_p} lies outside (0, 1]")
    return Draw(temperature, top_p, random_stream(sampling.get("seed"), prompt_length))


async def _room(grant: Grant, used: int, ceiling: int) -> int:
    """How many more tokens may be drawn now; asks for more when the grant is used up."""
    left = ceiling - used
    if left <= 0:
        return 0
    total = grant.tokens
    if total <= used:
        total = await grant.top_up(min(_TOP_UP, left))
    return min(total - used, left)
