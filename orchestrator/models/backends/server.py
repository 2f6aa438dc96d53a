"""What a server says of itself when it is asked, which costs nothing: no model is called.

Every server lists its models at ``/v1/models`` and writes who it is as their owner. What else
there is to know (version, slots, the context it was started with) each says in its own place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

import httpx

from longthought.orchestrator.models.backends.addresses import (
    below,
    checked_url,
    public_url,
    root_of,
)
from longthought.orchestrator.models.backends.facts import ServerFacts
from longthought.orchestrator.models.backends.fetch import (
    client_for,
    fetch_json,
    fetch_text,
    plain,
)
from longthought.orchestrator.models.backends.kinds import KINDS, OPENAI, OPENAI_URL, OWN
from longthought.orchestrator.models.backends.metrics import Metrics
from longthought.types import Capabilities, JSONObject

__all__ = ["ASK_SECONDS", "ask_over", "ask_server", "is_model_id", "kind_of_owner"]

ASK_SECONDS = 2.0
"""How long a server is waited for in all, unless told otherwise."""

_MOST_MODELS = 500
_MOST_ID_CHARS = 200
_MOST_VERSION_CHARS = 80
_BOOLEANS = tuple(
    # a grant is not topped up over a connection
    name
    for name in Capabilities.__dataclass_fields__
    if name not in ("context_window", "top_up")
)


async def ask_server(
    base_url: str,
    *,
    model: str | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float | None = None,  # noqa: ASYNC109 - one bound over several requests
) -> ServerFacts:
    """Ask a server what it is, by two to five GETs.

    ``timeout`` is seconds for all together, :data:`ASK_SECONDS` unless given.
    ``model`` is the one that facts are wanted of. Whatever a stranger answers is data: a server
    that is not there or makes no sense leaves its facts at None, with the ``problem`` in words.

    Raises:
        ConfigurationError: the address is none, or a variable in the headers is not set.
    """
    base_url = checked_url(base_url)
    timeout = ASK_SECONDS if timeout is None else timeout
    async with client_for(base_url, httpx.Timeout(timeout), headers) as client:
        return await ask_over(client, base_url, model, timeout)


async def ask_over(
    client: httpx.AsyncClient,
    base_url: str,
    model: str | None,
    timeout: float,  # noqa: ASYNC109 - one bound over several requests
) -> ServerFacts:
    """:func:`ask_server` by a client that is there already."""
    inquiry = _Inquiry(base_url, model)
    try:
        async with asyncio.timeout(timeout):
            await inquiry.ask(client)
    except (TimeoutError, httpx.TimeoutException) as error:
        silent = not isinstance(error, httpx.ConnectTimeout)
        problem = f"no answer within {timeout:g} s"
        return replace(inquiry.known, problem=problem, silent=silent)
    except Exception as error:  # a stranger's program may fail in any way
        return replace(inquiry.known, problem=_problem(error))
    return inquiry.known


def kind_of_owner(owner: object) -> str | None:
    """The kind of server that writes this as the owner of its models."""
    return next((kind.name for kind in KINDS.values() if owner in kind.owners), None)


def is_model_id(value: object) -> bool:
    """Whether it can be shown on a terminal and named on a command line."""
    return isinstance(value, str) and 0 < len(value) <= _MOST_ID_CHARS and value.isprintable()


class _Inquiry:
    """One server being asked; ``known`` grows with every answer, so a late one costs no other."""

    def __init__(self, base_url: str, model: str | None) -> None:
        self._base, self._root, self._model = base_url, root_of(base_url), model or ""
        self._client: Any = None
        self.known = ServerFacts()

    async def ask(self, client: httpx.AsyncClient) -> None:
        self._client = client
        fetched = await fetch_json(client, below(self._base, "/models"))
        entries = _entries(fetched.value) if fetched.status == 200 else None
        if entries is None:
            no_list = ", which is no list of models" if fetched.status == 200 else ""
            problem = f"GET {public_url(self._base)}/models: status {fetched.status}{no_list}"
            self._learn(problem=problem, status=fetched.status)
            return
        models = tuple(dict.fromkeys(one["id"] for one in entries if is_model_id(one.get("id"))))
        owner = entries[0].get("owned_by") if entries else None
        kind = OPENAI if self._official else kind_of_owner(owner)
        # A server of one model calls it what it likes; of several, only the one asked for counts.
        same = [one for one in entries if one.get("id") == self._model]
        entry = next(iter(same or (entries if len(entries) == 1 else ())), {})
        self._learn(kind=kind, models=models, context_window=_context_of(entry))
        say = self._sayings().get(kind or "", self._tell_apart)
        await say(entry)

    def _learn(self, **facts: Any) -> None:
        self.known = replace(self.known, **facts)

    @property
    def _official(self) -> bool:
        return urlsplit(self._base).hostname == urlsplit(OPENAI_URL).hostname

    def _sayings(self) -> Mapping[str, Callable[[JSONObject], Awaitable[None]]]:
        return {
            OPENAI: self._nothing_more,
            "vllm": self._vllm,
            "sglang": self._sglang,
            "llama.cpp": self._llama,
            "ollama": self._ollama,
            "lmstudio": self._lmstudio,
            OWN: self._own,
        }

    async def _nothing_more(self, entry: JSONObject) -> None:
        """The list of models is all that there is."""

    async def _tell_apart(self, entry: JSONObject) -> None:
        """The owner says nothing: it may be the name of a user of Ollama, or of LM Studio's."""
        ollama, studio = await asyncio.gather(
            self._object("/api/version"), self._object("/api/v0/models")
        )
        if isinstance(ollama.get("version"), str):
            self._learn(kind="ollama")
            await self._ollama(entry)
        elif isinstance(studio.get("data"), list):
            self._learn(kind="lmstudio")
            self._studio_said(studio)

    async def _vllm(self, entry: JSONObject) -> None:
        said, page = await asyncio.gather(self._object("/version"), self._metrics())
        capacity, load = page.of_vllm()
        self._learn(version=_version(said.get("version")), context_capacity=capacity, load=load)

    async def _sglang(self, entry: JSONObject) -> None:
        said = await self._object("/server_info") or await self._object("/get_server_info")
        keeps = said.get("disable_radix_cache") is not True
        capacity = _count(said.get("max_total_num_tokens"))
        # Nothing else is taken of what it says: its own keys may stand in it.
        self._learn(
            version=_version(said.get("version")),
            context_window=self.known.context_window or _count(said.get("context_length")),
            slots=_count(said.get("max_running_requests")),
            context_capacity=capacity if keeps else None,
            priority=_first_of(said),
        )
        counted, load = (await self._metrics()).of_sglang()
        self._learn(context_capacity=(capacity or counted) if keeps else None, load=load)

    async def _llama(self, entry: JSONObject) -> None:
        meta = entry.get("meta")
        listed = _count(meta.get("n_ctx")) if isinstance(meta, dict) else None
        self._learn(context_window=listed)
        said = await self._object("/props")
        settings = said.get("default_generation_settings")
        of_slot = _count(settings.get("n_ctx")) if isinstance(settings, dict) else None
        slots = _count(said.get("total_slots"))
        self._learn(
            version=_version(said.get("build_info")),
            context_window=of_slot or self.known.context_window,
            slots=slots,
            context_capacity=_capacity_of_slots(listed, of_slot, slots),
        )

    async def _ollama(self, entry: JSONObject) -> None:
        version, running = await asyncio.gather(
            self._object("/api/version"), self._object("/api/ps")
        )
        # The length it was loaded with. What the model could take is in /api/show, and no matter.
        loaded = _named(running.get("models"), self._model, "name", "model")
        self._learn(
            version=_version(version.get("version")),
            context_window=_count(loaded.get("context_length")),
        )

    async def _lmstudio(self, entry: JSONObject) -> None:
        self._studio_said(await self._object("/api/v0/models"))

    def _studio_said(self, said: JSONObject) -> None:
        entry = _named(said.get("data"), self._model, "id")
        self._learn(context_window=_count(entry.get("loaded_context_length")))

    async def _own(self, entry: JSONObject) -> None:
        stated, serves = entry.get("capabilities"), entry.get("serves")
        stated = stated if isinstance(stated, dict) else {}
        able = {name: stated[name] for name in _BOOLEANS if isinstance(stated.get(name), bool)}
        self._learn(
            capabilities=MappingProxyType(able), serves=serves if is_model_id(serves) else None
        )
        stats = (await self._object("/stats")).get("models")
        own = stats.get(entry.get("id")) if isinstance(stats, dict) else None
        self._learn(slots=_count(own.get("slots")) if isinstance(own, dict) else None)

    async def _metrics(self) -> Metrics:
        """What it counts, nothing if it does not say."""
        return Metrics(await fetch_text(self._client, below(self._root, "/metrics")))

    async def _object(self, path: str) -> JSONObject:
        """The JSON object at a path below the root, empty if there is none."""
        fetched = await fetch_json(self._client, below(self._root, path))
        found = fetched.value if fetched.status == 200 else None
        return found if isinstance(found, dict) else {}


def _entries(listed: object) -> list[JSONObject] | None:
    """The entries of a list of models, None if it is none."""
    if not isinstance(listed, dict) or "data" not in listed:
        return None
    entries = listed["data"]
    if entries is None:  # Ollama without a model
        return []
    if not isinstance(entries, list):
        return None
    known = [entry for entry in entries[:_MOST_MODELS] if isinstance(entry, dict)]
    return known if known or not entries else None


def _named(entries: object, name: str, *fields: str) -> JSONObject:
    """The entry of a list that has this name in one of its fields; with ``:latest`` or without."""
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict):
            for field_name in fields:
                if entry.get(field_name) in (name, f"{name}:latest"):
                    return entry
    return {}


def _context_of(entry: JSONObject) -> int | None:
    """Tokens that a model takes, as vLLM, SGLang and ours say, or as hosted services do."""
    return _count(entry.get("max_model_len")) or _count(entry.get("context_length"))


def _first_of(said: JSONObject) -> str | None:
    """Which priorities SGLang serves first, None if it goes by none."""
    if said.get("enable_priority_scheduling") is not True:
        return None
    return "lower" if said.get("schedule_low_priority_values_first") is True else "higher"


def _capacity_of_slots(listed: int | None, of_slot: int | None, slots: int | None) -> int | None:
    """The context memory of llama.cpp, None where that cannot be told.

    Its list of models has that of all slots together, or, in newer versions, that of one again.
    Then it shows only with one slot: several may have so much each, or share it.
    """
    if listed is not None and of_slot is not None and listed > of_slot:
        return listed
    return of_slot if slots == 1 else None


def _count(value: object) -> int | None:
    """A plausible count, None for anything else."""
    plain = isinstance(value, int) and not isinstance(value, bool)
    return value if plain and 0 < value < 2**31 else None  # type: ignore[operator,return-value]


def _version(value: object) -> str | None:
    known = isinstance(value, str) and value.isprintable()
    return value[:_MOST_VERSION_CHARS] if known and value else None  # type: ignore[index]


def _problem(error: Exception) -> str:
    text = plain(str(error))
    return text[:200] if text else type(error).__name__
