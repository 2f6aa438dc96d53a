"""How much context a server keeps in memory, as it says itself over HTTP, and who is asked."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longthought.orchestrator.cli.local import asked_server
from longthought.orchestrator.cli.settings import Settings
from longthought.orchestrator.models import (
    BackendSettings,
    Failover,
    OpenAIModel,
    ScriptedModel,
    ServerFacts,
    ask_server,
    probe,
    resolve_model,
)
from longthought.orchestrator.models.backends import server as asking
from longthought.orchestrator.models.backends.facts import ServerLoad
from longthought.orchestrator.models.backends.metrics import Metrics
from tests.models.strangers import stranger

PATIENT = 30.0  # seconds; a busy machine is no failure

VLLM = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="qwen3"} 3.0
vllm:num_requests_waiting{engine="0",model_name="qwen3"} 12.0
vllm:kv_cache_usage_perc{engine="0",model_name="qwen3"} 0.25
vllm:prefix_cache_queries_total{engine="0",model_name="qwen3"} 2000.0
vllm:prefix_cache_hits_total{engine="0",model_name="qwen3"} 1.5e+03
vllm:prefix_cache_queries_created{engine="0",model_name="qwen3"} 1.79e+09
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="128",cache_dtype="auto",enable_prefix_caching="True",\
engine="0",num_gpu_blocks="320",num_gpu_blocks_override="320"} 1.0
"""
BUSY = ServerLoad(memory_used=0.25, running=3, waiting=12, prefix_hits=0.75)
SGLANG = """\
sglang:num_running_reqs{model_name="qwen3"} 2.0
sglang:num_queue_reqs{model_name="qwen3"} 0.0
sglang:token_usage{model_name="qwen3"} 0.5
sglang:cache_hit_rate{model_name="qwen3"} 0.9
sglang:max_total_num_tokens{model_name="qwen3"} 20480.0
"""
INFO = {"version": "0.5.23", "max_running_requests": 24, "api_key": "sk-its-own-key"}


def config(**labels: str) -> str:
    written = ",".join(f'{name}="{value}"' for name, value in labels.items())
    return f"vllm:cache_config_info{{{written}}} 1.0\n"


def page(text: str) -> dict[str, Any]:
    return {"/metrics": text.encode()}


async def asked(kind: str, **pages: Any) -> ServerFacts:
    with stranger(kind, **pages) as server:
        return await ask_server(server.url, model="qwen3", timeout=PATIENT)


# -- what servers say ---------------------------------------------------------------------------


async def test_vllm_says_it_in_its_metrics():
    facts = await asked("vllm", **page(VLLM))
    assert (facts.kind, facts.version, facts.context_capacity) == ("vllm", "0.32.0", 40_960)
    assert facts.load == BUSY


async def test_sglang_says_it_of_itself_and_which_priorities_go_first():
    pages = {"/get_server_info": {**INFO, "max_total_num_tokens": 9000}}
    facts = await asked("sglang", **pages, **page(SGLANG))
    assert (facts.context_capacity, facts.slots, facts.priority) == (9000, 24, None)
    assert facts.load == ServerLoad(0.5, 2, 0, 0.9)
    for low, first in ((False, "higher"), (True, "lower")):
        info = {"enable_priority_scheduling": True, "schedule_low_priority_values_first": low}
        facts = await asked("sglang", **{"/server_info": {**INFO, **info}})
        assert (facts.priority, facts.context_capacity, facts.load) == (first, None, ServerLoad())
        assert "sk-its-own-key" not in repr(facts)


async def test_sglang_says_it_in_its_metrics_too():
    facts = await asked("sglang", **page(SGLANG))
    assert facts.context_capacity == 20_480
    without = {"/server_info": {**INFO, "max_total_num_tokens": 9, "disable_radix_cache": True}}
    assert (await asked("sglang", **without, **page(SGLANG))).context_capacity is None


@pytest.mark.parametrize(
    ("listed", "of_slot", "slots", "capacity"),
    [
        (4096, 2048, 2, 4096),
        (2048, 2048, 1, 2048),
        (2048, 2048, 4, None),  # four times that, or all share it
        (None, 2048, 1, 2048),
        (None, 2048, 2, None),
        (4096, None, 2, None),
    ],
)
async def test_llama_cpp_says_it_by_its_slots(listed, of_slot, slots, capacity):
    models = {"data": [{"id": "qwen3", "owned_by": "llamacpp", "meta": {"n_ctx": listed}}]}
    props = {"default_generation_settings": {"n_ctx": of_slot}, "total_slots": slots}
    facts = await asked("llama.cpp", **{"/v1/models": models, "/props": props})
    assert (facts.context_capacity, facts.slots) == (capacity, slots)


@pytest.mark.parametrize("kind", ["ollama", "lmstudio", "generic"])
async def test_others_are_not_asked_for_it(kind):
    with stranger(kind, **page(VLLM)) as server:
        facts = await ask_server(server.url, model="qwen3", timeout=PATIENT)
    assert facts.context_capacity is None
    assert "/metrics" not in [path for _, path, _ in server.asked]


@pytest.mark.parametrize(
    ("text", "capacity"),
    [
        ("", None),
        (config(block_size="16", num_gpu_blocks="100"), 1600),
        (config(block_size="8", num_gpu_blocks="320", kv_cache_size_tokens="463459"), 463459),
        (config(block_size="16", num_gpu_blocks="None"), None),
        (config(block_size="16"), None),
        (config(block_size="-16", num_gpu_blocks="3"), None),
        (config(block_size="16", num_gpu_blocks="9" * 40), None),
        (config(block_size="16", num_gpu_blocks="100", enable_prefix_caching="False"), None),
        (config(a='x\\"}', block_size="16", num_gpu_blocks="100"), 1600),
        # data parallel: each engine has its own memory
        (
            config(engine="0", block_size="16", num_gpu_blocks="100")
            + config(engine="1", block_size="16", num_gpu_blocks="50"),
            2400,
        ),
        (config(engine="0", block_size="16", num_gpu_blocks="100") + config(engine="1"), None),
    ],
)
def test_the_memory_of_vllm_is_that_of_its_engines(text, capacity):
    assert Metrics(text).of_vllm()[0] == capacity


def test_names_of_older_versions_are_known():
    older = VLLM.replace("kv_cache_usage", "gpu_cache_usage")
    older = older.replace("vllm:prefix_cache", "vllm:gpu_prefix_cache")
    assert Metrics(older).of_vllm() == (40_960, BUSY)


LINES = st.lists(
    st.one_of(
        st.text(max_size=60),
        st.sampled_from(VLLM.splitlines() + SGLANG.splitlines()),
        st.sampled_from(
            [
                "vllm:num_requests_running NaN",
                "vllm:num_requests_running -1",
                "vllm:num_requests_waiting 1e300",
                "vllm:kv_cache_usage_perc 7",
                'vllm:cache_config_info{block_size="',
                "vllm:prefix_cache_hits_total Inf",
            ]
        ),
    ),
    max_size=30,
)


@given(LINES)
def test_whatever_a_page_holds_is_read_or_passed_over(lines):
    metrics = Metrics("\n".join(lines))
    for capacity, load in (metrics.of_vllm(), metrics.of_sglang()):
        assert capacity is None or capacity > 0
        for share in (load.memory_used, load.prefix_hits):
            assert share is None or 0 <= share <= 1
        for number in (load.running, load.waiting):
            assert number is None or number >= 0


@pytest.mark.parametrize("text", ["<html>", "{}", "x" * (2**20 + 1)])
async def test_a_page_that_is_none_costs_nothing_else(text):
    facts = await asked("vllm", **page(text))
    assert (facts.kind, facts.version, facts.problem) == ("vllm", "0.32.0", None)
    assert (facts.context_capacity, facts.load) == (None, ServerLoad())


# -- what becomes of it -------------------------------------------------------------------------


async def test_what_was_found_becomes_the_models_unless_it_is_written():
    facts = await asked("vllm", **page(VLLM))
    for settings, capacity in (
        (BackendSettings(base_url="http://h/v1"), 40_960),
        (BackendSettings(base_url="http://h/v1", context_capacity=7), 7),
    ):
        model = resolve_model("mine/qwen3", backends={"mine": settings.informed(facts)})
        assert model.context_capacity == capacity
    plain = resolve_model("mine/qwen3", backends={"mine": BackendSettings(base_url="http://h/v1")})
    assert plain.context_capacity is None


def test_several_endpoints_have_the_memory_of_all():
    settings = BackendSettings(
        kind="vllm", base_urls=["http://a/v1", "http://b/v1"], context_capacity=1000
    )
    assert resolve_model("mine/x", backends={"mine": settings}).context_capacity == 2000
    known = OpenAIModel("m", base_url="http://a/v1", context_capacity=5)
    assert Failover([known, OpenAIModel("m", base_url="http://b/v1")]).context_capacity is None
    assert Failover([ScriptedModel(["x"])]).context_capacity is None


@pytest.mark.parametrize(
    ("said", "written", "sent"),
    [
        ("higher", None, "higher"),
        ("lower", None, "lower"),
        ("higher", False, None),
        ("lower", "higher", "higher"),
        ("sideways", None, None),
        (None, None, None),
    ],
)
def test_priorities_are_as_the_server_says_unless_it_is_written(said, written, sent):
    facts = ServerFacts(kind="sglang", priority=said)
    settings = BackendSettings(base_url="http://h/v1", priority=written).informed(facts)
    found = settings.parameters("http://h/v1")
    assert (found.priority if found else None) == sent


def test_what_is_recorded_of_a_server_is_what_a_model_is_built_by():
    facts = ServerFacts(kind="vllm", context_capacity=9, priority="lower", load=BUSY)
    recorded = facts.to_json()
    assert recorded == {"kind": "vllm", "context_capacity": 9, "priority": "lower"}
    again = ServerFacts.from_json({**recorded, "load": {"running": 3}})
    assert again == ServerFacts(kind="vllm", context_capacity=9, priority="lower")


def test_only_a_server_of_this_machine_is_asked_by_itself(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(asking, "ASK_SECONDS", PATIENT)
    monkeypatch.setenv("LONGTHOUGHT_CONFIG", str(tmp_path / "longthought.toml"))
    with stranger("vllm", **page(VLLM)) as server:
        (tmp_path / "longthought.toml").write_text(
            f'[backends.local]\nkind = "vllm"\nbase_url = "{server.url}"\n'
            '[backends.far]\nkind = "vllm"\nbase_url = "http://192.0.2.1:8000/v1"\n'
        )
        here = asked_server("local/qwen3", None, Settings())
        assert here["context_capacity"] == 40_960
        assert asked_server("far/qwen3", None, Settings()) == {}
        assert server.calls == 0


# -- probing ------------------------------------------------------------------------------------


def serves_by_priority(server: Any, able: bool) -> None:
    def reply(body: dict[str, Any], before: Any = server.reply) -> Any:
        if body.get("priority") and not able:
            said = f"Got priority {body['priority']} but Priority scheduling is not enabled."
            return 400, {"error": {"message": said}}
        return before(body)

    server.reply = reply


@pytest.mark.parametrize("able", [True, False])
async def test_a_probe_of_vllm_finds_out_whether_it_serves_by_priority(able):
    with stranger("vllm", **page(VLLM)) as server:
        serves_by_priority(server, able)
        found = await probe(server.url)
    assert found.found("priority") is able
    assert ("priority = true" in found.to_toml("mine")) is able
    assert found.profile().priority is (True if able else None)
    assert "context_capacity = 40960\n" in found.to_toml("mine")
    told = found.to_json()
    assert (told["context_capacity"], told["load"]) == (40_960, BUSY.to_json())


async def test_a_probe_of_sglang_is_told():
    info = {**INFO, "enable_priority_scheduling": True, "max_total_num_tokens": 77}
    with stranger("sglang", **{"/server_info": info}) as server:
        found = await probe(server.url)
    assert found.found("priority") is None
    assert not [body for _, _, body in server.asked if "priority" in body]
    assert "priority = true\n" in found.to_toml("mine")
    turned = {**info, "schedule_low_priority_values_first": True}
    with stranger("sglang", **{"/server_info": turned}) as server:
        found = await probe(server.url)
    assert 'priority = "lower"\n' in found.to_toml("mine")


async def test_a_salt_is_written_only_by_its_variable():
    with stranger("vllm") as server:
        for salt, line in (("$SALT", 'cache_salt = "$SALT"'), ("hush-hush", "# and cache_salt")):
            settings = BackendSettings(base_url=server.url, kind="vllm", cache_salt=salt)
            written = (await probe(settings)).to_toml("mine")
            assert line in written
            assert "hush" not in written
