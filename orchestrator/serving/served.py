"""A model that is served: its name in the list, and what it has done since the server began."""

from __future__ import annotations

import asyncio
import hashlib
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass

from longthought.orchestrator.models.allowance import Allowance
from longthought.orchestrator.serving.refusals import encoded
from longthought.types import (
    Delta,
    JSONObject,
    Model,
    ModelReply,
    ModelRequest,
    Usage,
)

__all__ = ["ServedModel", "Tally"]


@dataclass(slots=True)
class Tally:
    """Replies of one model, each choice counted, and their tokens.

    ``waiting`` have no slot yet. ``cancelled`` were given up because the client had gone
    or another choice of its request failed; ``failed`` were refused or broke off.
    """

    waiting: int = 0
    in_flight: int = 0
    replies: int = 0
    cancelled: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0


class ServedModel:
    """One model under its name."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.tally = Tally()
        self._slots = asyncio.Semaphore(model.slots)
        self.created = int(time.time())
        identity = encoded(model.fingerprint())
        self.fingerprint = f"fp_{hashlib.sha256(identity).hexdigest()[:16]}"

    def head(self) -> JSONObject:
        """What every object of one answer begins with."""
        return {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": self.model.name,
            "system_fingerprint": self.fingerprint,
        }

    def listed(self) -> JSONObject:
        """The model as it stands in the list of models."""
        entry: JSONObject = {
            "id": self.model.name,
            "object": "model",
            "created": self.created,
            "owned_by": "longthought",
        }
        able = self.model.capabilities
        if able.context_window is not None:
            entry["max_model_len"] = able.context_window
        # What no list of OpenAI's says, for clients of ours: what it can over this connection.
        entry["capabilities"] = {
            "continues": able.continues,
            "inline_tools": able.inline_tools,
            "tools": able.tools,
            "seeds": able.seeds,
            "logprobs": able.logprobs,
            "structured_output": False,
        }
        entry["serves"] = self.model.fingerprint().get("kind")
        return entry

    def stats(self) -> JSONObject:
        """Its slots and the tally."""
        return {"slots": self.model.slots, **asdict(self.tally)}

    async def reply(
        self, request: ModelRequest, emit: Callable[[Delta], None] | None
    ) -> ModelReply:
        """The model's reply, counted; it waits for one of the model's slots.

        Raises:
            InvalidInput: the model cannot take the request.
            BackendError: the model failed.
        """
        tally = self.tally
        try:
            async with self._slot():
                reply = await self.model.generate(request, Allowance(), emit)
        except asyncio.CancelledError:
            tally.cancelled += 1
            raise
        except Exception:
            tally.failed += 1
            raise
        usage = Usage.from_json(reply["usage"])
        tally.replies += 1
        tally.prompt_tokens += usage.prompt_tokens
        tally.cached_tokens += usage.cached_tokens
        tally.completion_tokens += usage.completion_tokens
        return reply

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        tally = self.tally
        tally.waiting += 1
        try:
            await self._slots.acquire()
        finally:
            tally.waiting -= 1
        tally.in_flight += 1
        try:
            yield
        finally:
            tally.in_flight -= 1
            self._slots.release()
