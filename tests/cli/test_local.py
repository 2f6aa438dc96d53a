"""Model servers on this machine, as ``models``, ``doctor`` and a refusal of ``solve`` name them."""

from __future__ import annotations

import json
import shlex
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from longthought.orchestrator.models import local_servers
from tests.cli.conftest import PUZZLE, Cli

Serve = Callable[..., int]


class _Server(ThreadingHTTPServer):
    models: tuple[str, ...] = ()
    owner = ""
    asked = 0


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self.server.asked += 1
        entries = [{"id": one, "owned_by": self.server.owner} for one in self.server.models]
        body = json.dumps({"object": "list", "data": entries}).encode()
        self.send_response(200 if self.path == "/v1/models" else 404)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Quietly."""


@pytest.fixture
def servers(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[_Server]]:
    """Servers that run; all of them, and no others, are looked for."""
    monkeypatch.setattr(local_servers, "_CONNECT_SECONDS", 30.0)  # a busy machine is no failure
    monkeypatch.setattr(local_servers, "_ANSWER_SECONDS", 30.0)
    running: list[_Server] = []
    yield running
    for server in running:
        server.shutdown()
        server.server_close()


@pytest.fixture
def serve(servers: list[_Server], monkeypatch: pytest.MonkeyPatch) -> Serve:
    def start(*models: str, owner: str = "library") -> int:
        server = _Server(("127.0.0.1", 0), _Handler)
        server.models, server.owner = models, owner
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        ports = ",".join(str(one.server_port) for one in servers)
        monkeypatch.setenv("LONGTHOUGHT_LOCAL_PORTS", ports)
        return server.server_port

    return start


def test_models_says_what_to_write(cli: Cli, serve: Serve) -> None:
    port = serve("llama3.2:latest", "it's odd")
    other = serve("Qwen/Qwen3-8B", owner="vllm")
    printed = cli("models").stdout
    assert "found on this machine" in printed
    assert f"Ollama at http://localhost:{port}/v1" in printed
    wanted = f"--model openai/llama3.2:latest --base-url http://localhost:{port}/v1"
    assert f"    {wanted}\n" in printed
    told = cli.json("models")["local"]
    assert [server["kind"] for server in told] == ["Ollama", "vLLM"]
    assert told[0]["models"][0] == {
        "id": "llama3.2:latest",
        "model": "openai/llama3.2:latest",
        "options": wanted,
    }
    assert shlex.split(told[0]["models"][1]["options"])[1] == "openai/it's odd"
    assert told[1]["base_url"] == f"http://localhost:{other}/v1"


def test_models_need_not_look(cli: Cli, serve: Serve, servers: list[_Server]) -> None:
    serve("llama3.2")
    assert "found on this machine" not in cli("models", "--no-local").stdout
    assert "local" not in cli.json("models", "--no-local")
    assert servers[0].asked == 0


def test_models_says_that_nothing_was_found(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGTHOUGHT_LOCAL_PORTS", "9")
    assert "no model server found on the ports of LONGTHOUGHT_LOCAL_PORTS (server 9)" in (
        cli("models").stdout
    )
    assert cli.json("models")["local"] == []


def test_doctor_has_a_line(cli: Cli, serve: Serve) -> None:
    def line() -> dict[str, object]:
        checks = cli.json("doctor")["checks"]
        return next(check for check in checks if check["name"] == "local models")

    assert line()["ok"] is None
    serve(*"abcde")
    assert line() == {
        "name": "local models",
        "ok": True,
        "found": "Ollama with a, b, c and 2 more; longthought models",
    }


def test_a_refusal_names_what_is_here(cli: Cli, serve: Serve) -> None:
    serve("embedded", owner="longthought")  # would refuse as well
    port = serve("nomic-embed-text", "llama3.2")
    result = cli("solve", "What is Ada's age?")
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert "is no question that this model was made for" in result.stderr
    command = (
        "longthought solve 'What is Ada'\"'\"'s age?' --model openai/llama3.2 "
        f"--base-url http://localhost:{port}/v1"
    )
    assert "Found here: Ollama with nomic-embed-text, llama3.2. Try: " in result.stderr
    assert result.stderr.endswith(f"{command}\n")
    assert "embedded;" not in result.stderr
    long = cli("solve", "Why? " * 40)
    assert "longthought solve '...' --model openai/llama3.2" in long.stderr


def test_a_refusal_says_that_nothing_is_here(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nobody(*arguments: object) -> None:
        return None

    monkeypatch.delenv("LONGTHOUGHT_LOCAL_PORTS")
    monkeypatch.setattr(local_servers, "_ask", nobody)
    result = cli("solve", "hello", "--json")
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert "no model server found on the usual ports (Ollama 11434, LM Studio 1234" in result.stderr


def test_a_refusal_with_a_server_that_has_no_model(cli: Cli, serve: Serve) -> None:
    serve()
    stderr = cli("solve", "hello").stderr
    assert "Found here: server without a model\n" in stderr


def test_a_variable_that_cannot_be_used_does_not_hide_the_refusal(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LONGTHOUGHT_LOCAL_PORTS", "many")
    result = cli("solve", "hello")
    assert result.exit_code == 2
    assert "is no question" in result.stderr
    assert "LONGTHOUGHT_LOCAL_PORTS: 'many' is no port" in result.stderr
    assert cli("models").exit_code == 2


def test_nobody_is_asked_unless_the_embedded_model_refuses(
    cli: Cli, serve: Serve, servers: list[_Server]
) -> None:
    serve("llama3.2")
    assert cli("solve", PUZZLE).exit_code == 0
    assert cli("solve", PUZZLE, "--strategy", "best").exit_code == 2
    assert servers[0].asked == 0
