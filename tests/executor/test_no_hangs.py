"""Nothing may hang, whatever fails; the right exception reaches the caller."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from decimal import Decimal
from typing import Any

import pytest

from longthought import Budget, Store, Verdict, strategies
from longthought.errors import Fenced, StorageError
from longthought.orchestrator.models.scripted import ScriptedModel, call, says
from longthought.storage.writer import GroupWriter
from longthought.tools import tool
from longthought.types import Candidate, JSONObject, JudgeContext
from tests.executor.workflows import looking, turns_of

LIMIT = 60


def left_behind() -> list[str]:
    mine = asyncio.current_task()
    return [
        t.get_name()
        for t in asyncio.all_tasks()
        if t is not mine and t.get_name() != "longthought-writer"
    ]


class DecimalAnswer:
    name = "decimal"

    def spec(self) -> JSONObject:
        return {"name": "decimal"}

    def find(self, text: str) -> Any:
        return Decimal(7)

    def equal(self, a: Any, b: Any) -> bool:
        return a == b


async def test_an_answer_that_is_no_json_does_not_hang(sqlite_store: Store) -> None:
    workflow = looking(
        sqlite_store,
        script="The answer is 7".__str__ and (lambda r: "x"),
        tools=[],
        answer=DecimalAnswer(),
    )
    try:
        async with asyncio.timeout(LIMIT):
            await workflow.run("q")
    except TimeoutError:
        pytest.fail("hangs")
    except Exception:
        pass
    assert left_behind() == []


async def test_a_watcher_that_fails_does_not_hang(sqlite_store: Store) -> None:
    def watch(event: JSONObject) -> None:
        if event["event"] == "branch_ended":
            raise RuntimeError("broken pipe")

    try:
        async with asyncio.timeout(LIMIT):
            await looking(sqlite_store).run("q", watch=watch)
    except TimeoutError:
        pytest.fail("hangs")
    except Exception:
        pass
    assert left_behind() == []


class CancellingVerifier:
    name = "cancelling"

    def spec(self) -> JSONObject:
        return {"kind": self.name}

    async def judge(self, candidate: Candidate, context: JudgeContext) -> Verdict:
        task = asyncio.create_task(asyncio.sleep(10))
        task.cancel()
        await task  # an inner task was cancelled, not we
        return Verdict(1.0, True)


async def test_a_verifier_with_a_cancelled_task_inside_does_not_hang(sqlite_store: Store) -> None:
    workflow = looking(sqlite_store, verifier=CancellingVerifier())
    try:
        async with asyncio.timeout(LIMIT):
            await workflow.run("q")
    except TimeoutError:
        pytest.fail("hangs")


async def test_a_model_with_a_cancelled_task_inside_does_not_hang(sqlite_store: Store) -> None:
    async def script(request: Any) -> str:
        task = asyncio.create_task(asyncio.sleep(10))
        task.cancel()
        await task
        return "x"

    workflow = looking(sqlite_store, script=script, tools=[])
    try:
        async with asyncio.timeout(LIMIT):
            await workflow.run("q")
    except TimeoutError:
        pytest.fail("hangs")


def long_text(request: Any) -> str:
    return "word " * 700 + "The answer is 7"


@pytest.mark.parametrize("kind", ["fenced", "failed"])
@pytest.mark.parametrize("shape", ["lookups", "topped up", "single topped up"])
async def test_a_store_that_fails_at_any_flush(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch, kind: str, shape: str
) -> None:
    """At the n-th transaction the store fails (or another took over) and stays so."""
    unretrieved: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, c: unretrieved.append(c))
    original = GroupWriter._commit
    problems: list[str] = []
    for n in range(1, 40):
        count = 0
        failed = False

        async def commit(self: Any, batch: Any, n: int = n) -> None:
            nonlocal count, failed
            count += 1
            if count <= n:
                await original(self, batch)
                return
            failed = True
            for append in batch:
                error = (
                    Fenced(append.run_id, append.attempt)
                    if kind == "fenced"
                    else StorageError("disk full")
                )
                append.settle(error)

        monkeypatch.setattr(GroupWriter, "_commit", commit)
        options: dict[str, Any] = {"budget": Budget(tokens=100_000)}
        if shape != "lookups":
            options |= {"script": long_text, "tools": []}
        if shape == "single topped up":
            options["strategy"] = strategies.single()
        workflow = looking(sqlite_store, **options)
        try:
            async with asyncio.timeout(LIMIT):
                await workflow.run("q")
            if failed:
                problems.append(f"{n}: returned although the store had failed")
        except TimeoutError:
            problems.append(f"{n}: hangs")
        except Fenced:
            if kind != "fenced":
                problems.append(f"{n}: Fenced")
        except StorageError:
            if kind == "fenced":
                problems.append(f"{n}: StorageError, not Fenced")
        except BaseException as error:
            problems.append(f"{n}: {error!r}")
        if left_behind():
            problems.append(f"{n}: left behind {left_behind()}")
        controller = workflow._shared_controller()
        if controller.in_use("scripted") or controller.view()["branches"]:
            problems.append(f"{n}: leaks {controller.view()}")
        if len(problems) > 3 or not failed:
            break
    import gc

    gc.collect()
    await asyncio.sleep(0)
    assert problems == []
    assert [str(c.get("exception") or c["message"]) for c in unretrieved] == []


class _AnyAnswer:
    def spec(self) -> JSONObject:
        return {"name": "any"}

    def stop(self, outcomes: Any) -> str | None:
        return "any" if outcomes else None


async def test_a_tool_that_swallows_its_cancellation_buys_no_more_calls(
    sqlite_store: Store,
) -> None:
    calls: list[int] = []
    working = asyncio.Event()

    @tool(effect="read")
    async def stubborn(name: str) -> int:
        """Ends, and with a result, when it is told to stop.

        Args:
            name: any.
        """
        working.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        return 1

    async def script(request: Any) -> Any:
        seed = request["sampling"]["seed"]
        calls.append(seed)
        if seed == 1 and turns_of(request) < 6:
            return says("x", call("stubborn", name="a"))
        await working.wait()
        return "The answer is 7"

    strategy = strategies.sample(2, wave=2, stop=_AnyAnswer())
    workflow = looking(sqlite_store, script=script, tools=[stubborn], strategy=strategy)
    async with asyncio.timeout(LIMIT):
        await workflow.run("q")
    assert calls.count(1) == 1, "a cancelled branch went on to call the model"


async def test_a_run_cancelled_while_it_cancels_its_rest_leaves_no_task(
    sqlite_store: Store,
) -> None:
    async def script(request: Any) -> Any:
        if request["sampling"]["seed"] == 1:
            return says("x", call("slow_to_stop", name="a"))
        await working.wait()
        return "The answer is 7"

    working, stopping, stopped = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @tool(effect="read")
    async def slow_to_stop(name: str) -> int:
        """Slow.

        Args:
            name: any.
        """
        try:
            working.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stopping.set()
            await stopped.wait()
            raise
        return 1

    strategy = strategies.sample(2, wave=2, stop=_AnyAnswer())
    workflow = looking(sqlite_store, script=script, tools=[slow_to_stop], strategy=strategy)
    task = asyncio.create_task(workflow.run("q"))
    await asyncio.wait_for(stopping.wait(), LIMIT)
    task.cancel()
    asyncio.get_running_loop().call_soon(stopped.set)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert left_behind() == []


def test_run_sync_from_several_threads(tmp_path: Any) -> None:
    """`with ThreadPoolExecutor() as pool: pool.map(workflow.run_sync, questions)`."""
    model = ScriptedModel(lambda r: "The answer is 7", slots=2, latency=lambda r: 0.002)
    workflow = looking(f"sqlite:///{tmp_path / 'a.db'}", model=model, tools=[])
    workflow.run_sync("first")
    statuses: list[str] = []

    def work(number: int) -> None:
        for i in range(5):
            try:
                statuses.append(workflow.run_sync(f"q{number} {i}").status)
            except BaseException as error:
                statuses.append(repr(error))

    threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    hung = sum(thread.is_alive() for thread in threads)
    assert (hung, len(statuses), set(statuses)) == (0, 20, {"completed"})


async def test_a_run_inside_a_tool_of_another_run(sqlite_store: Store) -> None:
    inner = looking(sqlite_store, strategy=strategies.sample(2))

    @tool(effect="read", timeout=LIMIT)
    async def research(name: str) -> str:
        """Ask another workflow.

        Args:
            name: what.
        """
        result = await inner.run(name)
        return f"{result.status} {result.answer}"

    def script(request: Any) -> Any:
        if turns_of(request) == 0:
            return says("x", call("research", name="a"), call("research", name="b"))
        return f"{request['messages'][-1]['content']} so the answer is 7"

    outer = looking(sqlite_store, script=script, tools=[research])
    async with asyncio.timeout(LIMIT):
        first = await outer.run("q")
    assert first.status == "completed"
    assert "completed" in first.text
    assert (await outer.replay(first.id)).text == first.text
    for row in await sqlite_store.list_runs():
        if row.id != first.id:
            assert (await inner.replay(row.id)).status == "completed"


async def test_timeouts_around_runs(sqlite_store: Store) -> None:
    within = asyncio.timeout(None)

    async def script(request: Any) -> Any:
        if within.when() is None:  # it is over when the run has got as far as this
            within.reschedule(asyncio.get_running_loop().time())
        await asyncio.Event().wait()
        return "The answer is 7"

    workflow = looking(sqlite_store, script=script, tools=[])
    with pytest.raises(TimeoutError):
        async with within:
            await workflow.run("q", run_id="t")
    assert (await sqlite_store.row("t")).status == "cancelled"
    assert left_behind() == []
