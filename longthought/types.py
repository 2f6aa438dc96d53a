"""Types that cross the five folders: messages, requests, usage, verdicts and the small protocols.

Messages, requests and replies are plain JSON-ready dictionaries (``TypedDict``): they stand on the
hot path, are hashed, stored and sent as they are. Small values with behaviour are dataclasses.
The canonical form of each is part of the trace contract, see ``docs/trace-format.md``.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NotRequired, Protocol, Required, TypeAlias, TypedDict

__all__ = [
    "JSON",
    "UNBOUNDED_TOKENS",
    "Candidate",
    "Capabilities",
    "Delta",
    "FinishReason",
    "Grant",
    "JSONObject",
    "JudgeContext",
    "LeaseChange",
    "Leased",
    "Message",
    "Model",
    "ModelReply",
    "ModelRequest",
    "Paced",
    "PicksUp",
    "ReasoningItem",
    "Sampling",
    "Scheduled",
    "Scheduling",
    "ToolCallPart",
    "ToolDefinition",
    "Turn",
    "Usage",
    "Verdict",
    "Verifier",
    "text_of",
]

# JSON values are read far more often than they are built; a precise recursive union would force a
# cast at every subscript without catching a mistake that the pydantic models at the edges do not.
JSON: TypeAlias = Any
JSONObject: TypeAlias = dict[str, Any]

FinishReason: TypeAlias = Literal["stop", "tool_calls", "length", "cut", "refusal", "error"]
"""How a reply ended. ``length``: the granted tokens were used up; ``cut``: we closed the stream."""


UNBOUNDED_TOKENS = 2**31 - 1
"""A grant of this size stands for "no limit": a remote backend is sent none."""


class ToolCallPart(TypedDict):
    """One tool call inside an assistant message; ``arguments`` is the raw text the model wrote."""

    id: str
    name: str
    arguments: str


class ReasoningItem(TypedDict, total=False):
    """A piece of hidden or visible reasoning; ``encrypted`` and ``provider`` go back unchanged."""

    id: str
    text: str
    encrypted: str
    provider: JSONObject


class Message(TypedDict, total=False):
    """One canonical message of a conversation.

    ``content`` is text, or a list of parts passed through to the provider (images, files).
    ``provider`` is opaque provider data that has to be sent back unchanged.
    """

    role: Required[Literal["system", "user", "assistant", "tool"]]
    content: Required[str | list[JSONObject] | None]
    reasoning: list[ReasoningItem]
    tool_calls: list[ToolCallPart]
    tool_call_id: str
    name: str
    provider: JSONObject


class ToolDefinition(TypedDict):
    """A tool as the model sees it; ``parameters`` is a JSON schema of an object."""

    name: str
    description: str
    parameters: JSONObject


class Sampling(TypedDict, total=False):
    """How a reply is drawn. Absent means the backend's default.

    ``max_tokens`` is the user's own wish for one reply (tokens); what the budget grants beside it
    is a result of the call and no part of the request. ``thinking_tokens`` limits the visible
    reasoning that comes before it says anything: then the thought is cut and the answer asked for.
    0 asks for no reasoning where the backend can be told, and cuts nothing. A visible thought that
    ends before ``min_thinking_tokens`` is gone on with before the answer.
    """

    temperature: float
    top_p: float
    seed: int
    stop: list[str]
    max_tokens: int
    reasoning_effort: str
    thinking_tokens: int
    min_thinking_tokens: int
    logprobs: bool


class ModelRequest(TypedDict):
    """The meaning of a model call. Its hash decides whether a recorded answer may be reused.

    ``continue_last``: the last message is an unfinished assistant message to be continued.
    ``provider``: extra parameters for one provider, passed through unchanged.
    """

    model: str
    messages: list[Message]
    tools: NotRequired[list[ToolDefinition]]
    sampling: NotRequired[Sampling]
    output: NotRequired[JSONObject]
    continue_last: NotRequired[bool]
    provider: NotRequired[JSONObject]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one or more model calls, as the backend reported them.

    ``cached_tokens`` are part of ``prompt_tokens``; ``reasoning_tokens`` are part of
    ``completion_tokens``. ``estimated`` marks figures that were counted or bounded by us because
    the backend sent none.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    calls: int = 0
    estimated: bool = False

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together, in tokens."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            self.calls + other.calls,
            self.estimated or other.estimated,
        )

    def to_json(self) -> JSONObject:
        """A JSON object with every field that is not zero or false."""
        pairs = {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "cached_tokens": self.cached_tokens,
            "reasoning_tokens": self.reasoning_tokens,
            "calls": self.calls,
            "estimated": self.estimated,
        }
        return {name: value for name, value in pairs.items() if value}

    @classmethod
    def from_json(cls, value: Mapping[str, JSON] | None) -> Usage:
        """The usage written by :meth:`to_json`; absent fields are zero."""
        return cls(**value) if value else cls()


class ModelReply(TypedDict):
    """What a model answered. ``usage`` is :meth:`Usage.to_json`; ``model`` the resolved name.

    ``stopped_by`` is the stop string that ended the reply, None if it ended otherwise; it is
    missing where none was asked for or the backend does not tell. ``granted`` is there when the
    budget granted fewer output tokens than were wished for, and they were used up. ``thought_cut``
    is there when ``sampling.thinking_tokens`` were used up before anything was said,
    ``thought_short`` when something was said before there were ``sampling.min_thinking_tokens``.
    """

    message: Message
    finish_reason: FinishReason
    usage: JSONObject
    model: str
    fingerprint: NotRequired[str]
    logprobs: NotRequired[list[JSONObject]]
    stopped_by: NotRequired[str | None]
    granted: NotRequired[int]
    thought_cut: NotRequired[bool]
    thought_short: NotRequired[bool]


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of a reply while it streams. Deltas are shown, never recorded.

    ``tokens`` is the number of completion tokens this piece stands for, as far as known. ``call``
    is the whole tool call, in the one piece (of no text and no tokens) that says that its arguments
    are complete; what it asks for may be begun before the stream ends. ``usage`` is that of the
    call up to here, where the backend tells it with each piece.
    """

    kind: Literal["content", "reasoning", "tool_call"]
    text: str
    tokens: int = 1
    index: int = 0
    call: ToolCallPart | None = None
    usage: Usage | None = None


class Grant(Protocol):
    """Output tokens that the budget has reserved for one model call.

    A model that controls its own generation asks for more with :meth:`top_up` when it reaches
    ``tokens``; when nothing more is to be had it ends the reply with ``finish_reason="length"``.
    A remote backend is sent ``tokens`` as its ``max_tokens``.
    """

    @property
    def tokens(self) -> int:
        """Completion tokens this call may produce at this moment."""
        ...

    async def top_up(self, wanted: int) -> int:
        """Ask for ``wanted`` more tokens; returns the new total, unchanged if none are left."""
        ...


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend can do; the executor and the budget rely on it.

    ``top_up``: generation stops exactly at the grant and can be granted more while it runs.
    ``honours_max_tokens``: never produces more than the ``max_tokens`` it was sent.
    ``continues``: can go on with an unfinished assistant message (``continue_last``).
    ``inline_tools``: a tool call interrupts the text, and the reply after its result goes on with
    that same text, so that only all of them together say what was thought.
    ``structured_output``: keeps to the JSON schema of a request's ``output``; others are told the
    schema in the system prompt.
    """

    streams: bool = True
    honours_max_tokens: bool = True
    top_up: bool = False
    continues: bool = False
    inline_tools: bool = False
    tools: bool = True
    seeds: bool = False
    logprobs: bool = False
    context_window: int | None = None
    structured_output: bool = True


class Model(Protocol):
    """Anything that answers a :class:`ModelRequest`; ours are in ``orchestrator/models``.

    ``name`` is what stands in requests, price books and traces. ``slots`` is how many calls may be
    in flight at once. A model may have a ``context_capacity`` besides: tokens of memory for the
    contexts of all calls together, None where nobody knows; it may become known later. For a
    :class:`Leased` one it is what is left for contexts that do not generate.
    """

    name: str
    slots: int
    capabilities: Capabilities

    async def generate(
        self,
        request: ModelRequest,
        grant: Grant,
        emit: Callable[[Delta], None] | None = None,
    ) -> ModelReply:
        """Answer one request within the grant; ``emit`` is called with each delta.

        Raises:
            BackendError: the backend failed; ``retryable`` says whether another try may help.
            QuestionRefused: the model cannot take this question at all.
        """
        ...

    def count_prompt(self, request: ModelRequest) -> int | None:
        """Exact prompt tokens of the request, or None when the tokenizer is not known."""
        ...

    def fingerprint(self) -> JSONObject:
        """What identifies the model in a manifest: kind, name, weights or endpoint. No secrets."""
        ...

    async def aclose(self) -> None:
        """Release connections, threads and memory. May be called more than once."""
        ...


class Turn(Protocol):
    """The right to one call at an endpoint, now."""

    def end(self) -> None:
        """The call is over, or will not be made. Saying it twice is harmless."""
        ...


class Paced(Protocol):
    """What a :class:`Model` has besides if its endpoint takes only so many calls in a minute.

    Whoever makes a call takes a turn first, in the task that makes the call, and ends it
    afterwards. ``tokens`` is an upper bound of prompt and output together. ``tries`` is how many
    tries of the call have failed; who has failed most often goes first.
    """

    def try_turn(self, tokens: int, *, tries: int = 0) -> Turn | None:
        """The turn if the call may leave at once, else None."""
        ...

    async def turn(self, tokens: int, *, tries: int = 0, within: float = math.inf) -> Turn:
        """Wait for a turn, first come first served. Cancelling gives the place back.

        Raises:
            BackendError: it is known that there is none within so many seconds.
        """
        ...


@dataclass(frozen=True, slots=True)
class Scheduling:
    """What is known of a call that matters to when and where it is served.

    It travels beside the request and is no part of it: neither recorded nor hashed. ``branch`` is
    unique among all runs. ``resumed``: the branch has generated before, so that its prompt begins
    with what a server has seen. ``since`` is when the branch began, in seconds since the epoch.
    ``keep`` records under which id a provider works on the reply by itself, see :class:`PicksUp`.
    """

    run: str
    branch: str
    resumed: bool = False
    since: float = 0.0
    keep: Callable[[str], Awaitable[None]] | None = field(default=None, compare=False)


class PicksUp(Protocol):
    """What a :class:`Model` has besides if its provider works on replies by itself.

    It awaits ``keep`` of its :class:`Scheduling` with an id as soon as a reply has one. If the
    process dies then, the attempt that resumes the run asks for that reply before it asks anew.
    """

    async def pick_up(self, request: ModelRequest, handle: str, limit: int) -> ModelReply | None:
        """The reply of that id, once it has ended; None if it is kept no longer.

        ``limit`` is how many tokens it was granted.

        Raises:
            BackendError: it failed, or nobody can be asked for it.
        """
        ...


class Scheduled(Protocol):
    """What a :class:`Model` has besides if it wants to know the :class:`Scheduling` of its calls.

    Whoever makes a call tells it first, in the task that makes the call, before a turn is taken;
    see ``orchestrator/models/scheduling.py``.
    """

    @property
    def takes_scheduling(self) -> bool:
        """Whether it would make a difference; if not, nobody need tell."""
        ...


LeaseChange: TypeAlias = Literal["taken", "resumed", "acting", "parked", "shed", "ended"]
"""What happens to a branch's lease on context memory. It begins by ``taken``, or by ``resumed`` if
the branch had lost one, and is over with ``parked``, ``shed`` (both: the room is needed, the branch
may come back) or ``ended``. ``acting``: the branch waits for a tool and has its lease meanwhile.
"""


class Leased(Protocol):
    """What a :class:`Model` has besides if it can keep what it computed for a branch.

    For models whose memory is theirs to manage. Such a model has a ``context_capacity``: tokens of
    contexts that do not generate (those that do have a memory of their own), each counted whole.
    It takes the :class:`Scheduling` of its calls, which names the branch.
    """

    def lease_changed(self, branch: str, change: LeaseChange) -> None:
        """Something happened to the lease of a branch.

        Called by the generation controller, in its thread and in the order in which it happens:
        must neither raise nor wait.
        """
        ...


@dataclass(frozen=True, slots=True)
class Candidate:
    """A proposed answer, or an unfinished line of thought when ``final`` is false.

    ``answer`` is what the answer kind found in ``text`` (canonical form), None when it found
    nothing. ``messages`` is the whole conversation of the branch.
    """

    question: str
    text: str
    answer: str | None = None
    final: bool = True
    messages: Sequence[Message] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A verifier's judgement. ``score`` lies in [0, 1]; ``passed`` is None when it cannot say."""

    score: float
    passed: bool | None = None
    reason: str = ""
    usage: Usage = field(default_factory=Usage)

    def to_json(self) -> JSONObject:
        """JSON form as recorded in a trace."""
        return {
            "score": self.score,
            "passed": self.passed,
            "reason": self.reason,
            "usage": self.usage.to_json(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, JSON]) -> Verdict:
        """The verdict written by :meth:`to_json`."""
        return cls(
            value["score"], value["passed"], value["reason"], Usage.from_json(value["usage"])
        )


class JudgeContext(Protocol):
    """What a verifier may use: every call is recorded, charged and replayed like a branch's own."""

    async def model(
        self, messages: Sequence[Message], *, model: str | None = None, **sampling: JSON
    ) -> ModelReply:
        """Ask a model of the workflow."""
        ...

    async def tool(self, name: str, arguments: JSONObject) -> JSONObject:
        """Call a tool of the workflow; returns the recorded tool result as JSON."""
        ...


class Verifier(Protocol):
    """Judges a candidate or a step without knowing the expected answer."""

    name: str

    def spec(self) -> JSONObject:
        """What identifies this verifier and its parameters in a trace."""
        ...

    async def judge(self, candidate: Candidate, context: JudgeContext) -> Verdict:
        """The verdict on one candidate. Anything raised becomes a verdict that says so."""
        ...


def text_of(message: Message) -> str:
    """The text of a message; parts that are not text are left out."""
    content = message["content"]
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
