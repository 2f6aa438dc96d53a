"""The runs that are compared are sound, and what weighs them counts rightly."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import footprint, overhead, rivals_environment
from benchmarks.bare import DEFINITION
from benchmarks.footprint import Footprint, Plan, run
from benchmarks.protocol_server import FINAL, ProtocolServer, in_process
from longthought.orchestrator.models.openai import OpenAIModel
from longthought.orchestrator.workflow import Workflow
from longthought.storage import Store
from longthought.storage.audit import audit


@pytest.fixture(scope="module")
def server() -> Iterator[ProtocolServer]:
    with in_process() as running:
        yield running


async def test_256_runs_at_once_on_one_store_complete_and_audit_clean(
    server: ProtocolServer, tmp_path: Path
) -> None:
    async with Store(directory=tmp_path) as store:
        model = OpenAIModel("toy", base_url=server.address("t2"), api_key="any", slots=256)
        workflow = Workflow("many", model=model, tools=[overhead.add], store=store)
        before = server.stats().get("calls", 0)
        results = await asyncio.gather(*(workflow.run(overhead.QUESTION) for _ in range(256)))
        assert {result.status for result in results} == {"completed"}
        assert {result.text for result in results} == {FINAL}
        assert server.stats()["calls"] - before == 256 * 3
        for result in results[::32]:
            report = await audit(store, result.id)
            assert report.ok, report.findings
            assert report.events > 0
        await workflow.aclose()


@pytest.mark.parametrize("stack", ["bare", "ours"])
def test_a_stack_is_weighed_without_errors(server: ProtocolServer, stack: str) -> None:
    found = run(Plan(stack, server.address("t1"), 1, FINAL, concurrency=2, runs=4))
    assert (found.ended, found.errors, found.locks, found.first_error) == ("", 0, 0, "")
    assert (found.runs, found.done) == (4, 12)
    assert found.cpu_ms > 0
    assert found.memory_mb > 0
    assert (found.stored > 0) == (stack == "ours")


def test_a_wrong_answer_is_an_error(server: ProtocolServer) -> None:
    found = run(Plan("bare", server.address("t1"), 1, "something else", runs=3))
    assert (found.ended, found.errors, found.locks) == ("", 3, 0)
    assert FINAL in found.first_error


def test_a_locked_database_is_told_apart() -> None:
    both = ExceptionGroup("two", [RuntimeError("one"), ValueError("database is locked")])
    outer = RuntimeError("the run failed")
    outer.__cause__ = both
    assert footprint._messages(outer)[-1] == "ValueError: database is locked"
    assert footprint._messages(None) == []


def test_a_stack_that_hangs_is_killed_and_told(server: ProtocolServer) -> None:
    found = run(Plan("bare", server.address("hang"), 0, FINAL), limit=2)
    assert found == Footprint("bare", 1, ended="killed after 2 s")


def test_a_stack_that_cannot_be_opened_has_failed(server: ProtocolServer) -> None:
    found = run(Plan("no such stack", server.address(), 0, FINAL))
    assert found.ended.startswith("failed: KeyError")


def test_both_offer_the_same_tool() -> None:
    assert {"type": "function", "function": dict(overhead.add.spec.definition())} == DEFINITION


def test_the_rivals_interpreter_is_the_one_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(rivals_environment.VARIABLE, raising=False)
    assert rivals_environment.rivals_python(install=False) == ""
    monkeypatch.setenv(rivals_environment.VARIABLE, sys.executable)
    assert rivals_environment.rivals_python(install=True) == sys.executable
    monkeypatch.setenv(rivals_environment.VARIABLE, "/no/python")
    with pytest.raises(SystemExit, match="/no/python"):
        rivals_environment.rivals_python(install=False)


def test_a_killed_rival_is_remarked_and_a_killed_client_of_ours_raises() -> None:
    found = overhead.Found()
    assert not found.take(Footprint("langgraph", 256, ended="killed after 9 s"), "256 at once")
    assert found.figures == {"langgraph_killed_or_failed": 1}
    assert "langgraph, 256 at once: killed after 9 s" in overhead.table(found)
    with pytest.raises(RuntimeError, match="ours, 256 at once: killed"):
        found.take(Footprint("ours", 256, ended="killed after 9 s"), "256 at once")
