"""Names of models, and what importing the package costs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import longthought.orchestrator.models as models
from longthought.errors import InvalidInput
from longthought.orchestrator.models import (
    BackendSettings,
    OpenAIModel,
    RecordedModel,
    ScriptedModel,
    resolve_model,
)


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
