"""Policies are pure folds: the same inputs in the same order give the same asks."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longthought import strategies
from longthought.errors import InvalidInput
from longthought.orchestrator.strategies import Ask, Policy
from longthought.orchestrator.strategies.stoppers import lead_probability

POLICIES: dict[str, Policy] = {
    "single": strategies.single(),
    "majority": strategies.sample(9),
    "beta": strategies.sample(12, stop=strategies.beta(0.95)),
    "best of": strategies.best_of(7, wave=3),
    "weighted": strategies.sample(6, wave=2, select=strategies.weighted()),
    "fallback": strategies.sample(5, select=strategies.majority(fallback=True)),
    "backtrack": strategies.backtrack(width=2, depth=4, steps=40),
    "restarts": strategies.backtrack(width=2, depth=3, steps=60, restarts=2),
}

OUTCOME = st.fixed_dictionaries(
    {
        "status": st.sampled_from(["finished", "finished", "finished", "failed", "exhausted"]),
        "answer": st.sampled_from([None, "1", "2", "3"]),
        "final": st.booleans(),
        "passed": st.sampled_from([None, True, False]),
    }
)


def outcome_of(ask: Ask, drawn: dict[str, Any]) -> dict[str, Any]:
    finished = drawn["status"] == "finished"
    return {
        "type": "told",
        "ask": ask.id,
        "status": drawn["status"],
        "answer": drawn["answer"] if finished else None,
        "final": drawn["final"],
        "passed": drawn["passed"] if finished else None,
        "score": {None: 0.5, True: 1.0, False: 0.0}[drawn["passed"]] if finished else None,
        "tokens": 10,
    }


@pytest.mark.parametrize("name", list(POLICIES))
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_policy_is_a_fold_that_ends(name: str, data: st.DataObject) -> None:
    """Random rooms, orders and outcomes: it ends, asks distinct things and replays exactly."""
    policy = POLICIES[name]
    inputs: list[tuple[str, Any]] = []
    state = policy.start("q", 5)
    live: list[Ask] = []
    seen: set[str] = set()
    pick = policy.done(state)
    for _ in range(400):
        if pick is not None:
            break
        room = data.draw(st.integers(1, 6))
        asks = policy.ask(state, room)
        inputs.append(("ask", (room, [ask.id for ask in asks])))
        assert len(asks) <= room
        assert not {ask.id for ask in asks} & seen
        seen.update(ask.id for ask in asks)
        live += asks
        state = json.loads(json.dumps(state))  # a state is JSON, whole
        if not live:
            outcome: dict[str, Any] = {"type": "exhausted", "scope": "run", "kind": "tokens"}
        else:
            ask = live.pop(data.draw(st.integers(0, len(live) - 1)))
            outcome = outcome_of(ask, data.draw(OUTCOME))
        inputs.append(("tell", outcome))
        policy.tell(state, outcome)
        pick = policy.done(state)
    assert pick is not None
    assert pick.ask is None or pick.ask in seen
    again = policy.start("q", 5)
    for kind, value in inputs:
        if kind == "ask":
            assert [ask.id for ask in policy.ask(again, value[0])] == value[1]
        else:
            policy.tell(again, value)
    assert policy.done(again) == pick
    assert json.dumps(again, sort_keys=True) == json.dumps(state, sort_keys=True)


def tell_all(policy: Policy, outcomes: list[dict[str, Any]]) -> Any:
    state = policy.start("q", 0)
    asks = policy.ask(state, 100)
    for ask, drawn in zip(asks, outcomes, strict=False):
        policy.tell(state, outcome_of(ask, drawn))
    return policy.done(state)


def finished(answer: str | None, passed: bool | None = None) -> dict[str, Any]:
    return {"status": "finished", "answer": answer, "final": True, "passed": passed}


FAILED: dict[str, Any] = {"status": "failed", "answer": None, "final": True, "passed": None}


def test_ties_go_to_the_answer_seen_first() -> None:
    pick = tell_all(strategies.sample(4), [finished(a) for a in "2112"])
    assert pick.ask == "s0"
    assert pick.support == {"votes": {"2": 2, "1": 2}, "margin": 0, "samples": 4, "of": 4}


def test_failed_and_unparsable_samples_never_vote() -> None:
    pick = tell_all(strategies.sample(4), [FAILED, finished(None), FAILED, finished("7")])
    assert (pick.ask, pick.support["votes"], pick.support["samples"]) == ("s3", {"7": 1}, 2)


def test_what_the_verifier_turned_down_does_not_win_by_count() -> None:
    outcomes = [finished("1", False), finished("1", False), finished("2", True)]
    assert tell_all(strategies.sample(3), outcomes).ask == "s2"


def test_a_vote_in_which_all_were_turned_down_has_no_answer_unless_told_to() -> None:
    refused = [finished("1", False), finished("2", False), finished("2", False), FAILED]
    assert strategies.majority().spec() == {"name": "majority"}
    assert tell_all(strategies.sample(4), refused).ask is None
    falling = strategies.sample(4, select=strategies.majority(fallback=True))
    assert falling.spec()["select"] == {"name": "majority", "fallback": True}
    pick = tell_all(falling, refused)
    assert (pick.ask, pick.support["fallback"], pick.support["votes"]) == (
        "s1",
        True,
        {"2": 2, "1": 1},
    )
    one_passed = [*refused[:3], finished("1", True)]
    assert tell_all(falling, one_passed).ask == "s3"
    assert "fallback" not in tell_all(falling, one_passed).support
    assert tell_all(falling, [FAILED] * 4).ask is None


def test_agreement_on_what_was_turned_down_is_no_reason_to_stop() -> None:
    policy = strategies.sample(8, wave=4, stop=strategies.beta(0.95))
    state = policy.start("q", 0)
    for ask in policy.ask(state, 8):
        policy.tell(state, outcome_of(ask, finished("1", False)))
    assert policy.done(state) is None
    for ask in policy.ask(state, 8):
        policy.tell(state, outcome_of(ask, finished("2", True)))
    pick = policy.done(state)
    assert pick is not None
    assert (pick.ask, pick.stop_reason) == ("s4", "agreement")


def test_all_failed_leaves_no_pick() -> None:
    pick = tell_all(strategies.sample(2), [FAILED, FAILED])
    assert (pick.ask, pick.final) == (None, True)


def test_best_of_stops_at_the_first_pass() -> None:
    policy = strategies.best_of(8, wave=8)
    state = policy.start("q", 0)
    asks = policy.ask(state, 8)
    assert len(asks) == 8
    policy.tell(state, outcome_of(asks[3], finished("1", False)))
    assert policy.done(state) is None
    policy.tell(state, outcome_of(asks[5], finished("2", True)))
    pick = policy.done(state)
    assert pick is not None
    assert (pick.ask, pick.stop_reason) == ("s5", "first_pass")


def test_a_wave_waits_for_the_one_before() -> None:
    policy = strategies.sample(8, wave=4, stop=strategies.beta(0.95))
    state = policy.start("q", 0)
    first = policy.ask(state, 16)
    assert len(first) == 4
    assert policy.ask(state, 16) == []
    for ask in first[:3]:
        policy.tell(state, outcome_of(ask, finished("1")))
    assert policy.ask(state, 16) == []
    policy.tell(state, outcome_of(first[3], finished("2")))
    assert [ask.id for ask in policy.ask(state, 16)] == ["s4", "s5", "s6", "s7"]


def test_beta_needs_four_of_a_kind_at_095() -> None:
    expected = {(3, 0): 0.9375, (4, 0): 0.96875, (5, 1): 0.9375, (6, 1): 0.96484, (8, 2): 0.96729}
    for (leader, runner_up), value in expected.items():
        assert lead_probability(leader, runner_up) == pytest.approx(value, abs=1e-5)


def test_backtracking_returns_to_the_last_good_state() -> None:
    policy = strategies.backtrack(width=2, depth=5)
    state = policy.start("q", 0)

    def step(final: bool, passed: bool) -> Ask:
        (ask,) = policy.ask(state, 4)
        drawn = {"status": "finished", "answer": None, "final": final, "passed": passed}
        policy.tell(state, outcome_of(ask, drawn))
        return ask

    good = step(final=False, passed=True)
    assert good.parent is None
    assert step(final=False, passed=False).parent == good.id
    assert step(final=False, passed=False).parent == good.id  # its width is used up
    other = step(final=False, passed=True)
    assert other.parent is None
    last = step(final=True, passed=True)
    assert last.parent == other.id
    pick = policy.done(state)
    assert pick is not None
    assert (pick.ask, pick.support["dead_ends"]) == (last.id, 2)


@pytest.mark.parametrize(
    "make",
    [
        lambda: strategies.sample(0),
        lambda: strategies.sample(4, wave=0),
        lambda: strategies.beta(0.2),
        lambda: strategies.backtrack(width=0),
        lambda: strategies.backtrack(restarts=-1),
    ],
)
def test_bad_figures_are_refused(make: Any) -> None:
    with pytest.raises(InvalidInput):
        make()
