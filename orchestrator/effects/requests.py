"""What is asked of a model: as the model gets it, and as it is recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from longthought.orchestrator.session import Session
from longthought.types import JSONObject, Message, Model, ModelRequest, Sampling

__all__ = ["ModelCall"]


@dataclass(slots=True)
class ModelCall:
    """What is asked of a model. ``known`` are the conversation ids of the first messages."""

    messages: Sequence[Message]
    model: Model
    tools: tuple[str, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    output: JSONObject | None = None
    continue_last: bool = False
    known: Sequence[str] = ()
    last_answer: bool = False
    """Whether the tokens kept back for a final answer may be used."""
    goes_on: bool = False
    """Whether it continues a reply that was cut short: not worth a prompt for a few tokens."""
    extensions: int = 0
    """How often its thought was gone on with before."""
    least_output: int = 0
    """Output tokens below which the call is of no use."""
    acts: bool = False
    """Whether the tools that the reply asks for are called next, whatever else it says."""

    def request(self, session: Session) -> ModelRequest:
        """The request as the model gets it."""
        request: ModelRequest = {"model": self.model.name, "messages": list(self.messages)}
        if self.tools:
            request["tools"] = session.definitions(self.tools)
        if self.sampling:
            request["sampling"] = self.sampling
        if self.output is not None:
            request["output"] = self.output
        if self.continue_last:
            request["continue_last"] = True
        return request

    def recorded_form(self, session: Session, ids: Sequence[str]) -> JSONObject:
        """The request as it is recorded: messages and tools by their ids."""
        form: JSONObject = {"model": self.model.name, "conversation": ids[-1] if ids else ""}
        if self.tools:
            form["tools"] = session.toolset(self.tools)
        if self.sampling:
            form["sampling"] = dict(self.sampling)
        if self.output is not None:
            form["output"] = self.output
        if self.continue_last:
            form["continue_last"] = True
        return form
