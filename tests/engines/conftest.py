"""Real engines: each is built if need be, started once, and driven by the adapter.

Which, is said by ``LONGTHOUGHT_ENGINES``; ``make test-engines`` sets it. Where it is not set these
tests are left out, and told of. An engine that was asked for and cannot be had fails the tests that
need it, with what to do about it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from longthought.orchestrator.models import OpenAIModel
from longthought.types import ModelReply, ModelRequest
from tests.engines.choice import VARIABLE, asked_for, server_of
from tests.engines.places import EngineMissing
from tests.engines.server import Server

_PATIENCE_SECONDS = 30.0
_LEFT_OUT = pytest.StashKey[int]()
_OWN_FILES = {"test_llama_cpp.py": "llama.cpp", "test_vllm.py": "vllm"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests run with each engine that was asked for; those of one engine's own file with it."""
    if "server" not in metafunc.fixturenames:
        return
    try:
        names = asked_for()
    except EngineMissing as missing:
        raise pytest.UsageError(str(missing)) from None
    own = _OWN_FILES.get(metafunc.definition.path.name)
    names = [name for name in names if own in (None, name)]
    metafunc.parametrize("server", names, indirect=True, scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave these tests out of the ordinary suite: building an engine takes minutes."""
    left = [item for item in items if item.get_closest_marker("engines")]
    if not left or VARIABLE in os.environ or "engines" in config.option.markexpr:
        return
    config.hook.pytest_deselected(items=left)
    items[:] = [item for item in items if item not in left]
    config.stash[_LEFT_OUT] = len(left)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say how the tests that were left out are run."""
    if count := config.stash.get(_LEFT_OUT, 0):
        terminalreporter.write_line(
            f"{count} tests left out: they drive real engines, see make test-engines"
        )


def pytest_configure(config: pytest.Config) -> None:
    """Say what the mark of this folder means."""
    config.addinivalue_line("markers", "engines: needs an engine; run by make test-engines")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the file of an engine that was not asked for."""
    own = _OWN_FILES.get(collection_path.name)
    return True if own is not None and own not in asked_for() else None


@pytest.fixture(scope="session")
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A running server of one engine."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():  # building one takes minutes and tells how it goes
        made = server_of(request.param, tmp_path_factory.mktemp("engine"))
    with made as running:
        yield running


class Granted:
    """A grant of some tokens, and no more."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    async def top_up(self, wanted: int) -> int:
        return self.tokens


@pytest.fixture
async def model_of(server: Server) -> AsyncIterator[Callable[..., OpenAIModel]]:
    """Makes models at the server, closed afterwards."""
    made: list[OpenAIModel] = []

    def make(**options: Any) -> OpenAIModel:
        able = {"continues": True, **options.pop("capabilities", {})}
        settings = {"strict_tools": True, "slots": server.slots, **options}
        made.append(OpenAIModel(server.model, base_url=server.url, capabilities=able, **settings))
        return made[-1]

    yield make
    for model in made:
        await model.aclose()


@pytest.fixture
def ask(model_of: Callable[..., OpenAIModel]) -> Callable[..., Any]:
    """Asks the server: ``await ask("text", 20, seed=1)``; more fields go into the request."""
    models: dict[str, OpenAIModel] = {}

    async def reply(
        text: str | list[Any] = "Say something.",
        tokens: int = 20,
        *,
        stream: bool = True,
        request: dict[str, Any] | None = None,
        emit: Any = None,
        settings: dict[str, Any] | None = None,
        **sampling: Any,
    ) -> ModelReply:
        key = repr((stream, settings))
        if key not in models:
            models[key] = model_of(stream=stream, **(settings or {}))
        messages = [{"role": "user", "content": text}] if isinstance(text, str) else text
        body: Any = {"model": "tiny", "messages": messages, "sampling": sampling, **(request or {})}
        asked: ModelRequest = body
        return await models[key].generate(asked, Granted(tokens), emit)

    return reply


@pytest.fixture
def settled(server: Server) -> Callable[[], Any]:
    """Waits until the server works on nothing."""

    async def wait() -> None:
        end = time.monotonic() + _PATIENCE_SECONDS
        while await asyncio.to_thread(lambda: server.busy):
            assert time.monotonic() < end, "the server is still at work"
            await asyncio.sleep(0.02)

    return wait


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    """The URL of a store of its own."""
    return f"sqlite:///{tmp_path / 'longthought.db'}"


@pytest.fixture(autouse=True)
def _no_ambient_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ADMIN_KEY", "OPENAI_CUSTOM_HEADERS"):
        monkeypatch.delenv(name, raising=False)
