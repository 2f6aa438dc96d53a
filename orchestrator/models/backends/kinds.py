"""Kinds of servers: what each is documented to do, as far as it matters here.

What stands here is an assumption until a server was asked or probed. It is taken from the pages and
sources named in ``source``, or was measured; what nobody says is left at what every server can do.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from longthought.errors import InvalidInput

__all__ = [
    "GENERIC",
    "KINDS",
    "OPENAI",
    "OPENAI_URL",
    "OWN",
    "First",
    "Kind",
    "ParameterName",
    "Window",
    "kind_named",
]

Continues = Literal["always", "streamed", "never"]
First = Literal["lower", "higher"]
ParameterName = Literal["priority", "cache_salt", "prompt_cache_key", "service_tier", "background"]
Window = Literal["soonest", "2h", "8h"]
"""By when a reply in the background is wanted."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of server.

    ``title`` is what people call it, ``owners`` what it writes as ``owned_by`` in its list of
    models, ``port`` where it usually listens on a machine. ``slots`` is how many calls it is sent
    at once unless told otherwise.

    ``continues``: whether it goes on with an unfinished message; "streamed" where a whole reply
    repeats that message, so that only a streamed one can be joined to it. All that can take the
    two fields of vLLM for it, ``continue_final_message`` and ``add_generation_prompt``.
    ``max_tokens_field`` is None where it follows from the name of the model. ``reasoning`` is the
    field in which visible reasoning comes; ``thinking_field`` the parameter of Chat Completions by
    which the server ends a thought itself. ``running_usage``: tells the usage of a stream with each
    piece (``continuous_usage_stats``). ``samples``: takes ``n``. ``structured``: keeps to a
    JSON schema. ``responses``: has ``/responses`` beside Chat Completions. ``seeds``: equal seeds
    draw equal replies, as far as it promises. ``cached``: reports cached tokens; "option" if it
    has to be started with one.

    ``takes`` are the parameters of a request that say how it is to be served, and nothing of what
    is asked. ``first`` is which numbers go first as ``priority``. ``tells_capacity``: says how many
    tokens of context it keeps in memory. ``prefix_cache``: is one server that finds the beginnings
    of prompts again for as long as it has room, so that what it did not find shows how much it has.
    """

    name: str
    title: str
    owners: tuple[str, ...] = ()
    port: int | None = None
    slots: int = 32
    continues: Continues = "never"
    inline_tools: bool = False
    seeds: bool = True
    logprobs: bool = True
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] | None = None
    reasoning: str | None = None
    thinking_field: str | None = None
    running_usage: bool = False
    samples: bool = False
    structured: bool = False
    responses: bool = False
    cached: Literal["yes", "option", "unknown"] = "unknown"
    takes: tuple[ParameterName, ...] = ()
    first: First | None = None
    tells_capacity: bool = False
    prefix_cache: bool = False
    notes: str = ""
    source: str = ""
    measured: str = ""
    """Which version was measured, and what of all this; the rest is documented."""

    @property
    def url(self) -> str | None:
        """Its address unless another is given; None if that cannot be known."""
        if self.name == OPENAI:
            return OPENAI_URL
        return f"http://localhost:{self.port}/v1" if self.port else None

    def capabilities(self, api: str = "chat", *, stream: bool = True) -> dict[str, Any]:
        """The fields of ``Capabilities`` that follow from this kind, for one of its protocols."""
        if self.name == GENERIC:
            return {}
        able: dict[str, Any] = {"logprobs": self.logprobs, "structured_output": self.structured}
        if (
            api == "chat"
        ):  # Responses goes on with no message, and what it does of seeds is not said
            streamed = self.continues == "streamed" and stream
            able["continues"] = self.continues == "always" or streamed
            able |= {"inline_tools": self.inline_tools, "seeds": self.seeds}
        return able


OPENAI = "openai"
OPENAI_URL = "https://api.openai.com/v1"
OWN = "longthought"
"""The kind of our own ``serve-model``."""
GENERIC = "generic"
"""Any other server: it is taken to do what OpenAI's does, until told otherwise."""

_ALL = (
    Kind(
        OPENAI,
        "OpenAI",
        max_tokens_field="max_completion_tokens",
        samples=True,
        structured=True,
        responses=True,
        cached="yes",
        takes=("prompt_cache_key", "service_tier", "background"),
        notes="seeds are best effort; reasoning models give no log-probabilities",
        source="platform.openai.com/docs/api-reference/chat",
    ),
    Kind(
        "vllm",
        "vLLM",
        owners=("vllm",),
        port=8000,
        continues="always",
        max_tokens_field="max_tokens",
        reasoning="reasoning",  # reasoning_content before 0.12
        thinking_field="thinking_token_budget",
        running_usage=True,
        samples=True,
        structured=True,
        responses=True,
        cached="option",
        takes=("priority", "cache_salt"),
        first="lower",
        tells_capacity=True,
        prefix_cache=True,
        notes="tools need --enable-auto-tool-choice and a --tool-call-parser; cached tokens "
        "--enable-prompt-tokens-details; priorities --scheduling-policy priority",
        source="vllm/entrypoints/openai of vLLM 0.32",
        measured="0.32.0: all but the field of reasoning",
    ),
    Kind(
        "sglang",
        "SGLang",
        owners=("sglang",),
        port=30000,
        continues="always",
        seeds=False,  # only with --enable-deterministic-inference
        max_tokens_field="max_tokens",
        reasoning="reasoning_content",
        running_usage=True,
        samples=True,
        structured=True,
        responses=True,
        cached="option",
        takes=("priority", "cache_salt"),
        first="higher",
        tells_capacity=True,
        prefix_cache=True,
        notes="seeds need --enable-deterministic-inference, cached tokens --enable-cache-report, "
        "tools a --tool-call-parser, priorities --enable-priority-scheduling",
        source="sglang python/sglang/srt/entrypoints/openai/protocol.py; "
        "docs.sglang.io/docs/advanced_features/deterministic_inference",
    ),
    Kind(
        "llama.cpp",
        "llama.cpp",
        owners=("llamacpp",),
        port=8080,
        slots=4,  # --parallel; more wait
        continues="streamed",
        max_tokens_field="max_tokens",
        reasoning="reasoning_content",
        thinking_field="reasoning_budget_tokens",
        samples=True,
        structured=True,
        responses=True,
        cached="yes",
        tells_capacity=True,
        prefix_cache=True,
        notes="a whole reply repeats the message that it continues, a streamed one does not",
        source="llama.cpp tools/server/server-common.cpp, server-schema.cpp, server-task.cpp",
        measured="b1-0c1e570: all",
    ),
    Kind(
        "ollama",
        "Ollama",
        owners=("library",),  # or the name of a user
        port=11434,
        slots=4,  # OLLAMA_NUM_PARALLEL; more wait
        max_tokens_field="max_tokens",
        reasoning="reasoning",
        structured=True,
        responses=True,
        notes="reads no n; a prompt longer than its context is cut without a word: "
        "set OLLAMA_CONTEXT_LENGTH",
        source="docs.ollama.com/api/openai-compatibility",
    ),
    Kind(
        "lmstudio",
        "LM Studio",
        owners=("organization_owner",),
        port=1234,
        slots=4,
        logprobs=False,
        max_tokens_field="max_tokens",
        reasoning="reasoning_content",
        structured=True,
        responses=True,
        source="lmstudio.ai/docs/developer/openai-compat; lmstudio.ai/docs/developer/api-changelog",
    ),
    Kind(
        OWN,
        "longthought",
        owners=("longthought",),
        port=8910,
        slots=16,
        continues="always",
        inline_tools=True,
        max_tokens_field="max_tokens",
        reasoning="reasoning_content",
        running_usage=True,
        samples=True,
        cached="yes",
        prefix_cache=True,
        notes="says of each model what it can",
        source="docs/serving.md",
        measured="every version: all",
    ),
    Kind(GENERIC, "any other", structured=True),
)

KINDS: Mapping[str, Kind] = MappingProxyType({kind.name: kind for kind in _ALL})
"""Kind by name."""


def kind_named(name: str, field_name: str = "kind") -> Kind:
    """The kind of this name.

    Raises:
        InvalidInput: there is none; the message lists them.
    """
    if name in KINDS:
        return KINDS[name]
    near = difflib.get_close_matches(name.lower(), [*KINDS], n=1)
    fix = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(KINDS)}"
    raise InvalidInput(field_name, f"there is no kind {name!r}", fix)
