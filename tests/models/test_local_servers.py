"""Servers on this machine are found, whatever else listens on their ports."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from longthought.errors import ConfigurationError
from longthought.orchestrator.models import LocalServer, find_local_servers
from longthought.orchestrator.models import local_servers as module
from longthought.orchestrator.models.local_servers import USUAL_PORTS, ports_here

Handler = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


class Machine:
    """Real servers on loopback, each with its own way of answering."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self._servers: list[asyncio.Server] = []

    async def listen(self, handler: Handler, host: str = "127.0.0.1") -> int:
        """Start a server; returns its port."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                request = await reader.readuntil(b"\r\n\r\n")
                self.asked.append(request)
                await handler(request, writer)
                await writer.drain()
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(serve, host, 0)
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def says(self, body: bytes, status: str = "200 OK", *headers: str) -> int:
        """Start a server that always answers this."""
        return await self.listen(always(body, status, *headers))

    async def aclose(self) -> None:
        for server in self._servers:
            server.close()


def always(body: bytes, status: str = "200 OK", *headers: str) -> Handler:
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", *headers, "", ""]

    async def handler(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write("\r\n".join(lines).encode() + body)

    return handler


def models(*ids: object, owner: str | None = None) -> bytes:
    """A list of models as servers write it."""
    extra = {"owned_by": owner} if owner else {}
    entries = [{"id": one, "object": "model", **extra} for one in ids]
    return json.dumps({"object": "list", "data": entries}).encode()


@pytest.fixture
async def machine() -> AsyncIterator[Machine]:
    running = Machine()
    yield running
    await running.aclose()


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is no failure."""
    monkeypatch.setattr(module, "_CONNECT_SECONDS", 30.0)
    monkeypatch.setattr(module, "_ANSWER_SECONDS", 30.0)


async def test_a_server_is_found_with_its_models(machine: Machine) -> None:
    port = await machine.says(models("llama3.2:latest", "qwen3:8b"))
    assert await find_local_servers({port: "Ollama"}) == [
        LocalServer("Ollama", f"http://localhost:{port}/v1", ("llama3.2:latest", "qwen3:8b"))
    ]
    assert machine.asked[0].startswith(b"GET /v1/models HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("owner", "kind"),
    [
        ("vllm", "vLLM"),
        ("llamacpp", "llama.cpp"),
        ("sglang", "SGLang"),
        ("library", "Ollama"),
        ("longthought", "longthought"),
        ("somebody", "LM Studio"),
        (None, "LM Studio"),
    ],
)
async def test_a_server_is_what_it_says_it_is(
    machine: Machine, owner: str | None, kind: str
) -> None:
    port = await machine.says(models("m", owner=owner))
    [server] = await find_local_servers({port: "LM Studio"})
    assert server.kind == kind


async def test_a_server_without_models_is_one(machine: Machine) -> None:
    port = await machine.says(models())
    [server] = await find_local_servers({port: "Ollama"})
    assert (server.models, server.chat_model) == ((), None)


async def test_the_model_to_chat_with_is_not_an_embedding(machine: Machine) -> None:
    port = await machine.says(models("nomic-embed-text:latest", "llama3.2"))
    [server] = await find_local_servers({port: "Ollama"})
    assert server.chat_model == "llama3.2"


async def test_only_ids_that_can_be_shown_count(machine: Machine) -> None:
    port = await machine.says(models("\x1b[2Jevil", "a\nb", "", None, 7, "x" * 201, "good", "good"))
    [server] = await find_local_servers({port: "server"})
    assert server.models == ("good",)


NONSENSE = {
    "a web page": (b"<html>It works!</html>", "200 OK", "content-type: text/html"),
    "not found": (b'{"data": [{"id": "m"}]}', "404 Not Found"),
    "no entry": (b"", "401 Unauthorized"),
    "broken": (models("m"), "500 Internal Server Error"),
    "nothing": (b"",),
    "half a reply": (b'{"data": [{"id"',),
    "a list": (b"[]",),
    "a number": (b"1" * 10_000,),
    "no data": (b"{}",),
    "data of another kind": (b'{"data": {"id": "m"}}',),
    "entries of another kind": (b'{"data": [1, "m", null]}',),
    "bytes": (bytes(range(256)),),
    "another encoding": (models("m").decode().encode("utf-16")[:31],),
    "a deep nest": (b"[" * 200_000,),
    "compressed": (gzip.compress(models("m")), "200 OK", "content-encoding: gzip"),
    "no status": (b"", "what?"),
    "endless headers": (b"", "200 OK", *["x: " + "y" * 1_000] * 300),
}


@pytest.mark.parametrize("name", list(NONSENSE))
async def test_what_is_no_list_of_models_is_nothing(machine: Machine, name: str) -> None:
    odd = await machine.says(*NONSENSE[name])
    good = await machine.says(models("m"))
    found = await find_local_servers({odd: "vLLM", good: "Ollama"})
    assert [server.kind for server in found] == ["Ollama"]


async def test_a_redirection_is_not_followed(machine: Machine) -> None:
    good = await machine.says(models("m"))
    away = f"location: http://127.0.0.1:{good}/v1/models"
    port = await machine.says(b"", "302 Found", away)
    assert await find_local_servers({port: "vLLM"}) == []
    assert len(machine.asked) == 1


async def test_a_port_where_nothing_listens_is_nothing(machine: Machine) -> None:
    port = await machine.says(b"")
    await machine.aclose()
    assert await find_local_servers({port: "vLLM"}) == []
    assert await find_local_servers({}) == []


async def test_a_server_that_never_answers_holds_nobody_up(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ANSWER_SECONDS", 2.0)
    forever = asyncio.Event()

    async def silent(request: bytes, writer: asyncio.StreamWriter) -> None:
        await forever.wait()

    async def trickling(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.01)

    async def hanging_up(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    odd = [await machine.listen(handler) for handler in (silent, trickling, hanging_up)]
    good = await machine.says(models("m"))
    found = await find_local_servers(dict.fromkeys((*odd, good), "server"))
    forever.set()
    assert [server.models for server in found] == [("m",)]


async def test_a_body_without_end_is_left(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = 0
    left = asyncio.Event()

    async def flooding(request: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                writer.write(b" " * 65_536)
                await writer.drain()
                sent += 65_536
        finally:
            left.set()

    port = await machine.listen(flooding)
    assert await find_local_servers({port: "vLLM"}) == []
    await left.wait()
    assert sent < 64 * 2**20  # what was on its way counts too


async def test_all_are_asked_at_once(machine: Machine) -> None:
    together = asyncio.Barrier(5)

    async def waiting(request: bytes, writer: asyncio.StreamWriter) -> None:
        await together.wait()  # none is answered before all were asked
        await always(models("m"))(request, writer)

    ports = [await machine.listen(waiting) for _ in range(5)]
    found = await find_local_servers(dict.fromkeys(ports, "server"))
    assert [server.base_url for server in found] == [f"http://localhost:{p}/v1" for p in ports]


async def test_the_environment_has_no_say(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxied = []

    async def proxy(request: bytes, writer: asyncio.StreamWriter) -> None:
        proxied.append(request)

    address = f"http://127.0.0.1:{await machine.listen(proxy)}"
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, address)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "very-secret")
    port = await machine.says(models("m"))
    assert len(await find_local_servers({port: "vLLM"})) == 1
    assert not proxied
    assert b"very-secret" not in b"".join(machine.asked)
    assert b"authorization" not in b"".join(machine.asked).lower()


async def test_a_server_on_the_new_address_alone_is_named_by_it(machine: Machine) -> None:
    try:
        port = await machine.listen(always(models("m")), "::1")
    except OSError:
        pytest.skip("this machine has no ::1")
    [server] = await find_local_servers({port: "vLLM"})
    assert server.base_url == f"http://[::1]:{port}/v1"


# -- which ports ----------------------------------------------------------------------------------


def test_the_usual_ports_are_those_of_the_usual_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LONGTHOUGHT_LOCAL_PORTS", raising=False)
    assert ports_here() is USUAL_PORTS
    assert USUAL_PORTS[11434] == "Ollama"
    assert USUAL_PORTS[1234] == "LM Studio"


def test_the_environment_may_name_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGTHOUGHT_LOCAL_PORTS", " 8000, 9999 ,")
    assert ports_here() == {8000: "vLLM", 9999: "server"}
    monkeypatch.setenv("LONGTHOUGHT_LOCAL_PORTS", "")
    assert ports_here() == {}


@pytest.mark.parametrize("named", ["x", "0", "65536", "-1", "80;81", "\u0663"])
async def test_what_is_no_port_is_said(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGTHOUGHT_LOCAL_PORTS", named)
    with pytest.raises(ConfigurationError, match=r"LONGTHOUGHT_LOCAL_PORTS: .* is no port"):
        await find_local_servers()


def test_as_json() -> None:
    server: dict[str, Any] = LocalServer("vLLM", "http://localhost:8000/v1", ("m",)).to_json()
    assert server == {"kind": "vLLM", "base_url": "http://localhost:8000/v1", "models": ["m"]}
