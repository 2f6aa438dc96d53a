"""What slots and leases did, from the trace alone, against what the controller told meanwhile.

The controller's clock is the test's own: it goes on when a model or a tool says so, and all that is
read between two steps of it is the same, so that figures are compared exactly.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.simulated_runs import SimulatedRun
from longthought import Budget, Store, Workflow, answers, strategies
from longthought.budgets import Controller, union_seconds
from longthought.orchestrator import recorded as earlier
from longthought.orchestrator import session
from longthought.orchestrator.models.scripted import ScriptedModel, call, says
from longthought.orchestrator.traces import Utilisation, run_tree, utilisation
from longthought.storage import Event, Recording, journal
from longthought.storage.events import parse_event
from longthought.tools import tool
from longthought.types import Candidate, JSONObject, JudgeContext, ModelReply, ModelRequest, Verdict
from tests.executor.workflows import turns_of

CLOCK = [0.0]


@tool(effect="read")
async def slow(number: int) -> int:
    """Take a while.

    Args:
        number: any.
    """
    await asyncio.sleep(0)
    CLOCK[0] += 7.0 + number
    return number


class Caching(ScriptedModel):
    """A model that has a third of every prompt in its cache, and notes what it could have had."""

    def __init__(self, **more: Any) -> None:
        super().__init__(self.answer, **more)
        self.known: dict[int, int] = {}
        self.lost = self.knew = self.found = 0

    async def answer(self, request: ModelRequest) -> Any:
        CLOCK[0] += 0.5
        await asyncio.sleep(0)
        CLOCK[0] += 0.25
        turn = turns_of(request)
        if turn < 2:
            return says("looking", *(call("slow", number=turn + i) for i in range(1 + turn)))
        return "The answer is 42"

    async def generate(self, request: ModelRequest, *more: Any) -> ModelReply:
        reply = await super().generate(request, *more)
        usage = reply["usage"]
        seed = request["sampling"]["seed"]
        usage["cached_tokens"] = usage["prompt_tokens"] // 3
        self.lost += max(0, self.known.get(seed, 0) - usage["cached_tokens"])
        self.knew += self.known.get(seed, 0)
        self.found += usage["cached_tokens"]
        # Nothing was computed from the token that was drawn last.
        self.known[seed] = usage["prompt_tokens"] + usage["completion_tokens"] - 1
        return reply


class Live:
    """The same figures from the events of the controller."""

    def __init__(self) -> None:
        self.busy = self.queued = 0.0
        self.permits = 0
        self.leases: Counter[str] = Counter()
        self.since: dict[tuple[str, str], float] = {}
        self.held: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self.acting: dict[str, list[tuple[float, float]]] = defaultdict(list)

    def take(self, event: JSONObject) -> None:
        at, branch, kind = event["at"], event["branch"], event["event"]
        if kind == "permit_acquired":
            self.queued += event["queued_seconds"]
            self.permits += 1
            self.since["permit", branch] = at
        elif kind == "permit_released":
            self.busy += at - self.since.pop(("permit", branch))
        elif kind == "state":
            if event["from"] == "acting":
                self.acting[branch].append((self.since.pop(("acting", branch)), at))
            if event["to"] == "acting":
                assert ("permit", branch) not in self.since
                self.since["acting", branch] = at
        elif kind.startswith("lease_"):
            self.leases[kind.removeprefix("lease_")] += 1
            if kind in ("lease_taken", "lease_resumed"):
                self.since["lease", branch] = at
            else:
                self.held[branch].append((self.since.pop(("lease", branch)), at))

    def held_seconds(self) -> float:
        return sum(union_seconds(pairs) for pairs in self.held.values())

    def held_acting(self) -> float:
        total = 0.0
        for branch, pairs in self.held.items():
            acting = self.acting[branch]
            together = union_seconds(pairs) + union_seconds(acting)
            total += together - union_seconds([*pairs, *acting])
        return total


async def lived(store: Store, **changes: Any) -> tuple[Utilisation, Live, Workflow, str]:
    live = Live()
    options: dict[str, Any] = {
        "model": Caching(slots=2, context_capacity=1000),
        "tools": [slow],
        "answer": answers.number(),
        "strategy": strategies.sample(4),
        "parallel": 4,
        "budget": Budget(tokens=100_000),
    }
    workflow = Workflow("leased", store=store, **(options | changes))
    controller = Controller(now=lambda: CLOCK[0], on_event=live.take)
    workflow._controllers[asyncio.get_running_loop()] = controller
    run = await workflow.run("How much?", tenant="blue")
    assert run.status == "completed", run.error
    assert not live.since, "something is still held"
    for event in (await store.read(run.id)).events:
        parse_event(event.seq, event.type, event.key, event.body)
    view: Any = controller.view()
    assert view["branches"] == {}
    for backend in view["backends"].values():
        assert (backend["in_use"], backend["waiting"], backend.get("leases", 0)) == (0, 0, 0)
    return utilisation(await store.read(run.id)), live, workflow, run.id


async def test_every_figure_of_the_trace_is_the_live_one(sqlite_store: Store) -> None:
    found, live, workflow, run = await lived(sqlite_store)
    use = found.backends["scripted"]
    assert use.slots == 2
    assert use.permits == live.permits == 12
    assert use.busy_seconds == pytest.approx(live.busy)
    assert use.busy_seconds >= 12 * 0.75
    assert use.queued_seconds == pytest.approx(live.queued)
    assert use.leases == live.leases
    assert use.leases["taken"] == 4
    assert use.leases["taken"] + use.leases["resumed"] == (
        use.leases["ended"] + use.leases["parked"] + use.leases["shed"]
    )
    assert use.lease_seconds == pytest.approx(live.held_seconds())
    assert use.acting_seconds == pytest.approx(live.held_acting())
    assert use.acting_seconds > 0
    model = workflow.definition.models[0]
    assert isinstance(model, Caching)
    assert (use.known_tokens, use.cached_tokens) == (model.knew, model.found)
    assert use.recomputed_tokens == model.lost > 0
    times = workflow._shared_controller().tool_times
    assert 3.9 < times.seen("slow", "2 at once") <= 4
    assert 7.5 < times.seen("slow") <= 8, "one alone, then two at once, in each of four branches"
    again = await workflow.replay(run)
    assert (again.model_calls, again.status) == (0, "completed")


async def test_no_slot_is_held_while_a_tool_runs_and_no_tool_is_generation(
    sqlite_store: Store,
) -> None:
    found, _, _, _ = await lived(sqlite_store)
    assert found.permit_seconds_during_tools == 0
    assert found.tool_seconds_in_generation == 0
    assert set(found.seconds) >= {"model", "tool", "wall"}


async def test_contexts_that_do_not_fit_are_parked_while_their_tools_run(
    sqlite_store: Store,
) -> None:
    model = Caching(slots=1, context_capacity=700)
    found, live, _, _ = await lived(sqlite_store, model=model)
    use = found.backends["scripted"]
    assert use.leases == live.leases
    assert use.leases["parked"] + use.leases["shed"] >= 1
    assert use.leases["resumed"] >= 1
    assert use.lease_seconds == pytest.approx(live.held_seconds())


class Asking:
    """A verifier that asks the model itself, and calls a tool."""

    name = "asking"

    def spec(self) -> JSONObject:
        return {"kind": self.name}

    async def judge(self, candidate: Candidate, context: JudgeContext) -> Verdict:
        await context.tool("slow", {"number": 1})
        await context.model([{"role": "user", "content": "Is it right?"}], seed=99)
        return Verdict(1.0, True)


async def test_what_a_verifier_asks_has_a_lease_for_that_call_alone(sqlite_store: Store) -> None:
    found, live, _, _ = await lived(
        sqlite_store,
        model=Caching(slots=2, context_capacity=50_000),
        verifier=Asking(),
        strategy=strategies.sample(2),
        parallel=2,
    )
    use = found.backends["scripted"]
    assert use.permits == live.permits == 8
    assert use.leases == live.leases
    assert use.leases["taken"] == use.leases["ended"] == 4
    assert use.lease_seconds == pytest.approx(live.held_seconds())
    assert use.acting_seconds == pytest.approx(live.held_acting())
    assert found.permit_seconds_during_tools == 0


async def test_without_a_capacity_there_are_permits_and_no_leases(sqlite_store: Store) -> None:
    found, live, _, _ = await lived(sqlite_store, model=Caching(slots=3))
    use = found.backends["scripted"]
    assert (use.slots, use.permits) == (3, 12)
    assert not use.leases
    assert not live.leases
    assert use.busy_seconds == pytest.approx(live.busy)


async def test_a_backend_that_reports_no_hits_is_not_said_to_forget(sqlite_store: Store) -> None:
    model = ScriptedModel(lambda request: "The answer is 1", context_capacity=1000)
    workflow = Workflow("t", model=model, answer=answers.number(), store=sqlite_store)
    run = await workflow.run("1?")
    found = utilisation(await sqlite_store.read(run.id))
    assert found.backends["scripted"].recomputed_tokens is None


async def test_the_clocks_of_the_run_are_recomputed(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all clocks the test's own; what a run has spent is what it counted while it ran."""
    clocks = SimpleNamespace(time=lambda: 1e9 + CLOCK[0], monotonic=lambda: CLOCK[0])
    for module in (session, earlier, journal):
        monkeypatch.setattr(module, "time", clocks)
    found, _, _, run = await lived(sqlite_store, verifier=Asking())
    spent = run_tree(await sqlite_store.read(run)).spent["seconds"]
    for clock in ("model", "tool", "verify", "queue", "wall"):
        assert found.seconds[clock] == pytest.approx(spent[clock], abs=0.002), clock
    assert found.seconds["tool"] > 10


async def test_deleted_payloads_and_cut_traces_are_read_as_far_as_they_go(
    sqlite_store: Store,
) -> None:
    _, _, _, run = await lived(sqlite_store)
    whole = await sqlite_store.read(run)
    for length in range(whole.length):
        part = Recording(run, whole.run_key)
        part.events, part._bodies = whole.events[:length], whole._bodies
        assert utilisation(part).permit_seconds_during_tools == 0
    ids = [e.body["request"] for e in whole.events if e.type == "effect_finished"]
    await sqlite_store.delete_payloads(run, ids, "asked for")
    found = utilisation(await sqlite_store.read(run))
    assert found.backends["unknown"].permits == 12
    assert found.latencies == utilisation(whole).latencies, "a tombstone is no part of the run"


# -- several runs ----------------------------------------------------------------------------------


async def test_runs_of_one_process_share_its_slots(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four runs side by side, each in attempts of its own: their times are laid on one axis."""
    clocks = SimpleNamespace(time=lambda: 1e9 + CLOCK[0], monotonic=lambda: CLOCK[0])
    for module in (session, earlier, journal):
        monkeypatch.setattr(module, "time", clocks)
    live = Live()
    workflow = Workflow(
        "shared",
        model=Caching(slots=2, context_capacity=2000),
        tools=[slow],
        answer=answers.number(),
        strategy=strategies.sample(2),
        store=sqlite_store,
    )
    controller = Controller(now=lambda: CLOCK[0], on_event=live.take)
    workflow._controllers[asyncio.get_running_loop()] = controller
    begun = CLOCK[0]
    results = []
    for _ in range(2):  # the second two begin later, on the same clock
        asked = (workflow.run("How much?") for _ in range(2))
        results += await asyncio.gather(*asked)
    recordings = [await sqlite_store.read(run.id) for run in results]
    found = utilisation(*recordings)
    use = found.backends["scripted"]
    assert (found.runs, len(found.latencies)) == (4, 4)
    assert found.period == pytest.approx((1e9 + begun, 1e9 + CLOCK[0]))
    assert use.permits == use.calls == live.permits == 24
    assert use.busy_seconds == pytest.approx(live.busy)
    assert use.leases == live.leases
    assert use.lease_seconds == pytest.approx(live.held_seconds())
    assert use.at_once == use.slots == 2, "never more than there are, though runs overlap"
    assert use.share == pytest.approx(live.busy / 2 / found.period_seconds)
    each = [utilisation(one) for one in recordings]
    assert found.seconds["tool"] == pytest.approx(sum(one.seconds["tool"] for one in each))
    assert use.recomputed_tokens == sum(
        one.backends["scripted"].recomputed_tokens or 0 for one in each
    )
    assert (found.permit_seconds_during_tools, found.tool_seconds_in_generation) == (0, 0)


def recorded(owner: str, attempts: list[tuple[float, list[float]]]) -> SimulatedRun:
    """A run whose attempts begin at a time each and have one permit."""
    run = SimulatedRun(0, attempts[0][0])
    run.events[1].body["owner"] = owner
    for number, (begun, (granted, released)) in enumerate(attempts, 1):
        if number > 1:
            body = {"at": begun, "attempt": number, "owner": f"{owner}:{number}"}
            run.events.append(Event(0, "attempt_started", "", body, ""))
            run.began = begun
        clock = (begun + granted, begun + granted, begun + released)
        permit = (begun + granted, begun + granted, begun + released, 2)
        run.generated(clock, [permit], {"prompt_tokens": 9, "calls": 1}, 0)
    run.ended(attempts[-1][0] + attempts[-1][1][1])
    return run


def test_attempts_and_processes_are_told_apart() -> None:
    one = recorded("a", [(100.0, [0.0, 10.0]), (200.0, [5.0, 10.0])])
    other = recorded("b", [(105.0, [0.0, 10.0])])
    found = utilisation(one, other)
    use = found.backends["virtual"]
    assert use.at_once == 2, "the first of one, and the only one of the other"
    assert use.busy_seconds == 25
    # three processes had two slots each, for ten seconds each; nobody had any in between
    assert use.share == pytest.approx(25 / (3 * 10 * 2))
    assert found.period == (100.0, 210.0)
    assert found.latencies == [10.0, 110.0]
    same = utilisation(recorded("a", [(100.0, [0.0, 10.0])]), recorded("a", [(105.0, [0.0, 10.0])]))
    assert same.backends["virtual"].share == pytest.approx(20 / (15 * 2)), "the slots are shared"
    apart = utilisation(
        recorded("a", [(100.0, [0.0, 10.0])]), recorded("a", [(110.0, [0.0, 10.0])])
    )
    assert apart.backends["virtual"].at_once == 1


def test_nothing_at_all_is_used_by_no_runs() -> None:
    assert utilisation().to_json()["runs"] == 0
    assert utilisation().runs_per_second == 0


async def test_times_count_from_the_first_event_of_their_attempt(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three seconds pass between that event and the first step of the run."""
    monkeypatch.setattr(journal, "time", SimpleNamespace(time=lambda: 1e9 + CLOCK[0]))
    later = SimpleNamespace(time=lambda: 1e9 + 3 + CLOCK[0], monotonic=lambda: CLOCK[0])
    monkeypatch.setattr(earlier, "time", later)
    _, _, _, run = await lived(sqlite_store)
    events = (await sqlite_store.read(run)).events
    permits = [pair for event in events for pair in event.body.get("permits", ())]
    assert min(asked for asked, *_ in permits) == 3
