"""Parameters that say how a request is served: what each kind of server received, and no trace."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.protocol_server import ProtocolServer
from longthought import Store, Workflow, strategies
from longthought.errors import BackendError, ConfigurationError
from longthought.orchestrator.models import BackendSettings, OpenAIModel, resolve_model
from longthought.orchestrator.models.backends import parameters
from longthought.orchestrator.models.backends.kinds import KINDS
from longthought.orchestrator.models.backends.parameters import PARAMETERS, RequestParameters
from longthought.orchestrator.models.scheduling import (
    LEAST_URGENT,
    scheduling_now,
    tell_scheduling,
    urgency,
)
from longthought.storage import canonical
from longthought.types import Model, Scheduling
from tests.executor.workflows import add
from tests.models.strangers import stranger

REQUEST: Any = {"model": "m", "messages": [{"role": "user", "content": "?"}]}
SALT = "salt-of-tenant-17"
NEW, RESUMED = 9, 5
"""The levels of a new and of a resumed branch that have just begun."""


@pytest.fixture(autouse=True)
def _no_time_passes(monkeypatch):
    monkeypatch.setattr(parameters, "time", SimpleNamespace(time=lambda: 0.0))


@pytest.fixture
async def store(tmp_path) -> AsyncIterator[Store]:
    async with Store(f"sqlite:///{tmp_path}/runs.db", directory=tmp_path) as opened:
        yield opened


def workflow_of(model: Model, store: Store, samples: int = 1) -> Workflow:
    return Workflow(
        "served", model=model, tools=[add], strategy=strategies.sample(samples), store=store
    )


async def solved(model: Model, store: Store, samples: int = 1) -> Any:
    workflow = workflow_of(model, store, samples)
    try:
        return await workflow.run("How many?")
    finally:
        await workflow.aclose()


def modelled(server: ProtocolServer, modes: str = "t1", **fields: Any) -> Model:
    settings = BackendSettings(base_url=server.address(modes), **fields)
    server.received.clear()
    return resolve_model("mine/toy", backends={"mine": settings})


def sent(server: ProtocolServer) -> list[dict[str, Any]]:
    """The parameters in each body that was received."""
    return [
        {name: body[name] for name in PARAMETERS if name in body} for body in list(server.received)
    ]


# -- what a server receives ---------------------------------------------------------------------


@pytest.mark.parametrize("api", ["chat", "responses"])
@pytest.mark.parametrize(("kind", "turned"), [("vllm", False), ("sglang", True)])
async def test_servers_of_ones_own_are_sent_priority_and_salt(
    server, store, monkeypatch, kind, turned, api
):
    monkeypatch.setenv("TENANT_SALT", SALT)
    model = modelled(server, kind=kind, api=api, priority=True, cache_salt="$TENANT_SALT")
    run = await solved(model, store)
    assert run.status == "completed"
    expected = [LEAST_URGENT - level if turned else level for level in (NEW, RESUMED)]
    assert sent(server) == [{"priority": one, "cache_salt": SALT} for one in expected]


@pytest.mark.parametrize("api", ["chat", "responses"])
async def test_openai_is_sent_one_cache_key_for_each_run_and_the_tier(server, store, api):
    fields = {"prompt_cache_key": True, "service_tier": "flex"}
    model = modelled(server, kind="openai", api=api, **fields)
    first = await solved(model, store, 3)
    assert sent(server) == [{"prompt_cache_key": first.id, "service_tier": "flex"}] * 6
    second = await solved(modelled(server, kind="openai", api=api, **fields), store)
    assert {one["prompt_cache_key"] for one in sent(server)} == {second.id}


async def test_a_cache_key_of_ones_own_is_sent_as_it_is(server, store):
    await solved(modelled(server, kind="openai", prompt_cache_key="team-a"), store)
    assert sent(server) == [{"prompt_cache_key": "team-a"}] * 2


@pytest.mark.parametrize("kind", sorted(KINDS))
async def test_without_a_setting_nothing_is_sent(server, store, kind):
    model = modelled(server, kind=kind)
    assert not model.takes_scheduling
    await solved(model, store)
    assert sent(server) == [{}, {}]


@pytest.mark.parametrize(("first", "level"), [("lower", NEW), ("higher", 0)])
async def test_of_any_server_it_can_be_said_which_go_first(server, store, first, level):
    await solved(modelled(server, "t0", kind="generic", priority=first), store)
    assert sent(server) == [{"priority": level}]


async def test_what_the_user_put_into_a_request_stays(server, granted):
    model = modelled(
        server, "t0", kind="vllm", priority=True, cache_salt="ours", extra_body={"priority": 77}
    )
    tell_scheduling(Scheduling("run", "branch"))
    request = {**REQUEST, "provider": {"cache_salt": "theirs"}}
    await model.generate(request, granted(99))
    await model.aclose()
    assert sent(server) == [{"priority": 77, "cache_salt": "theirs"}]


async def test_a_call_of_which_nothing_is_known_has_no_priority(server, granted):
    model = modelled(server, "t0", kind="vllm", priority=True)
    assert scheduling_now() is None
    await model.generate(REQUEST, granted(99))
    await model.aclose()
    assert sent(server) == [{}]


async def test_samples_that_share_a_call_share_its_parameters(store):
    fields = {"priority": True, "cache_salt": SALT, "samples_per_call": 4, "stream": False}
    with stranger() as server:
        server.cannot = {"tools"}

        def reply(body: dict[str, Any], before: Any = server.reply) -> Any:
            status, whole = before(body)
            choices = [{**one, "index": at} for at, one in enumerate(whole["choices"])]
            return status, {**whole, "choices": choices}

        server.reply = reply
        settings = BackendSettings(kind="vllm", base_url=server.url, **fields)
        run = await solved(resolve_model("mine/m", backends={"mine": settings}), store, 4)
    assert run.support["samples"] == 4
    bodies = [body for _, _, body in server.asked]
    assert sum(body.get("n", 1) for body in bodies) == 4 > len(bodies)
    assert {(body["priority"], body["cache_salt"]) for body in bodies} == {(NEW, SALT)}


# -- no trace of it -----------------------------------------------------------------------------


async def test_a_trace_is_the_same_with_and_without(server, store):
    plain = await solved(modelled(server, kind="vllm"), store)
    model = modelled(server, kind="vllm", priority=True, cache_salt=SALT)
    run = await solved(model, store)
    recordings = [await store.read(one.id) for one in (plain, run)]
    keys = [[(event.type, event.key) for event in recording.events] for recording in recordings]
    assert keys[0] == keys[1]
    requests = [
        [
            canonical(recording.get(event.body["request"])).replace(run_id, "")
            for event in recording.events
            if event.type == "effect_started"
        ]
        for recording, run_id in zip(recordings, (plain.id, run.id), strict=True)
    ]
    assert len(requests[0]) == len(requests[1])
    assert not [one for one in requests[1] if "priority" in one or SALT in one]
    for recording in recordings:
        whole = [canonical(event.body) for event in recording.events]
        assert SALT not in "".join(whole) + canonical(recording.manifest())
    without = workflow_of(modelled(server, kind="vllm"), store)
    assert (await without.replay(run.id)).model_calls == 0
    await without.aclose()
    assert list(server.received) == []


async def test_the_salt_is_never_shown(granted):
    settings = BackendSettings(kind="vllm", base_url="http://h/v1", cache_salt=SALT)
    assert SALT not in repr(settings) + repr(settings.parameters("http://h/v1"))
    with stranger() as server:
        server.reply = lambda body: (
            400,
            {"error": {"message": f"bad cache_salt {body['cache_salt']}"}},
        )
        model = OpenAIModel("m", base_url=server.url, parameters=RequestParameters(cache_salt=SALT))
        with pytest.raises(BackendError, match=r"bad cache_salt \*\*\*") as caught:
            await model.generate(REQUEST, granted(9))
        await model.aclose()
    assert SALT not in f"{caught.value}{model!r}{model.fingerprint()}"


async def test_a_variable_that_is_missing_is_named_before_the_first_call(granted):
    sending = RequestParameters(cache_salt="$NO_SUCH_SALT")
    model = OpenAIModel("m", base_url="http://127.0.0.1:9/v1", parameters=sending)
    with pytest.raises(ConfigurationError, match="cache_salt: NO_SUCH_SALT is not set"):
        model.check()
    with pytest.raises(ConfigurationError, match="cache_salt: NO_SUCH_SALT is not set"):
        await model.generate(REQUEST, granted(9))


def test_the_variable_of_a_salt_is_one_of_the_profile():
    settings = BackendSettings(kind="vllm", cache_salt="$TENANT_SALT", api_key_env="K")
    assert settings.variables == ("K", "TENANT_SALT")


# -- what a server refuses ----------------------------------------------------------------------

VLLM_SAYS = "Got priority 9 but Priority scheduling is not enabled."
REFUSALS = [
    (RequestParameters(priority="lower"), VLLM_SAYS, None, "--scheduling-policy priority"),
    (RequestParameters(prompt_cache_key=True), "Unknown parameter", "prompt_cache_key", "another"),
    (RequestParameters(service_tier="fats"), "Invalid service tier", None, "another service_tier"),
    (RequestParameters(cache_salt=SALT), "cache_salt must be text", None, "another cache_salt"),
]


@pytest.mark.parametrize(("sending", "said", "param", "fix"), REFUSALS)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_refusal_names_the_setting(granted, sending, said, param, fix, stream):
    with stranger() as server:
        server.reply = lambda body: (400, {"error": {"message": said, "param": param}})
        model = OpenAIModel("m", base_url=server.url, parameters=sending, stream=stream)
        tell_scheduling(Scheduling("run", "branch"))
        with pytest.raises(BackendError) as caught:
            await model.generate(REQUEST, granted(9))
        await model.aclose()
    assert (caught.value.status, caught.value.retryable) == (400, False)
    assert said in str(caught.value)
    assert fix in str(caught.value)
    assert server.calls == 1


async def test_a_refusal_in_a_stream_names_it_too(granted):
    with stranger() as server:
        server.raw = f'data: {{"error": {{"message": "{VLLM_SAYS}", "code": 400}}}}\n\n'.encode()
        sending = RequestParameters(priority="lower")
        model = OpenAIModel("m", base_url=server.url, parameters=sending)
        with pytest.raises(BackendError, match="--scheduling-policy priority") as caught:
            await model.generate(REQUEST, granted(9))
        await model.aclose()
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("sending", "said"),
    [
        (None, VLLM_SAYS),
        (RequestParameters(cache_salt="x"), VLLM_SAYS),
        (RequestParameters(priority="lower"), "no such field as temperature"),
    ],
)
async def test_what_was_not_sent_is_no_reason(granted, sending, said):
    with stranger() as server:
        server.reply = lambda body: (400, {"error": {"message": said}})
        model = OpenAIModel("m", base_url=server.url, parameters=sending)
        with pytest.raises(BackendError) as caught:
            await model.generate(REQUEST, granted(9))
        await model.aclose()
    assert str(caught.value) == f"m: {said} (status 400)"


async def test_a_run_against_such_a_server_ends_with_that_advice(store):
    with stranger() as server:
        server.reply = lambda body: (400, {"error": {"message": VLLM_SAYS}})
        settings = BackendSettings(kind="vllm", base_url=server.url, priority=True)
        run = await solved(resolve_model("mine/m", backends={"mine": settings}), store)
    recording = await store.read(run.id)
    ends = [event.body for event in recording.events if event.type == "branch_ended"]
    assert "--scheduling-policy priority" in ends[0]["reason"]
    assert server.calls == 1


# -- what a profile may say ---------------------------------------------------------------------

URL = "http://h/v1"


@pytest.mark.parametrize(
    ("written", "field", "said"),
    [
        ({"kind": "vllm", "priority": 3}, "priority", "Write true, or which go first"),
        ({"kind": "vllm", "priority": "first"}, "priority", "lower or higher"),
        ({"kind": "openai", "priority": True}, "priority", "kind openai take. Leave it out; vllm"),
        ({"kind": "openai", "priority": "lower"}, "priority", "kind openai take"),
        ({"kind": "ollama", "cache_salt": "x"}, "cache_salt", "vllm and sglang do"),
        ({"kind": "vllm", "cache_salt": ""}, "cache_salt", "no text that can be sent"),
        ({"kind": "vllm", "cache_salt": 7}, "cache_salt", "no text that can be sent"),
        ({"kind": "vllm", "cache_salt": "a\nb"}, "cache_salt", "no text that can be sent"),
        ({"kind": "vllm", "prompt_cache_key": True}, "prompt_cache_key", "openai do"),
        ({"kind": "openai", "prompt_cache_key": 3}, "prompt_cache_key", "no text"),
        ({"kind": "vllm", "service_tier": "flex"}, "service_tier", "kind vllm take"),
        ({"kind": "openai", "service_tier": "priority"}, "service_tier", "Write its price, too"),
        ({"kind": "openai", "service_tier": ""}, "service_tier", "no text"),
        ({"context_capacity": 0}, "context_capacity", "Use 1 or more"),
        ({"placement": "order"}, "placement", "Use prefix or load"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(written, field, said):
    with pytest.raises(ConfigurationError, match=said) as caught:
        BackendSettings(**written)
    assert caught.value.field == field


@pytest.mark.parametrize("field", ["priority", "cache_salt", "prompt_cache_key", "service_tier"])
def test_a_server_of_no_known_kind_is_sent_nothing_that_it_may_ignore(field):
    settings = BackendSettings(base_url=URL, **{field: True if field == "priority" else "flex"})
    with pytest.raises(ConfigurationError, match="Name its kind") as caught:
        resolve_model("mine/x", backends={"mine": settings})
    assert caught.value.field == field


def test_openai_itself_needs_no_kind():
    settings = BackendSettings(prompt_cache_key=True)
    model = resolve_model("openai/gpt-5-mini", settings)
    assert model.takes_scheduling


def test_a_dear_tier_may_be_used_with_its_price():
    price = {"input": 1, "output": 2}
    settings = BackendSettings(kind="openai", service_tier="priority", price=price)
    assert settings.parameters("http://h/v1") == RequestParameters(service_tier="priority")


def test_false_is_not_sent():
    settings = BackendSettings(kind="vllm", priority=False)
    assert settings.parameters(URL) is None
    off = BackendSettings(kind="openai", prompt_cache_key=False)
    assert off.parameters(URL) is None


# -- the levels ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("resumed", "age", "level"),
    [
        (False, 0, 9),
        (False, 10, 8),
        (False, 60, 7),
        (False, 300, 6),
        (False, 1799, 6),
        (False, 1800, 0),
        (True, 0, 5),
        (True, 10, 4),
        (True, 60, 3),
        (True, 300, 2),
        (True, 1800, 1),
        (True, -5, 5),  # a clock that was set back
    ],
)
def test_levels(resumed, age, level):
    assert urgency(Scheduling("r", "b", resumed, since=1000.0), 1000.0 + age) == level


AGES = st.floats(0, 1799)


@given(AGES, AGES, st.booleans())
def test_resumed_go_before_new_and_old_before_young(age, other, resumed):
    def level(resumed: bool, age: float) -> int:
        return urgency(Scheduling("r", "b", resumed, since=-age), 0.0)

    assert level(True, age) < level(False, other)
    if age > other:
        assert level(resumed, age) <= level(resumed, other)
    assert 0 <= level(resumed, age) <= LEAST_URGENT
