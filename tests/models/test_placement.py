"""Which endpoint a call goes to: the rule on any state, and branches that stay at real servers."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.protocol_server import ProtocolServer, protocol_server
from longthought import Store, Usage, Workflow, strategies, tool
from longthought.budgets import Controller
from longthought.errors import InvalidInput
from longthought.orchestrator.definition import Retry
from longthought.orchestrator.models import BackendSettings, Failover, OpenAIModel, resolve_model
from longthought.orchestrator.models.placement import SLACK, Holdings, Standing, ranked
from longthought.orchestrator.models.scheduling import tell_scheduling
from longthought.orchestrator.models.scripted import ScriptedModel
from longthought.orchestrator.recorded import Recorded
from longthought.orchestrator.seats import Seats, introduce
from longthought.types import Scheduling
from tests.executor.workflows import add
from tests.models.strangers import stranger
from tests.models.test_failover import Clock, Endpoint, both, down, end

REQUEST: Any = {"model": "m", "messages": [{"role": "user", "content": "?"}]}

# -- the rule -----------------------------------------------------------------------------------


def standings(*in_flight: int | None, slots: int = 8) -> list[Standing]:
    """Endpoints with so many calls; None is one that is out."""
    return [Standing(count is not None, count or 0, slots) for count in in_flight]


@pytest.mark.parametrize(
    ("state", "home", "kin", "order"),
    [
        (standings(0, 0), None, [], [0, 1]),  # the first listed of equals
        (standings(3, 1), None, [], [1, 0]),
        (standings(7, 0), 0, [], [0, 1]),  # it has a free slot
        (standings(8, 5), 0, [], [0, 1]),  # a wait, and not a long one
        (standings(8, 4), 0, [], [0, 1]),
        (standings(8, 3), 0, [], [1, 0]),  # the other is more than half a set of slots emptier
        (standings(20, 16), 0, [], [0, 1]),  # both have a queue
        (standings(None, 3), 0, [0], [1]),  # it is out
        (standings(2, 2, 2), None, [2], [2, 0, 1]),  # where the run's beginning is
        (standings(4, 0), None, [0], [0, 1]),
        (standings(5, 0), None, [0], [1, 0]),
        (standings(5, 4, 0), None, [0, 1], [1, 2, 0]),  # of several the least loaded
        (standings(0, 8, 1), 1, [1, 2], [2, 0, 1]),  # the home is full: next to its kin
        (standings(None, None), 0, [0], []),
        (standings(5), 0, [], [0]),
        ([], None, [], []),
    ],
)
def test_the_rule(state, home, kin, order):
    assert ranked(state, home, kin) == order


STANDINGS = st.lists(
    st.builds(Standing, st.booleans(), st.integers(0, 40), st.integers(1, 16)),
    min_size=1,
    max_size=6,
)
PLACES = st.integers(0, 5)


@given(STANDINGS, st.none() | PLACES, st.sets(PLACES))
def test_on_any_state(state, home, kin):
    kin = {place for place in kin if place < len(state)}
    home = home if home is not None and home < len(state) else None
    order = ranked(state, home, kin)
    open_ones = [place for place, standing in enumerate(state) if standing.open]
    assert sorted(order) == open_ones  # each that is open, once, and no other
    if not order:
        return
    least = min(state[place].load for place in open_ones)
    chosen, standing = order[0], state[order[0]]
    # nobody queues for the sake of a prefix while another is much emptier
    assert standing.load <= least + SLACK or (
        chosen == home and standing.in_flight < standing.slots
    )
    if chosen != home and chosen not in kin:
        assert standing.load == least
        assert not [one for one in kin & set(open_ones) if state[one].load <= least + SLACK]
    if home in open_ones and state[home].in_flight < state[home].slots:
        assert chosen == home
    assert order[1:] == sorted(order[1:], key=lambda place: state[place].load)
    assert ranked(state) == sorted(open_ones, key=lambda place: state[place].load)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["served", "served", "served", "lost"]),
        st.integers(0, 9),
        st.integers(0, 2),
    ),
    max_size=60,
)


@given(STEPS, st.integers(1, 6))
def test_what_is_held_is_what_was_served_last_and_not_lost(steps, most):
    holdings = Holdings(3, most)
    last: dict[str, int] = {}
    for step, number, place in steps:
        branch, run = f"b{number}", f"r{number % 4}"
        if step == "lost":
            holdings.lost(place)
            last = {one: at for one, at in last.items() if at != place}
        else:
            holdings.served(run, branch, place)
            last.pop(branch, None)
            last[branch] = place
            assert holdings.home(branch) == place
            assert place in holdings.kin(run)
            assert holdings.held(run, branch, place) == "branch"
            assert holdings.held(run, "another", place) == "run"
        for one in [f"b{number}" for number in range(10)]:
            assert holdings.home(one) in (None, last.get(one))
    assert len(holdings._homes) <= most
    assert len(holdings._kin) <= most


# -- calls --------------------------------------------------------------------------------------


async def begin(model: Failover, run: str, branch: str) -> asyncio.Task[Any]:
    async def call() -> Any:
        tell_scheduling(Scheduling(run, branch))
        turn = model.try_turn(10)
        try:
            return await model.generate(REQUEST, None)  # type: ignore[arg-type]
        finally:
            if turn is not None:
                turn.end()

    task = asyncio.create_task(call())
    await asyncio.sleep(0)
    return task


def placed(model: Failover) -> list[dict[str, int]]:
    return [one["placed"] for one in model.status()]


async def test_a_branch_goes_back_to_where_it_was_served():
    first, second = Endpoint(slots=2), Endpoint(slots=2)
    model = both(first, second)
    one, other = await begin(model, "a", "a/1"), await begin(model, "b", "b/1")
    assert (first.calls, second.calls) == (1, 1)
    await end(one, first)
    for _ in range(3):  # the first is emptier, and listed first
        await end(other, second)
        other = await begin(model, "b", "b/1")
    assert (first.calls, second.calls) == (1, 4)
    await end(other, second)
    assert placed(model) == [{"nothing": 1}, {"nothing": 1, "branch": 3}]


async def test_siblings_go_where_their_beginning_is_until_that_is_much_fuller():
    first, second = Endpoint(slots=4), Endpoint(slots=4)
    model = both(first, second)
    tasks = [await begin(model, "a", f"a/{number}") for number in range(3)]
    assert (first.calls, second.calls) == (3, 0)
    tasks.append(await begin(model, "a", "a/3"))
    assert (first.calls, second.calls) == (3, 1)
    assert placed(model) == [{"nothing": 1, "run": 2}, {"nothing": 1}]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert [one["in_flight"] for one in model.status()] == [0, 0]


async def test_a_branch_moves_when_its_endpoint_goes_and_stays_where_it_went():
    first, second = Endpoint(), Endpoint()
    clock = Clock()
    model = both(first, second, clock=clock)
    await end(await begin(model, "a", "a/1"), first)
    gone = down(status=None)
    assert await end(await begin(model, "a", "a/1"), first, gone) is gone
    await end(await begin(model, "a", "a/1"), second)
    clock.now += 100.0
    await end(await begin(model, "a", "a/1"), second)
    await end(await begin(model, "b", "b/1"), first)
    assert (first.calls, second.calls) == (3, 2)


async def test_an_endpoint_that_was_gone_holds_nothing_any_more():
    first, second = Endpoint(slots=4), Endpoint(slots=4)
    clock = Clock()
    model = both(first, second, clock=clock)
    await end(await begin(model, "a", "a/1"), first)
    await end(await begin(model, "b", "b/1"), first, down(status=None))
    clock.now += 100.0
    await end(await begin(model, "b", "b/2"), first)  # it is back
    await end(await begin(model, "a", "a/1"), first)
    assert placed(model)[0] == {"nothing": 4}


async def test_one_that_wants_no_calls_for_a_while_still_holds_what_it_held():
    first, second = Endpoint(slots=4), Endpoint(slots=4)
    clock = Clock()
    model = both(first, second, clock=clock)
    await end(await begin(model, "a", "a/1"), first)
    await end(await begin(model, "b", "b/1"), first, down(status=429))
    clock.now += 100.0
    await end(await begin(model, "a", "a/1"), first)
    assert placed(model)[0] == {"nothing": 2, "branch": 1}


async def test_by_load_nothing_is_held():
    first, second = Endpoint(slots=2), Endpoint(slots=2)
    model = both(first, second, placement="load")
    assert not model.takes_scheduling
    one, other = await begin(model, "a", "a/1"), await begin(model, "b", "b/1")
    await end(one, first)
    await end(other, second)
    await end(await begin(model, "b", "b/1"), first)
    assert placed(model) == [{}, {}]


def test_a_single_endpoint_needs_no_placing():
    assert not both(Endpoint()).takes_scheduling
    with pytest.raises(InvalidInput, match=r"placement: there is no 'order'\. Use"):
        both(Endpoint(), placement="order")


def test_what_an_endpoint_wants_to_know_is_told():
    endpoints = [Endpoint(), Endpoint()]
    endpoints[1].takes_scheduling = True  # type: ignore[attr-defined]
    assert both(*endpoints, placement="load").takes_scheduling


def test_several_threads_share_it():
    model = both(*(Endpoint(slots=3) for _ in range(3)))
    problems: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(200):
                tell_scheduling(Scheduling(f"r{number}", f"r{number}/{turn % 5}"))
                taken = model.try_turn(1)
                assert taken is not None
                taken.end()
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert [one["in_flight"] for one in model.status()] == [0, 0, 0]


# -- real servers and real runs -----------------------------------------------------------------


@pytest.fixture
async def store(tmp_path) -> AsyncIterator[Store]:
    async with Store(f"sqlite:///{tmp_path}/runs.db", directory=tmp_path) as opened:
        yield opened


def workflow_of(model: Any, store: Store, tools: Any, samples: int = 1) -> Workflow:
    return Workflow(
        "farm",
        model=model,
        tools=tools,
        strategy=strategies.sample(samples),
        store=store,
        retry=Retry(base=0.01),
    )


async def solved(model: Any, store: Store, question: str, samples: int = 1) -> Any:
    return await workflow_of(model, store, [add], samples).run(question)


def found(servers: list[ProtocolServer]) -> tuple[int, int]:
    """Calls that go on with a conversation, and those that found it where they came.

    The question names the run: the conversations of one branch of it are told by that.
    """
    homes: dict[str, dict[int, int]] = defaultdict(dict)
    going_on = hits = 0
    calls = [
        (len(body["messages"]), body["messages"][0]["content"], place)
        for place, server in enumerate(servers)
        for body in list(server.received)
    ]
    for length, question, place in sorted(calls):
        if homes[question]:
            going_on += 1
            hits += homes[question][max(homes[question])] == place
        homes[question][length] = place
    return going_on, hits


async def test_every_step_of_a_run_finds_what_the_last_one_left(store):
    with protocol_server() as first, protocol_server() as second:
        servers = [first, second]
        urls = [one.address("t4") for one in servers]
        model = resolve_model("farm/toy", backends={"farm": BackendSettings(base_urls=urls)})
        assert isinstance(model, Failover)
        for number in range(3):
            assert (await solved(model, store, f"Run {number}?")).status == "completed"
        await model.aclose()
    assert (first.counts["calls"], second.counts["calls"]) == (15, 0)
    assert found(servers) == (12, 12)
    assert placed(model) == [{"nothing": 3, "branch": 12}, {}]


async def test_the_beginning_that_samples_share_is_read_once(store):
    with protocol_server() as first, protocol_server() as second:
        model = Failover(
            [OpenAIModel("toy", base_url=one.address("t2"), slots=8) for one in (first, second)]
        )
        run = await solved(model, store, "How many?", 4)
        await model.aclose()
    assert run.support["samples"] == 4
    assert (first.counts["calls"], second.counts["calls"]) == (12, 0)
    assert model.status()[0]["placed"] == {"nothing": 1, "run": 3, "branch": 8}


async def test_a_run_goes_on_elsewhere_when_its_server_dies(store):
    with ExitStack() as dying, protocol_server() as lives:
        dies = dying.enter_context(protocol_server())
        endpoints = [
            OpenAIModel("toy", base_url=one.address("t3"), slots=4, stream=False)
            for one in (dies, lives)
        ]
        model = Failover(endpoints)

        @tool(effect="pure", name="add")
        async def fatal(a: int, b: int) -> int:
            """Add two numbers; the second time the server dies of it."""
            if dies.counts["calls"] == 2:
                dying.close()
            return a + b

        workflow = workflow_of(model, store, [fatal])
        run = await workflow.run("How many?")
        await workflow.aclose()
    assert run.status == "completed"
    assert (dies.counts["calls"], lives.counts["calls"]) == (2, 2)
    assert model.status()[1]["placed"] == {"nothing": 1, "branch": 1}


async def test_each_endpoint_is_sent_its_parameters(granted):
    with stranger() as first, stranger() as second:
        settings = BackendSettings(
            kind="sglang", base_urls=[first.url, second.url], slots=1, priority=True
        )
        model = resolve_model("farm/toy", backends={"farm": settings})
        assert isinstance(model, Failover)
        both_placed = asyncio.Event()

        async def call(branch: str, resumed: bool) -> None:
            tell_scheduling(Scheduling("a", branch, resumed, since=2.0**40))
            turn = model.try_turn(10)
            assert turn is not None
            await both_placed.wait()
            await model.generate(REQUEST, granted(9))
            turn.end()

        calls = [asyncio.create_task(call("a/1", False)), asyncio.create_task(call("a/2", True))]
        while [one["in_flight"] for one in model.status()] != [1, 1]:
            await asyncio.sleep(0)
        both_placed.set()
        await asyncio.gather(*calls)
        await model.aclose()
    bodies = [one.asked[0][2] for one in (first, second)]
    assert [body["priority"] for body in bodies] == [0, 4]


async def test_nothing_of_it_is_in_a_trace(store):
    with stranger() as first, stranger() as second:
        for one in (first, second):
            one.cannot = {"tools"}
        urls = [first.url, second.url]
        made = [OpenAIModel("toy", base_url=url, slots=4) for url in urls]
        run = await solved(Failover(made), store, "How many?", 4)
    recording = await store.read(run.id)
    assert "placed" not in json.dumps([event.body for event in recording.events])
    workflow = workflow_of(Failover(made, placement="load"), store, [add], 4)
    assert (await workflow.replay(run.id)).model_calls == 0


@pytest.mark.parametrize(("endpoints", "capacity"), [(1, 30_000), (2, 70_000)])
async def test_a_miss_makes_the_memory_of_one_endpoint_smaller(endpoints, capacity):
    """What one server did not find says nothing of how much another keeps."""
    each = [ScriptedModel(lambda _: "x", context_capacity=40_000) for _ in range(endpoints)]
    model, controller = Failover(each), Controller()
    introduce(controller, [model])
    seats = Seats(controller, "r", Recorded())
    seat = seats.at("/s0")
    for cached in (0, 2_900, 0):  # it is found, then forgotten, or another server was asked
        ask = seats.ask(seat, model, "", ["a"], 3_000, exact=True)
        async with ask.permit:
            used = Usage(prompt_tokens=3_000, completion_tokens=1, cached_tokens=cached)
            seats.used(ask, used, model, controller.now())
        seats.mark(ask, ["a"], "b")
    assert controller.view()["backends"]["scripted"]["capacity"] == capacity
    seats.release()
