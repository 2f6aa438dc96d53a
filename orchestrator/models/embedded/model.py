"""The embedded model: a small transformer in the package behind the ``Model`` protocol."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from longthought.errors import InvalidInput
from longthought.types import (
    Capabilities,
    Delta,
    FinishReason,
    Grant,
    JSONObject,
    Message,
    ModelReply,
    ModelRequest,
    Sampling,
    Usage,
)

from . import vocabulary as v
from .conversation import CALCULATOR, Conversation, read
from .engine import Counters, Engine, Row, Step
from .network import Network
from .reply import Reply
from .sampling import Draw, random_stream

__all__ = ["WEIGHTS", "EmbeddedModel"]

WEIGHTS = {
    "embedded": Path(__file__).with_name("weights") / "puzzle-large.npz",
    "embedded/puzzle-small": Path(__file__).with_name("weights") / "puzzle-small.npz",
}
"""Name of each model in the package -> its weights file."""

_TOP_UP = 32  # tokens asked for when the grant is used up: more than one attempt takes


class EmbeddedModel:
    """Solves make-a-target puzzles by thinking, with numpy on the CPU.

    ``name`` is one of :data:`WEIGHTS`, with or without its ``embedded/``. ``slots`` replies are
    decoded together, more may wait. ``network`` replaces the weights in the package (a control
    with random ones, a copy trained further). ``cache_bytes`` bounds the prefix cache.

    The last user message is the puzzle (see :mod:`questions`). The reply is a chain of thought;
    a direct answer if ``reasoning_effort`` is "none"; and if a tool "calculator" is offered, each
    result is asked of it. A user of ``stop=[";"]`` gets the thought step by step.
    """

    def __init__(
        self,
        name: str = "embedded",
        *,
        slots: int = 16,
        network: Network | None = None,
        cache_bytes: int = 16 * 2**20,
    ) -> None:
        if network is None:
            name = name if name in WEIGHTS else f"embedded/{name}"
            if name not in WEIGHTS:
                raise InvalidInput("model", f"no embedded model {name!r}", f"Use {list(WEIGHTS)}")
            network = Network.load(WEIGHTS[name].read_bytes())
        if slots < 1:
            raise InvalidInput("slots", "at least one is needed")
        self.name = name
        self.slots = slots
        self.capabilities = Capabilities(
            top_up=True,
            continues=True,
            inline_tools=True,
            seeds=True,
            logprobs=True,
            context_window=network.shape.positions,
        )
        self._network = network
        self._engine = Engine(network, slots=slots, cache_bytes=cache_bytes)

    @property
    def engine(self) -> Engine:
        """The engine, for tests and benchmarks."""
        return self._engine

    @property
    def counters(self) -> Counters:
        """What was computed so far."""
        return self._engine.counters

    async def generate(
        self,
        request: ModelRequest,
        grant: Grant,
        emit: Callable[[Delta], None] | None = None,
    ) -> ModelReply:
        """Answer a puzzle, or go on with an answer.

        Cancelling frees the place in the batch. The token counts of the deltas add up to
        ``completion_tokens``.

        Raises:
            QuestionRefused: the conversation is no puzzle of this model.
            InvalidInput: a sampling parameter is out of range.
            BackendError: the model was closed meanwhile.
        """
        conversation = read(request)
        sampling = request.get("sampling", {})
        draw = _draw(sampling, len(conversation.prompt))
        if conversation.unusable is not None:
            return self._unusable(conversation, emit)
        show = emit or _ignore
        reply = Reply(conversation, sampling.get("stop", []))
        texts: list[str] = []
        steps: list[Step] = []

        def deliver(new: list[Step]) -> None:
            steps.extend(new)
            texts.append(reply.take())
            show(Delta("content", texts[-1], tokens=len(new)))

        finish, cached = await self._decode(conversation, reply, draw, sampling, grant, deliver)
        texts.append(reply.rest())
        if texts[-1]:
            show(Delta("content", texts[-1], tokens=0))
        message = Message(role="assistant", content="".join(texts))
        if finish == "tool_calls":
            arguments = json.dumps({"expression": reply.expression})
            show(Delta("tool_call", arguments, tokens=0))
            message["tool_calls"] = [
                {"id": f"call_{conversation.calls}", "name": CALCULATOR, "arguments": arguments}
            ]
        usage = Usage(len(conversation.prompt), len(steps), cached, calls=1)
        return self._reply(message, finish, usage, steps if sampling.get("logprobs") else None)

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
        ceiling = self._network.shape.positions - len(conversation.prompt)
        ceiling = min(ceiling, sampling.get("max_tokens", ceiling))
        cached: int | None = None
        if conversation.trace and conversation.trace[-1] == v.DONE:
            return "stop", 0
        while reply.finish is None:
            room = await _room(grant, len(reply.tokens), ceiling)
            if room <= 0:
                return "length", cached or 0
            row = Row(
                [*conversation.prompt, *reply.tokens], draw, room, reply.accept, reply.worth_keeping
            )
            await self._engine.run(row, deliver)
            cached = row.cached if cached is None else cached
        return reply.finish, cached or 0

    def _unusable(
        self, conversation: Conversation, emit: Callable[[Delta], None] | None
    ) -> ModelReply:
        """The honest end of a conversation whose tool returned what this model has no token for."""
        result = conversation.unusable or ""
        shown = result if len(result) <= 80 else result[:77] + "..."
        text = (
            f"The calculator's result {shown!r} could not be used: "
            f"this model knows the integers from 0 to {v.NUMBER_MAX}."
        )
        (emit or _ignore)(Delta("content", text, tokens=0))
        usage = Usage(prompt_tokens=len(conversation.prompt), calls=1)
        return self._reply(Message(role="assistant", content=text), "stop", usage, None)

    def _reply(
        self, message: Message, finish: FinishReason, usage: Usage, steps: list[Step] | None
    ) -> ModelReply:
        reply = ModelReply(
            message=message,
            finish_reason=finish,
            usage=usage.to_json(),
            model=self.name,
            fingerprint=self._network.digest[:16],
        )
        if steps is not None:
            reply["logprobs"] = [
                {"token": v.word_of(step.token), "logprob": step.logprob} for step in steps
            ]
        return reply

    def count_prompt(self, request: ModelRequest) -> int | None:
        """Exact prompt tokens of the request.

        Raises:
            QuestionRefused: the conversation is no puzzle of this model.
        """
        return len(read(request).prompt)

    def fingerprint(self) -> JSONObject:
        """Kind, name, size and the SHA-256 of the weights."""
        return {
            "kind": "embedded",
            "name": self.name,
            "parameters": self._network.parameter_count,
            "weights": "sha256:" + self._network.digest,
        }

    async def aclose(self) -> None:
        """Stop decoding and free the caches; replies in flight fail. Later use starts afresh."""
        self._engine.close()


def _ignore(delta: Delta) -> None:
    del delta


def _draw(sampling: Sampling, prompt_length: int) -> Draw:
    temperature = sampling.get("temperature", 1.0)
    top_p = sampling.get("top_p", 1.0)
    if temperature < 0:
        raise InvalidInput("temperature", f"{temperature} is negative")
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
