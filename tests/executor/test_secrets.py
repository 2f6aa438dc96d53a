"""Keys, secret headers and passwords in addresses: used in every way, and written nowhere."""

from __future__ import annotations

import asyncio
import base64
import gc
import io
import json
import logging
import sqlite3
import traceback
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks.protocol_server import ProtocolServer, protocol_server
from longthought import Budget, Store, Workflow
from longthought.errors import BackendError
from longthought.orchestrator.definition import Retry
from longthought.orchestrator.models.openai import OpenAIModel
from longthought.orchestrator.models.openai.secrets import Secrets
from longthought.storage import export_run
from longthought.types import ModelRequest
from tests.executor.workflows import add

KEY = "sk-key-that-nobody-may-see"
HEADER = "header/that nobody+may see"
PASSWORD = "pass:word%that-nobody-may-see"
QUERY = "query-that-nobody-may-see"
LOGIN = base64.b64encode(f"somebody:{PASSWORD}".encode()).decode()
SECRETS = (KEY, HEADER, PASSWORD, "pass%3Aword%25that-nobody-may-see", LOGIN, QUERY)

FAULTS = [
    "t1",
    "status400",
    "status401",
    "status429,after0",
    "status500",
    "status307",
    "context",
    "echo-key",
    "drop",
    "stale",
    "reset",
    "malformed",
    "truncated",
    "broken-off",
    "empty",
    "odd",
    "error",
    "hang",
    "stall",
    "alive",
    "limit1,told",
    "t1,bad-arguments",
    "t1,no-tool",
]


@pytest.fixture(scope="module")
def server() -> Iterator[ProtocolServer]:
    with protocol_server() as running:
        yield running


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Everything that anybody logs, at the finest level."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    known = [logging.getLogger(name) for name in list(root.manager.loggerDict)]
    noisy = ("openai", "httpx2", "httpcore2", "asyncio", "longthought")
    loggers = [root, *(one for one in known if one.name.partition(".")[0] in noisy)]
    before = [(one, one.level) for one in loggers]
    for one in loggers:
        one.setLevel(logging.DEBUG)
    root.addHandler(handler)
    yield written
    root.removeHandler(handler)
    for one, level in before:
        one.setLevel(level)


def endpoint(server: ProtocolServer, modes: str, *, login: bool) -> str:
    address = server.address(f"{modes},echo")
    return address.replace("//", f"//somebody:{SECRETS[3]}@") if login else address


SILENT = ("hang", "stall", "alive")
"""Only these should end in a time-out, however busy the machine is."""


def model_at(url: str, stream: bool) -> OpenAIModel:
    return OpenAIModel(
        "toy",
        base_url=url,
        api_key=KEY,
        extra_headers={"x-secret": HEADER},
        stream=stream,
        timeout=0.1 if any(mode in url for mode in SILENT) else 60,
        connect_timeout=60,
    )


async def used_in_every_way(server: ProtocolServer, store: Store, login: bool) -> list[str]:
    """Runs through all faults; what came of them, as text."""
    seen: list[str] = []
    watched = seen
    for number, modes in enumerate(FAULTS):
        model = model_at(endpoint(server, modes, login=login), stream=number % 2 == 0)
        workflow = Workflow(
            "secrets",
            model=model,
            tools=[add],
            retry=Retry(attempts=2, base=0.0, cap=0.0),
            budget=Budget(tokens=100_000),
            store=store,
        )
        result = await workflow.run("Add up.", watch=lambda event: watched.append(repr(event)))
        seen += [repr(result), json.dumps(result.to_json()), repr(workflow.definition)]
        seen += [repr(model), json.dumps(model.fingerprint()), repr(model.capabilities)]
        seen.append(json.dumps(await export_run(store, result.id)))
        recording = await store.read(result.id)
        seen += [json.dumps(recording.manifest()), *(repr(e) for e in recording.events)]
        error = await failure(model)
        if error is not None:
            seen += [*traceback.format_exception(error), repr(vars(error))]
            assert (error.__cause__, error.__context__) == (None, None)
        await workflow.aclose()
    return seen


async def failure(model: OpenAIModel) -> BackendError | None:
    """What a call of its own comes to, if it fails."""
    request: ModelRequest = {"model": "toy", "messages": [{"role": "user", "content": "q"}]}
    try:
        await model.generate(request, Grant())
    except BackendError as error:
        return error
    return None


class Grant:
    """A grant of a few tokens."""

    tokens = 99

    async def top_up(self, wanted: int) -> int:
        """Nothing more is to be had."""
        return self.tokens


def cells(file: Path) -> Iterator[str]:
    """Every value of every column of every table."""
    with closing(sqlite3.connect(file)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        for (name,) in tables.fetchall():
            for row in connection.execute(f'SELECT * FROM "{name}"'):
                yield from (v.decode("latin-1") if isinstance(v, bytes) else str(v) for v in row)


@pytest.mark.parametrize("login", [False, True], ids=["key", "login"])
async def test_secrets_are_sent_and_shown_nowhere(
    server: ProtocolServer,
    tmp_path: Path,
    log: io.StringIO,
    capfd: pytest.CaptureFixture[str],
    login: bool,
) -> None:
    server.heard.clear()
    asyncio.get_running_loop().set_debug(True)
    async with Store(directory=tmp_path) as store:
        shown = await used_in_every_way(server, store, login)
    asyncio.get_running_loop().set_debug(False)
    gc.collect()
    assert server.heard  # the server has seen them: they were sent
    for headers in server.heard:
        assert headers["x-secret"] == HEADER
        assert headers["authorization"] == (f"Basic {LOGIN}" if login else f"Bearer {KEY}")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    texts = {
        "shown": "\n".join(shown),
        "logged": log.getvalue(),
        "printed": "".join(capfd.readouterr()),
        "stored": "\n".join(cells(tmp_path / "longthought.db")),
        **{str(path): path.read_bytes().decode("latin-1") for path in files},
    }
    assert "receive_response_headers.complete" in texts["logged"]  # it was logged in full
    assert "***" in texts["logged"]
    assert "***" in texts["stored"]  # and the server has repeated them
    for where, text in texts.items():
        for secret in SECRETS:
            assert secret not in text, f"{secret} in {where}: {around(text, secret)}"


def around(text: str, secret: str) -> str:
    place = text.index(secret)
    return text[max(0, place - 200) : place + 100]


async def test_a_query_in_the_address_is_sent_and_not_logged(
    server: ProtocolServer, log: io.StringIO
) -> None:
    model = model_at(f"{server.address('t0')}?key={QUERY}", stream=False)
    assert QUERY not in repr(model) + json.dumps(model.fingerprint())
    assert QUERY not in str(await failure(model))
    await model.aclose()
    assert "HTTP Request: POST http://127.0.0.1" in log.getvalue()
    assert QUERY not in log.getvalue()


def test_secrets_are_hidden_in_whatever_form_they_come_back() -> None:
    secrets = Secrets(['Bearer abc/def ghi\\jkl"x', "short"])
    for form in (
        'Bearer abc/def ghi\\jkl"x',
        'ghi\\jkl"x',
        "Bearer%20abc/def%20ghi%5Cjkl%22x",
        "Bearer%20abc%2Fdef%20ghi%5Cjkl%22x",
        json.dumps('ghi\\jkl"x')[1:-1],
    ):
        assert secrets.hidden_in(f"it was {form}!") == "it was ***!"
    assert secrets.hidden_in("short") == "short"


def test_logs_are_filtered_for_as_long_as_a_secret_is_in_use(log: io.StringIO) -> None:
    logger, secrets = logging.getLogger("httpx2"), Secrets(["a-secret-to-hide"])
    logger.info("sent %s", "a-secret-to-hide")
    del secrets
    gc.collect()
    logger.info("and %s", "a-secret-to-hide")
    assert log.getvalue().startswith("httpx2 INFO sent ***\n")
    assert log.getvalue().endswith("httpx2 INFO and a-secret-to-hide\n")
