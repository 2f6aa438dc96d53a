"""Names of models, and what importing the package costs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import longthought.orchestrator.models as models
from longthought import Budget, PriceBook, Workflow
from longthought.errors import InvalidInput
from longthought.orchestrator.models import (
    BackendSettings,
    Failover,
    OpenAIModel,
    RecordedModel,
    ScriptedModel,
    resolve_model,
)
from longthought.orchestrator.models.registry import priced


def test_names_stand_for_models(tmp_path, monkeypatch):
    model = ScriptedModel(["a"])
    assert resolve_model(model) is model
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"problem": "q", "samples": [{"text": "a"}]}))
    settings = BackendSettings(slots=3, order="seeded", seed=4)
    recorded = resolve_model(f"recorded:{file}", settings)
    assert isinstance(recorded, RecordedModel)
    assert (recorded.slots, recorded.fingerprint()["seed"]) == (3, 4)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    remote = resolve_model("openai/org/name")
    assert isinstance(remote, OpenAIModel)
    assert remote.name == "org/name"
    assert remote.base_url == "http://127.0.0.1:9/v1"
    own = BackendSettings(base_url="http://other:1/v1", stream=False, slots=5)
    remote = resolve_model("openai/x", own)
    assert (remote.fingerprint()["endpoint"], remote.slots) == ("http://other:1/v1", 5)
    assert not remote.capabilities.streams
    small = resolve_model("embedded/puzzle-small", BackendSettings(slots=2))
    assert (small.name, small.slots) == ("embedded/puzzle-small", 2)
    assert resolve_model("embedded").name == "embedded"


@pytest.mark.parametrize("spec", ["", "gpt-5", "openai/", "other/x", "recorded", "embeddedx"])
def test_an_unknown_name_is_told_what_there_is(spec):
    with pytest.raises(InvalidInput, match=r"embedded, embedded/NAME, openai/NAME"):
        resolve_model(spec)


def test_the_face_has_its_names_and_loads_nothing_heavy():
    assert models.__all__ == sorted(models.__all__)
    for name in models.__all__:
        assert getattr(models, name).__module__.startswith("longthought.orchestrator.models.")
        assert name in dir(models)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = models.nothing
    code = (
        "import sys; from longthought.orchestrator.models import ScriptedModel, resolve_model; "
        "print(sorted({'openai', 'httpx2', 'numpy', 'pydantic'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_a_name_goes_through_its_backend():
    backends = {
        "local": BackendSettings(kind="vllm", base_url="http://a:1/v1", slots=3),
        "local/small": BackendSettings(base_url="http://b:1/v1"),
        "openai": BackendSettings(slots=9),
    }
    model = resolve_model("local/org/qwen3", backends=backends)
    assert isinstance(model, OpenAIModel)
    assert (model.name, model.slots) == ("local/org/qwen3", 3)
    assert model.fingerprint() == {
        "kind": "openai",
        "name": "local/org/qwen3",
        "endpoint": "http://a:1/v1",
        "served_as": "org/qwen3",
        "capabilities": ["continues"],
    }
    assert resolve_model("local/small", backends=backends).fingerprint()["endpoint"] == (
        "http://b:1/v1"
    )
    general = BackendSettings(slots=5)
    assert resolve_model("openai/x", general, backends).slots == 9
    assert resolve_model("embedded", general, backends).slots == 5
    for spec in ("locl/x", "local", "local/", "other/x"):
        with pytest.raises(InvalidInput, match=r"configured: local/NAME"):
            resolve_model(spec, general, backends)
    with pytest.raises(InvalidInput, match=r"Did you mean local/\.\.\.\?"):
        resolve_model("locl/x", backends=backends)
    with pytest.raises(InvalidInput, match="is no name"):
        resolve_model("a b/x", backends={"a b": backends["local"]})


async def test_the_endpoint_is_asked_for_the_models_own_name(server, granted):
    backends = {"local": BackendSettings(base_url=server.address())}
    model = resolve_model("local/toy", backends=backends)
    request = {"model": model.name, "messages": [{"role": "user", "content": "Say it."}]}
    reply = await model.generate(request, granted(50))
    assert reply["model"] == "toy-2026"
    await model.aclose()


def test_several_addresses_are_several_endpoints_of_one_model():
    urls = ["http://a:1/v1", "http://b:1/v1"]
    backends = {"farm": BackendSettings(kind="vllm", base_urls=urls, slots=4, cooldown=3.0)}
    model = resolve_model("farm/qwen3", backends=backends)
    assert isinstance(model, Failover)
    assert (model.name, model.slots) == ("farm/qwen3", 8)
    assert [one["endpoint"] for one in model.fingerprint()["endpoints"]] == urls
    assert model.capabilities.continues


def test_prices_of_a_backend_are_those_of_its_models():
    book = PriceBook.load()
    backends = {
        "mine": BackendSettings(kind="ollama", price={"input": 0, "output": 0}),
        "work": BackendSettings(kind="openai", api_key_env="WORK_KEY"),
        "other": BackendSettings(kind="openai", base_url="http://proxy/v1"),
        "openai/gpt-5": BackendSettings(price={"input": 1, "output": 2, "cached": 0.5}),
    }
    specs = ["mine/x", "work/gpt-5-mini", "other/gpt-5-mini", "openai/gpt-5", "embedded"]
    found = priced(book, specs, backends=backends)
    assert found.require("mine/x").to_json() == {"input": "0", "cached": "0", "output": "0"}
    assert found.price("work/gpt-5-mini") == book.price("gpt-5-mini")
    assert found.price("other/gpt-5-mini") is None
    assert found.require("gpt-5").to_json() == {"input": "1", "cached": "0.5", "output": "2"}
    assert priced(book, ["openai/x", ScriptedModel(["a"])]) is book


def test_a_workflow_takes_backends_and_their_prices():
    backends = {"mine": BackendSettings(kind="ollama", price={"input": 0, "output": 0})}
    workflow = Workflow(model="mine/x", backends=backends, budget=Budget(usd="0.01"))
    assert [model.name for model in workflow.definition.models] == ["mine/x"]
    with pytest.raises(InvalidInput, match="there is no model 'mine/x'"):
        Workflow(model="mine/x")
