"""Probing a server: what it says of itself, what a few small calls of it show, and the profile."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx

from longthought.orchestrator.models.backends.addresses import is_loopback, public_url
from longthought.orchestrator.models.backends.calls import Caller
from longthought.orchestrator.models.backends.facts import ServerFacts
from longthought.orchestrator.models.backends.fetch import client_for
from longthought.orchestrator.models.backends.headers import variables_of
from longthought.orchestrator.models.backends.kinds import GENERIC, KINDS
from longthought.orchestrator.models.backends.profile import BackendSettings
from longthought.orchestrator.models.backends.server import ask_over, ask_server
from longthought.orchestrator.models.backends.trials import (
    MOST_CALLS,
    MOST_OUTPUT_TOKENS,
    QUESTION,
    Finding,
    Trials,
)
from longthought.types import JSONObject

__all__ = ["MOST_CALLS", "MOST_OUTPUT_TOKENS", "Finding", "Probe", "probe"]

_ASK_SECONDS = 10.0
_NO_CHAT = ("embed", "rerank", "whisper")
_TRIALS: Mapping[str, tuple[str, ...]] = {
    "answers": ("answers",),
    "streams": ("streams", "usage in streams"),
    "honours_max_tokens": ("honours max_tokens",),
    "tools": ("tools",),
    "structured_output": ("structured output",),
    "continues": ("continues",),
    "seeds": ("seeds",),
    "logprobs": ("logprobs",),
    "samples": ("n",),
    "responses": ("responses",),
    "priority": ("priority",),
}
"""Trial -> what it finds out. Those of a capability have its name."""
_OWN_TRIALS: Mapping[str, str] = {"priority": "vllm"}
"""Trials that make sense with servers of one kind: others take what they do not know, or say it."""
_MEASURED = ("honours_max_tokens", "tools", "structured_output", "continues", "seeds", "logprobs")
_STATED = ("tools", "continues", "seeds", "logprobs")
_PATIENCE = 2


@dataclass(frozen=True, slots=True)
class Probe:
    """What was found out about one model at one address.

    ``settings`` is what it was asked with, ``facts`` what the server said of itself, ``others`` the
    same of the other addresses of the backend. ``calls`` and tokens are what the trials took.
    """

    settings: BackendSettings
    model: str | None
    facts: ServerFacts
    findings: tuple[Finding, ...] = ()
    others: Mapping[str, ServerFacts] | None = None
    max_tokens_field: str = "max_tokens"
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def base_url(self) -> str:
        """The address, without its secrets."""
        return public_url(self.settings.urls[0])

    @property
    def kind(self) -> str:
        """The kind of the server: as it was given, else as the server says."""
        return self.settings.kind or self.facts.kind or GENERIC

    def found(self, name: str) -> bool | None:
        """Whether something is so, by the name of its finding; None if that is not known."""
        return next((one.found for one in self.findings if one.name == name), None)

    def profile(self) -> BackendSettings:
        """The settings, completed by what was found out where that is not assumed anyway."""
        usual = replace(self.settings, kind=self.kind, capabilities={})
        usual = replace(usual, stream=self.found("streams") is not False and self.settings.stream)
        assumed = {"honours_max_tokens": True, "tools": True, "structured_output": True}
        assumed |= {"continues": False, "seeds": True, "logprobs": True}
        assumed |= usual.wanted_capabilities()
        own = dict(self.settings.capabilities)
        for trial in _MEASURED:
            found = self.found(_TRIALS[trial][0])
            if found is not None and found != assumed[trial]:
                own[trial] = found
        for name, value in self.facts.capabilities.items():
            if value != assumed.get(name, False):
                own.setdefault(name, value)
        modern = self.max_tokens_field != "max_tokens"
        usual_field = usual.known_kind.max_tokens_field or "max_tokens"
        differs = self.max_tokens_field != usual_field and modern
        key = self.settings.api_key_env
        if self.found("answers") and not os.environ.get(key or ""):
            key = None  # it answered without
        return replace(
            usual,
            api_key_env=key,
            slots=self.settings.slots or self.facts.slots,
            context_window=self.settings.context_window or self.facts.context_window,
            context_capacity=self.settings.context_capacity or self.facts.context_capacity,
            priority=self._priority(),
            max_tokens_field=self.max_tokens_field if differs else self.settings.max_tokens_field,
            capabilities=own,
        )

    def _priority(self) -> bool | Literal["lower", "higher"] | None:
        """As it was set; else as the server says, or as was found."""
        own = self.settings.informed(self.facts).priority
        usual = KINDS[self.kind].first
        if own is None:
            return True if self.found("priority") else None
        return True if self.settings.priority is None and own == usual else own

    def to_json(self) -> JSONObject:
        """All that was found, without secrets."""
        return {
            "base_url": self.base_url,
            "model": self.model,
            "kind": self.kind,
            "version": self.facts.version,
            "models": list(self.facts.models),
            "context_window": self.facts.context_window,
            "slots": self.facts.slots,
            "context_capacity": self.facts.context_capacity,
            "load": self.facts.load.to_json(),
            "findings": [finding.to_json() for finding in self.findings],
            "others": {
                public_url(url): {**facts.to_json(), "problem": facts.problem}
                for url, facts in (self.others or {}).items()
            },
            "calls": self.calls,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
        }

    def to_toml(self, name: str) -> str:
        """The profile as it is written in a configuration file; never holds a key.

        Values of headers are written where they name a variable, and user and password of an
        address nowhere.
        """
        return "\n".join(_toml_lines(name, self.profile()))


async def probe(
    target: BackendSettings | str,
    model: str | None = None,
    *,
    question: str | None = None,
    timeout: float = 60.0,  # noqa: ASYNC109 - of each call
    tell: Callable[[str, int], None] = lambda trial, calls: None,
) -> Probe:
    """Find out what a server can: ask it, then make about a dozen small calls of one model.

    This sends up to :data:`MOST_CALLS` calls for up to :data:`MOST_OUTPUT_TOKENS` output tokens,
    one after the other, which costs what they cost. ``model`` is its name at the server, the first
    that it lists unless given; ``question`` one that it takes. ``timeout`` is seconds for each
    call. ``tell`` is called before each trial with its name and the calls made so far.

    Nothing that the server answers is raised: all of it is in the findings.

    Raises:
        ConfigurationError: there is no address, or a variable in the headers is not set.
    """
    settings = BackendSettings(base_url=target) if isinstance(target, str) else target
    if not settings.urls or settings.api_key_env is None:
        settings = settings.addressed(named=True)
    url, headers = settings.urls[0], settings.request_headers()
    wait = min(_ASK_SECONDS, timeout)
    others = {
        other: await ask_server(other, model=model, headers=headers, timeout=wait)
        for other in settings.urls[1:]
    }
    async with client_for(url, httpx.Timeout(timeout), headers) as client:
        facts = await ask_over(client, url, model, wait)
        if model is None and facts.models:
            chatting = [one for one in facts.models if not _is_other(one)]
            model = next(iter([*chatting, *facts.models]))
            facts = await ask_over(client, url, model, wait)
        probed = Probe(settings, model, facts, others=others)
        unheard = facts.problem is not None and facts.status is None and not facts.models
        if model is None or unheard:
            return probed
        caller = Caller(
            client,
            url,
            model,
            seconds=timeout,
            secrets=_secrets(url, headers),
            extra=settings.extra_body,
        )
        known = settings.max_tokens_field or settings.known_kind.max_tokens_field
        caller.max_tokens_field = known or caller.max_tokens_field
        trials = Trials(caller, question or _question_for(model, facts) or QUESTION)
        findings = await _tried(trials, caller, facts, probed.kind, tell)
    return replace(
        probed,
        findings=tuple(replace(one, seen=caller.hidden(one.seen)) for one in findings),
        max_tokens_field=caller.max_tokens_field,
        calls=caller.calls,
        prompt_tokens=caller.prompt_tokens,
        completion_tokens=caller.completion_tokens,
    )


async def _tried(
    trials: Trials,
    caller: Caller,
    facts: ServerFacts,
    kind: str,
    tell: Callable[[str, int], None],
) -> list[Finding]:
    """All findings; a server that answers nothing, or no more, is not troubled further."""
    findings: list[Finding] = []
    over = ""
    for trial, names in _TRIALS.items():
        if _OWN_TRIALS.get(trial, kind) != kind:
            continue
        if trial in _STATED and trial in facts.capabilities:
            findings.append(Finding(names[0], facts.capabilities[trial], "says so itself"))
            continue
        if over:
            findings += [Finding(name, None, over) for name in names]
            continue
        tell(names[0], caller.calls)
        found = await getattr(trials, trial)()
        findings += found
        if trial == "answers" and not found[0].found:
            over = "not tried: there was no answer"
        late = [heard.timed_out for heard in caller.seen[-_PATIENCE:]]
        if len(late) == _PATIENCE and all(late):
            over = "not tried: it had stopped answering"
    return findings + trials.by_the_way()


def _secrets(url: str, headers: Mapping[str, str]) -> list[str]:
    """What must not be shown, longest first: a header in one piece and word by word."""
    parts = [part for value in headers.values() for part in (value, *value.split())]
    return sorted([*parts, urlsplit(url).password or ""], key=len, reverse=True)


def _is_other(model: str) -> bool:
    return any(part in model.lower() for part in _NO_CHAT)


def _question_for(model: str, facts: ServerFacts) -> str | None:
    """A question that an embedded model, served, takes; others take any."""
    if facts.serves != "embedded":
        return None
    from longthought.orchestrator.curves import task_questions
    from longthought.orchestrator.models.embedded import MODELS

    if model not in MODELS:
        return None
    return task_questions(MODELS[model][0].task.name, 1, 0).questions[0].text


# -- TOML ---------------------------------------------------------------------------------------


_PLAIN_FIELDS = (
    "api",
    "slots",
    "context_window",
    "context_capacity",
    "stream",
    "max_tokens_field",
    "placement",
    "priority",
    "prompt_cache_key",
    "service_tier",
    "background",
)


def _toml_lines(name: str, settings: BackendSettings) -> Iterator[str]:
    yield f"[backends.{name if name.isidentifier() else _text(name)}]"
    yield f"kind = {_text(settings.kind or GENERIC)}"
    urls = [public_url(url) for url in settings.urls]
    if len(urls) == 1:
        yield f"base_url = {_text(urls[0])}"
    else:
        yield f"base_urls = [{', '.join(_text(url) for url in urls)}]"
    if settings.api_key_env:
        yield f"api_key_env = {_text(settings.api_key_env)}"
    usual = BackendSettings()
    for field in _PLAIN_FIELDS:
        value = getattr(settings, field)
        if value is not None and value != getattr(usual, field):
            yield f"{field} = {_value(value)}"
    if settings.capabilities:
        yield f"capabilities = {_table(settings.capabilities)}"
    if settings.price is not None:
        yield f"price = {_table(settings.price)}"
    elif all(is_loopback(url) for url in settings.urls):
        yield "price = { input = 0, output = 0 }  # runs here: nothing is paid by the token"
    named = {key: value for key, value in settings.headers.items() if "$" in value}
    if named:
        yield f"headers = {_table(named)}"
    if len(named) < len(settings.headers):
        rest = ", ".join(key for key in settings.headers if key not in named)
        yield f"# and the headers {rest}, whose values are not shown"
    if variables_of(settings.cache_salt or ""):
        yield f"cache_salt = {_text(settings.cache_salt or '')}"
    elif settings.cache_salt:
        yield "# and cache_salt, which is not shown"
    if settings.extra_body:
        yield "# and extra_body, as it was"


def _table(values: Mapping[str, Any]) -> str:
    pairs = (
        f"{key if key.isidentifier() else _text(key)} = {_value(value)}"
        for key, value in values.items()
    )
    return "{ " + ", ".join(pairs) + " }"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return _text(value) if isinstance(value, str) else str(value)


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)
