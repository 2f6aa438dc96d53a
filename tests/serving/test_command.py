"""``longthought serve-model`` as a process."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

PROGRAM = [sys.executable, "-m", "longthought.orchestrator.cli"]


@contextmanager
def started(*arguments: str, **env: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process, and the first line it prints."""
    process = subprocess.Popen(
        [*PROGRAM, "serve-model", "--port", "0", *arguments],
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline()
        finally:
            process.kill()


def ended(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str, str]:
    process.send_signal(number)
    said, complained = process.communicate()
    return process.returncode, said, complained


def refused(*arguments: str, **env: str) -> str:
    done = subprocess.run(
        [*PROGRAM, "serve-model", *arguments],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_sigterm_is_a_good_end() -> None:
    with started("--json", "-m", "embedded", "-m", "embedded/puzzle-small") as (process, line):
        told = json.loads(line)
        assert told["models"] == ["embedded", "embedded/puzzle-small"]
        listed = httpx.get(f"{told['url']}/models").json()
        assert [model["id"] for model in listed["data"]] == told["models"]
        assert ended(process, signal.SIGTERM) == (0, "", "")


def test_ctrl_c_is_an_interruption() -> None:
    with started() as (process, line):
        assert line.startswith("embedded at http://127.0.0.1:")
        assert ended(process, signal.SIGINT)[0] == 130


def test_the_line_to_use_it_works(tmp_path: Path) -> None:
    with started() as (process, _):
        assert process.stdout is not None
        command = process.stdout.readline().strip()
        assert command.startswith('longthought solve "4 7 8 8 -> 24" --model openai/embedded')
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-c", f"{command} --json"],
            env={**os.environ, "PATH": path, "LONGTHOUGHT_DATA_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert json.loads(done.stdout)["status"] == "completed", done.stderr
        code, _, complained = ended(process, signal.SIGINT)
        assert (code, complained) == (130, "longthought: interrupted\n")


def test_recorded_samples_are_served_too(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    row = {"problem": "What is 6 * 7?", "samples": [{"text": "42"}, {"text": "41"}]}
    file.write_text(json.dumps(row))
    with started("-m", f"recorded:{file}", "--json") as (process, line):
        told = json.loads(line)
        assert told["models"] == ["answers"]
        message = {"role": "user", "content": "What is 6 * 7?"}
        body = {"model": "answers", "messages": [message], "seed": 0, "n": 2}
        reply = httpx.post(f"{told['url']}/chat/completions", json=body).json()
        said = [choice["message"]["content"] for choice in reply["choices"]]
        assert said == ["42", "41"]
        assert ended(process, signal.SIGTERM) == (0, "", "")


def test_a_key_is_asked_for_and_never_shown() -> None:
    options = ("--host", "0.0.0.0", "--api-key-env", "LOCAL_KEY", "--slots", "2")
    with started(*options, LOCAL_KEY="sesame-open") as (process, line):
        assert process.stdout is not None
        hint = process.stdout.readline()
        assert hint.strip().startswith('OPENAI_API_KEY="$LOCAL_KEY" longthought solve')
        port = line.partition("0.0.0.0:")[2].partition("/")[0]
        url = f"http://127.0.0.1:{port}"
        assert httpx.get(f"{url}/v1/models").status_code == 401
        headers = {"authorization": "Bearer sesame-open"}
        found = httpx.get(f"{url}/stats", headers=headers).json()
        assert found["models"]["embedded"]["slots"] == 2
        _, said, complained = ended(process, signal.SIGTERM)
        assert "sesame" not in line + hint + said + complained


def test_what_cannot_be_served_is_told_at_once(tmp_path: Path) -> None:
    assert "--api-key-env" in refused("--host", "0.0.0.0")
    assert "runs on a server already" in refused("-m", "openai/gpt-5")
    assert "NOT_SET is not set" in refused("--api-key-env", "NOT_SET", NOT_SET="")
    assert "no embedded model" in refused("-m", "embedded/made-up")
    assert "two are named 'embedded'" in refused("-m", "embedded", "-m", "embedded")
    assert "no file" in refused("-m", f"recorded:{tmp_path / 'nothing'}")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"127.0.0.1:{port} cannot be had" in refused("--port", port)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stream_in_flight_does_not_keep_it_alive(number: signal.Signals) -> None:
    with started("--slots", "1", "--json") as (process, line):
        message = {"role": "user", "content": "4 7 8 8 -> 24"}
        body = {"model": "embedded", "messages": [message], "stream": True, "n": 128}
        url = f"{json.loads(line)['url']}/chat/completions"
        with httpx.stream("POST", url, json=body, timeout=None) as response:
            lines = response.iter_lines()
            assert next(lines).startswith("data: ")
            code, _, complained = ended(process, number)
            assert code == (0 if number == signal.SIGTERM else 130)
            assert "Traceback" not in complained
            *_, last = [line for line in lines if line]
            assert last == "data: [DONE]" or "the server is stopping" in last
