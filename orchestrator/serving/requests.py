"""The body of a Chat Completions call: checked, then turned into requests of our own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import from_json
from starlette.exceptions import HTTPException

from longthought.errors import InvalidInput
from longthought.types import (
    JSON,
    JSONObject,
    Message,
    Model,
    ModelRequest,
    Sampling,
    ToolDefinition,
)

__all__ = ["MOST_CHOICES", "ChatCall", "model_requests", "read_call"]

MOST_CHOICES = 128
"""The most choices of one call."""

_MOST_STOPS, _LONGEST_STOP = 16, 1000

# What changes an answer and cannot be done here, each with the values that change nothing. All
# else that is not known is ignored, as other servers do: it describes the caller, not the answer.
_UNSUPPORTED: Mapping[str, tuple[JSON, ...]] = {
    "audio": (),
    "best_of": (1,),
    "echo": (False,),
    "frequency_penalty": (0,),
    "function_call": (),
    "functions": ([],),
    "guided_choice": (),
    "guided_grammar": (),
    "guided_json": (),
    "guided_regex": (),
    "ignore_eos": (False,),
    "logit_bias": ({},),
    "min_p": (0,),
    "min_tokens": (0,),
    "modalities": (["text"],),
    "moderation": (),
    "prediction": (),
    "presence_penalty": (0,),
    "prompt_logprobs": (),
    "repetition_penalty": (1,),
    "response_format": ({"type": "text"},),
    "store": (False,),
    "structured_outputs": (),
    "top_k": (0, -1),
    "use_beam_search": (False,),
    "verbosity": ("medium",),
    "web_search_options": (),
}


def _in_parts(value: JSON) -> JSON:
    return [{"type": "text", "text": value}] if isinstance(value, str) else value


def _listed(value: JSON) -> JSON:
    return [value] if isinstance(value, str) else value


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class _Part(_Body):
    type: Literal["text"]
    text: str


class _CalledFunction(_Body):
    name: str
    arguments: str


class _ToolCall(_Body):
    id: str
    type: Literal["function"] = "function"
    function: _CalledFunction


class _Message(_Body):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[list[_Part] | None, BeforeValidator(_in_parts)] = None
    tool_calls: list[_ToolCall] | None = None
    tool_call_id: str | None = None
    name: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    function_call: None = None
    audio: None = None

    @model_validator(mode="after")
    def _whole(self) -> _Message:
        if self.content is None and self.role != "assistant":
            raise ValueError(f"a {self.role} message needs content")
        if self.role == "tool" and self.tool_call_id is None:
            raise ValueError("a tool message needs tool_call_id")
        if self.role != "assistant" and self.tool_calls:
            raise ValueError(f"a {self.role} message makes no tool calls")
        return self

    def canonical(self) -> Message:
        """The message as our models take it."""
        text = None if self.content is None else "".join(part.text for part in self.content)
        role = "system" if self.role == "developer" else self.role
        message = Message(role=role, content=text)
        for field in ("reasoning_content", "reasoning"):
            if thought := getattr(self, field):
                message["reasoning"] = [{"text": thought, "provider": {"field": field}}]
                break
        if self.tool_calls:
            message["tool_calls"] = [
                {"id": call.id, "name": call.function.name, "arguments": call.function.arguments}
                for call in self.tool_calls
            ]
        if self.tool_call_id is not None:
            message["tool_call_id"] = self.tool_call_id
        if self.name is not None:
            message["name"] = self.name
        return message


class _OfferedFunction(_Body):
    name: str = Field(min_length=1)
    description: str | None = None
    parameters: JSONObject | None = None


class _Tool(_Body):
    type: Literal["function"]
    function: _OfferedFunction

    def canonical(self) -> ToolDefinition:
        """The tool as our models take it."""
        function = self.function
        empty: JSONObject = {"type": "object", "properties": {}}
        return {
            "name": function.name,
            "description": function.description or "",
            "parameters": function.parameters or empty,
        }


class _StreamOptions(_Body):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


_Stop = Annotated[str, Field(min_length=1, max_length=_LONGEST_STOP)]


class ChatCall(_Body):
    """The body of a call, its fields checked; null stands for a field that is left out."""

    model: str
    messages: list[_Message] = Field(min_length=1)
    tools: list[_Tool] | None = None
    tool_choice: JSON = None
    parallel_tool_calls: bool | None = None
    n: int | None = Field(None, ge=1, le=MOST_CHOICES)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: Annotated[list[_Stop] | None, Field(max_length=_MOST_STOPS), BeforeValidator(_listed)] = (
        None
    )
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0)
    reasoning_effort: str | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None

    @property
    def include_usage(self) -> bool:
        """Whether the last chunk of the stream is to carry the usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def running_usage(self) -> bool:
        """Whether every chunk is to carry the usage so far, if the last one does; as vLLM."""
        options = self.stream_options
        return self.include_usage and options is not None and bool(options.continuous_usage_stats)


def read_call(body: bytes) -> ChatCall:
    """The call that a body describes.

    Raises:
        HTTPException: it is no JSON object.
        InvalidInput: a field cannot be used; it is named by its path.
    """
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise HTTPException(400, f"the body is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise HTTPException(400, "the body is no JSON object")
    for name, harmless in _UNSUPPORTED.items():
        if (given := value.get(name)) is not None and given not in harmless:
            fix = f"Leave it out{' or give ' + repr(harmless[0]) if harmless else ''}"
            raise InvalidInput(name, "is not supported by this server", fix)
    try:
        return ChatCall.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        problem = first["msg"].removeprefix("Value error, ")
        raise InvalidInput(_path(first["loc"]), problem) from None


def _path(location: Sequence[str | int]) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return path.removeprefix(".")


def model_requests(call: ChatCall, model: Model) -> list[ModelRequest]:
    """One request for each choice; choice ``i`` is drawn with the seed that was given plus ``i``.

    Raises:
        InvalidInput: something is asked for that this model, or this server, cannot do.
    """
    _check_tools(call, model)
    _check_logprobs(call, model)
    request = ModelRequest(
        model=model.name, messages=[message.canonical() for message in call.messages]
    )
    if call.tools and call.tool_choice != "none":
        request["tools"] = [tool.canonical() for tool in call.tools]
    if _continues(call, model):
        request["continue_last"] = True
    sampling = _sampling(call)
    requests = [request]
    for choice in range(call.n or 1):
        drawn = sampling.copy()
        if call.seed is not None:
            drawn["seed"] = call.seed + choice
        requests.append({**request, "sampling": drawn})
    return requests[1:]


def _sampling(call: ChatCall) -> Sampling:
    given = {
        "temperature": call.temperature,
        "top_p": call.top_p,
        "stop": call.stop,
        "max_tokens": call.max_completion_tokens or call.max_tokens,
        "reasoning_effort": call.reasoning_effort,
        "logprobs": call.logprobs or None,
    }
    return cast("Sampling", {name: value for name, value in given.items() if value is not None})


def _check_tools(call: ChatCall, model: Model) -> None:
    if call.tool_choice not in (None, "auto", "none"):
        raise InvalidInput(
            "tool_choice", "a model here cannot be made to call a tool", 'Use "auto" or "none"'
        )
    if call.tools and not model.capabilities.tools:
        raise InvalidInput("tools", f"{model.name} calls none", "Leave them out")
    if call.parallel_tool_calls is False and not model.capabilities.inline_tools:
        raise InvalidInput(
            "parallel_tool_calls", f"{model.name} may make several calls", "Leave it out"
        )


def _check_logprobs(call: ChatCall, model: Model) -> None:
    if call.logprobs and not model.capabilities.logprobs:
        raise InvalidInput("logprobs", f"{model.name} gives none", "Leave it out")
    if call.top_logprobs and not call.logprobs:
        raise InvalidInput("top_logprobs", "goes with logprobs", "Set logprobs to true")
    if call.top_logprobs:
        raise InvalidInput(
            "top_logprobs",
            f"{model.name} gives the log-probability of each chosen token alone",
            "Give 0 or leave it out",
        )


def _continues(call: ChatCall, model: Model) -> bool:
    """Whether the last message is to be continued: two fields say it, as vLLM has them."""
    if not call.continue_final_message:
        if call.add_generation_prompt is False:
            raise InvalidInput(
                "add_generation_prompt",
                "nobody would speak",
                "Leave it out, or set continue_final_message to true",
            )
        return False
    if call.add_generation_prompt:
        raise InvalidInput(
            "add_generation_prompt",
            "a message is continued or a new one begun, not both",
            "Set it to false to continue",
        )
    if call.messages[-1].role != "assistant":
        raise InvalidInput("continue_final_message", "the last message is not the assistant's")
    if not model.capabilities.continues:
        raise InvalidInput("continue_final_message", f"{model.name} cannot go on with a message")
    return True
