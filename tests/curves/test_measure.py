"""A whole measurement on a real store: drawn once, read again, right where it can be counted."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import Any

import pytest

from longthought import Budget, Store, strategies, verifiers
from longthought.budgets import PriceBook
from longthought.errors import InvalidInput, QuestionRefused, RunBusy, UnpricedModel
from longthought.orchestrator.curves import Curve, Live, Plan, Sampled, measure, puzzles, setup_for
from longthought.orchestrator.curves.bank import read_samples
from longthought.orchestrator.curves.runs import PlannedRuns
from longthought.orchestrator.curves.ways import bank_plan
from longthought.orchestrator.models import ScriptedModel, says
from tests.curves.scripted import asked, model, number_of, questions, setup

GOLD = {"a?": "1", "b?": "2", "c?": "3"}
TABLE = {
    "a?": ["1", "1", "1", "9"],
    "b?": ["8", "2", "8", "2"],
    "c?": ["7", "", "!", "7"],
}


async def curve(store: Store, table: Any = None, **options: Any) -> tuple[Curve, ScriptedModel]:
    chosen = options.pop("model", None) or model(table or TABLE)
    own = {"samples": 4, "strategies": ("single", "majority", "pass"), **options}
    limits = own.pop("setup", {})
    measured = await measure(questions(GOLD), setup(chosen, **limits), store, **own)
    return measured, chosen


async def test_a_curve_that_can_be_counted_by_hand(store: Store) -> None:
    measured, chosen = await curve(store, resamples=500)
    assert chosen.calls == 12
    accuracy = {(line.name, p.size): p.accuracy for line, p in measured.rows()}
    # one sample: 3/4, 2/4 and 0/4 are right
    assert accuracy["single", 1] == pytest.approx((3 / 4 + 2 / 4) / 3)
    assert accuracy["majority", 1] == accuracy["single", 1] == accuracy["pass", 1]
    # two: a? ties 1 to 9 in half of the pairs and the first one wins, so it is 3/4; so is b?'s 1/2
    assert accuracy["majority", 2] == pytest.approx((3 / 4 + 1 / 2) / 3, abs=0.05)
    assert accuracy["pass", 2] == pytest.approx((1 + (1 - 1 / 6)) / 3)
    # all four: a? is right, b? is a tie that the first sample decides, half the time
    assert accuracy["majority", 4] == pytest.approx((1 + 1 / 2) / 3)
    assert accuracy["pass", 4] == pytest.approx(2 / 3)
    assert [line.kind for line in measured.lines] == ["sampled", "sampled", "oracle"]
    assert [q.right for q in measured.questions] == [3, 2, 0]
    assert measured.failed_samples == 1
    for _, point in measured.rows():
        assert point.low <= point.accuracy <= point.high
        assert point.cost.samples == point.size
    assert measured.spent["model_calls"] == 12


async def test_what_is_there_is_read_and_not_drawn_again(store: Store) -> None:
    seen: list[Any] = []
    first, chosen = await curve(store, tell=seen.append)
    assert (seen[0].done, seen[-1].done, seen[-1].total, seen[-1].read) == (0, 3, 3, 0)
    again, other = await curve(store, tell=seen.append)
    assert (chosen.calls, other.calls, seen[-1].read) == (12, 0, 3)
    assert again == first
    assert json.loads(json.dumps(again.to_json())) == again.to_json()


@pytest.mark.parametrize(
    "change",
    [
        {"samples": 3},
        {"seed": 1},
        {"setup": {"sampling": {"temperature": 0.5}}},
        {"setup": {"system": "Be brief."}},
        {"model": model(TABLE, name="another")},
        {"setup": {"verifier": verifiers.number()}},
    ],
)
async def test_a_changed_setting_is_another_bank(
    sqlite_store: Store, change: dict[str, Any]
) -> None:
    await curve(sqlite_store)
    _, changed = await curve(sqlite_store, **change)
    assert changed.calls >= 9


async def test_more_questions_draw_only_what_is_new(sqlite_store: Store) -> None:
    chosen = model(TABLE)
    few = questions({"a?": "1"})
    await measure(few, setup(chosen), sqlite_store, samples=4, strategies=["majority"])
    await measure(questions(GOLD), setup(chosen), sqlite_store, samples=4, strategies=["majority"])
    assert chosen.calls == 12


async def test_only_what_is_verified_profits_from_verdicts(sqlite_store: Store) -> None:
    def passes(answer: str) -> bool:
        return answer in ("1", "2", "3")

    measured, _ = await curve(
        sqlite_store,
        setup={"verifier": verifiers.callable(lambda c: passes(c.answer or ""))},
        strategies=("majority", "best-of", "weighted"),
    )
    at = {line.name: line.at(4) for line in measured.lines}
    assert at["majority"].accuracy == pytest.approx(0.5)
    assert at["best-of"].accuracy == at["weighted"].accuracy == pytest.approx(2 / 3)
    [difference] = [d for d in measured.differences_at(4) if {d.a, d.b} == {"best-of", "weighted"}]
    assert (difference.band.mean, difference.band.low, difference.band.high) == (0, 0, 0)


async def test_live_ways_are_runs_of_their_own(sqlite_store: Store) -> None:
    def script(request: Any) -> Any:
        if request["sampling"].get("temperature") == 0.0:
            return "3"
        if request.get("tools") and len(request["messages"]) == 1:
            return says(
                None, {"id": "", "name": "calculator", "arguments": '{"expression": "1+1"}'}
            )
        return "2"

    chosen = ScriptedModel(script)
    own = Live("patient", "patient", Plan("patient", strategies.sample(2), options={}), size=2)
    words = ("single", "greedy", "tools", own)
    measured, _ = await curve(sqlite_store, model=chosen, samples=2, strategies=words)
    assert {line.name: line.points[0].accuracy for line in measured.lines} == {
        "single": pytest.approx(1 / 3),
        "greedy": pytest.approx(1 / 3),
        "tools": pytest.approx(1 / 3),
        "patient": pytest.approx(1 / 3),
    }
    assert {line.name: line.kind for line in measured.lines}["greedy"] == "live"
    costs = {line.name: line.points[0].cost for line in measured.lines}
    assert (costs["tools"].calls, costs["tools"].samples, costs["patient"].samples) == (2, 1, 2)
    calls = chosen.calls
    assert calls == 3 * (2 + 1 + 2 + 2)
    again, _ = await curve(sqlite_store, model=chosen, samples=2, strategies=words)
    assert (chosen.calls, again) == (calls, measured)
    pairs = {(d.a, d.b, d.size) for d in measured.differences}
    assert ("single", "greedy", 1) in pairs
    assert set(measured.questions[0].runs) == {"bank", "greedy", "tools", "patient"}


async def test_live_ways_alone_draw_no_bank(sqlite_store: Store) -> None:
    measured, chosen = await curve(sqlite_store, strategies=("greedy",), samples=4)
    assert chosen.calls == len(GOLD)
    assert [line.name for line in measured.lines] == ["greedy"]
    assert [(q.right, q.samples, list(q.runs)) for q in measured.questions] == [
        (0, 0, ["greedy"]) for _ in GOLD
    ]
    chosen_set = puzzles(2)
    alone = await measure(
        chosen_set,
        setup_for(chosen_set, model({q.text: ["?"] for q in chosen_set.questions})),
        sqlite_store,
        strategies=["greedy"],
    )
    luck = alone.line("random legal play").points[-1]
    assert (luck.size, luck.at.tokens) == (16, 0)


async def test_runs_of_a_task_say_how_they_are_replayed(sqlite_store: Store) -> None:
    from longthought.orchestrator.cli.options import workflow_of
    from longthought.orchestrator.cli.settings import Settings
    from longthought.orchestrator.models.embedded import EmbeddedModel

    drawn = puzzles(2)
    chosen = EmbeddedModel()
    words = ("majority", "greedy", "direct", "tools", "backtrack:2")
    measured = await measure(
        drawn, setup_for(drawn, chosen), sqlite_store, strategies=words, samples=2
    )
    await chosen.aclose()
    for run in measured.questions[0].runs.values():
        recording = await sqlite_store.read(run)
        made = workflow_of(recording.manifest(), Settings(), sqlite_store)
        assert made.definition.fingerprint() == recording.events[0].body["fingerprint"]
        replayed = await made.replay(run)
        assert (replayed.model_calls, replayed.tool_calls) == (0, 0)
        await made.aclose()


async def test_a_policy_of_your_own(sqlite_store: Store) -> None:
    cautious = Sampled(
        "cautious", "cautious vote", lambda n: strategies.sample(n, stop=strategies.beta(0.99))
    )
    measured, _ = await curve(sqlite_store, strategies=[cautious, "majority@2", "majority@4"])
    assert [(line.name, len(line.points)) for line in measured.lines] == [
        ("cautious", 3),
        ("majority", 2),
    ]


async def test_an_oracle_verifier_makes_an_oracle(sqlite_store: Store) -> None:
    knowing = verifiers.callable(lambda candidate: True)
    knowing.spec = lambda: {"kind": "callable", "oracle": True}  # type: ignore[method-assign]
    measured, _ = await curve(
        sqlite_store, setup={"verifier": knowing}, strategies=("majority", "best-of")
    )
    assert [line.kind for line in measured.lines] == ["sampled", "oracle"]
    assert not measured.differences


# -- what goes wrong ----------------------------------------------------------------------------


async def test_a_question_without_a_sample_counts_as_wrong(sqlite_store: Store) -> None:
    table = {**TABLE, "a?": ["!"] * 4}
    measured, _ = await curve(sqlite_store, table)
    [lost] = measured.unanswered
    assert (lost.question, lost.way) == ("q0", "bank")
    assert "the server said no" in lost.problem
    assert measured.line("pass").at(4).accuracy == pytest.approx(1 / 3)  # type: ignore[union-attr]


async def test_a_question_that_is_refused_leaves_the_others_alone(sqlite_store: Store) -> None:
    def script(request: Any) -> str:
        if asked(request) == "b?":
            raise QuestionRefused("question", "not b", "Ask another")
        return "1"

    chosen = ScriptedModel(script)
    measured, _ = await curve(sqlite_store, model=chosen)
    assert [(one.question, "not b" in one.problem) for one in measured.unanswered] == [("q1", True)]
    assert measured.line("single").points[0].accuracy == pytest.approx(1 / 3)
    calls = chosen.calls
    assert await curve(sqlite_store, model=chosen) == (measured, chosen)
    assert chosen.calls == calls

    def refuse(_request: Any) -> str:
        raise QuestionRefused("question", "nothing at all", "Ask another")

    for _ in range(2):
        with pytest.raises(InvalidInput, match=r"none can be asked: .*nothing at all"):
            await curve(sqlite_store, model=ScriptedModel(refuse, name="deaf"))


async def test_a_pool_is_kept_and_raising_it_goes_on(sqlite_store: Store) -> None:
    whole, _ = await curve(sqlite_store, seed=5)
    tokens = whole.spent["tokens"]
    chosen = model(TABLE, name="pooled")
    short, _ = await curve(sqlite_store, model=chosen, pool=Budget(tokens=tokens // 2), at_once=1)
    assert short.spent["tokens"] <= tokens // 2
    assert short.unanswered
    assert all("tokens" in one.problem for one in short.unanswered)
    calls = chosen.calls
    same, _ = await curve(sqlite_store, model=chosen, pool=Budget(tokens=tokens // 2), at_once=1)
    assert chosen.calls == calls  # what was spent before counts
    assert same.unanswered == short.unanswered
    more = Budget(tokens=tokens * 50)
    full, _ = await curve(sqlite_store, model=chosen, pool=more)
    assert not full.unanswered
    assert chosen.calls <= 12 + 4  # a sample that was cut short is drawn anew


async def test_a_pool_that_is_used_up_begins_nothing(sqlite_store: Store) -> None:
    chosen = model(TABLE)
    few = questions({"a?": "1"})
    own = {"samples": 4, "strategies": ["majority"]}
    drawn = await measure(few, setup(chosen), sqlite_store, **own)  # type: ignore[arg-type]
    calls = chosen.calls
    pool = Budget(tokens=drawn.spent["tokens"])
    measured, _ = await curve(sqlite_store, model=chosen, pool=pool)
    assert chosen.calls == calls
    assert len(await sqlite_store.list_runs()) == 1
    assert [one.problem for one in measured.unanswered] == ["never begun, out of tokens"] * 2
    assert measured.line("pass").at(4).accuracy == pytest.approx(1 / 3)  # type: ignore[union-attr]


async def test_a_limit_on_each_question(sqlite_store: Store) -> None:
    measured, _ = await curve(sqlite_store, setup={"budget": Budget(tokens=20)})
    assert len(measured.unanswered) == 3
    assert {one.problem for one in measured.unanswered} == {"out of tokens"}
    better, _ = await curve(sqlite_store, setup={"budget": Budget(tokens=20_000)})
    assert not better.unanswered


async def test_dollars_are_counted_and_need_a_price(sqlite_store: Store) -> None:
    class Remote(ScriptedModel):
        def fingerprint(self) -> Any:
            return {**super().fingerprint(), "kind": "remote"}

    remote = Remote(lambda request: TABLE[asked(request)][0], name="far")
    with pytest.raises(UnpricedModel):
        await curve(sqlite_store, model=remote, pool=Budget(usd=1))
    book = PriceBook.load().extended({"far": {"input": 1, "output": 2}})
    own = {"prices": book}
    measured, _ = await curve(sqlite_store, model=remote, setup=own, pool=Budget(usd="0.5"))
    assert measured.spent["usd"] > 0
    assert measured.line("single").points[0].cost.usd > 0


async def test_another_process_at_the_same_curve_is_named(sqlite_store: Store) -> None:
    held = asyncio.Event()
    going = asyncio.Event()

    async def script(request: Any) -> str:
        going.set()
        await held.wait()
        return "1"

    first = asyncio.create_task(curve(sqlite_store, model=ScriptedModel(script)))
    await going.wait()
    with pytest.raises(RunBusy):
        await curve(sqlite_store, model=ScriptedModel(script))
    held.set()
    measured, _ = await first
    assert not measured.unanswered


async def test_what_another_process_has_begun_meanwhile_is_read(sqlite_store: Store) -> None:
    asked_of, chosen = questions(GOLD), model(TABLE)
    own = setup(chosen)
    read = partial(read_samples, count=4)
    late = PlannedRuns(bank_plan(4, False), own, asked_of.questions, sqlite_store, read, seed=0)
    await late.look()  # nothing is there yet
    await curve(sqlite_store, model=chosen)
    calls = chosen.calls
    banked = await late.complete(2)
    assert [len(one.value.draws) for one in banked] == [4, 4, 4]
    assert chosen.calls == calls


async def test_a_cancelled_measurement_goes_on(sqlite_store: Store) -> None:
    going = asyncio.Event()

    async def script(request: Any) -> str:
        if number_of(request) == 3 and not going.is_set():
            going.set()
            await asyncio.Event().wait()
        return TABLE[asked(request)][number_of(request)].replace("!", "") or "none"

    chosen = ScriptedModel(script)
    task = asyncio.create_task(curve(sqlite_store, model=chosen, at_once=1))
    await going.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    statuses = {row.status for row in await sqlite_store.list_runs()}
    assert "running" not in statuses
    measured, _ = await curve(sqlite_store, model=chosen)
    assert chosen.calls <= 12 + 4
    assert measured.questions[0].right == 3


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("voting", "there is no 'voting'.*Use single, majority"),
        ("best-of", "best-of needs a verifier"),
        ("backtrack", "backtrack needs a verifier"),
        ("majority@8", r"majority@8 needs more than 4 samples.*--samples 8"),
        ("majority@x", "'x' is no number"),
        ("greedy@4", "has no sizes"),
        ("beta:much", "cannot be read"),
        ("beta:0.2", "no probability"),
        ("best-of:0", "is no number"),
        ("", "there is no ''"),
    ],
)
async def test_words_that_name_no_strategy(sqlite_store: Store, words: str, problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem):
        await curve(sqlite_store, strategies=[words])


async def test_nothing_to_draw(sqlite_store: Store) -> None:
    with pytest.raises(InvalidInput, match="0 is too few"):
        await curve(sqlite_store, samples=0)
