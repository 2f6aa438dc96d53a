"""Rate limits in virtual time: never above them, never idle when something fits, in order."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from longthought.budgets.rates import PERIOD, Rates, Said, Ticket, checked_rate
from longthought.errors import ConfigurationError

TIMES = st.sampled_from([0.0, 0.0, 0.1, 1.0, 7.0, 30.0, 59.9, 60.0, 61.0, 200.0])


@dataclass(eq=False)
class Call:
    """What one call is going to do; times are seconds after the step before."""

    asks_after: float
    bound: int
    used: float
    """The part of the bound that it really takes."""
    tries: int
    gives_up_after: float | None
    sends_after: float | None
    heard_after: float
    ends_after: float
    tells: bool
    """Whether what it took is known at its end."""
    ticket: Ticket = field(default_factory=Ticket)


CALLS = st.lists(
    st.builds(
        Call,
        asks_after=TIMES,
        bound=st.integers(1, 150),
        used=st.floats(0, 1),
        tries=st.integers(0, 2),
        gives_up_after=st.one_of(st.none(), st.none(), TIMES),
        sends_after=st.one_of(TIMES, TIMES, TIMES, st.none()),
        heard_after=TIMES,
        ends_after=TIMES,
        tells=st.booleans(),
    ),
    min_size=1,
    max_size=25,
)
LIMITS = st.tuples(st.none() | st.integers(1, 6), st.none() | st.integers(20, 300))


class World:
    """Virtual time, a line of calls, and a look at every promise after every event."""

    def __init__(self, requests: int | None, tokens: int | None) -> None:
        self.rates = Rates(requests, tokens)
        self.requests, self.tokens = requests or math.inf, tokens or math.inf
        self.now = 0.0
        self.waiting: list[Call] = []
        self.counted: dict[Call, tuple[float, float]] = {}
        """By the book: until when a call counts, and with how many tokens."""
        self.sent: list[tuple[float, float]] = []
        self.calls: dict[Ticket, Call] = {}
        self._events: list[tuple[float, int, Callable[..., None], Call]] = []
        self._numbers = itertools.count()

    def at(self, seconds: float, do: Callable[..., None], call: Call) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._numbers), do, call))

    def run(self) -> None:
        while True:
            alarm = self.rates.next_at(self.now)
            if not self._events and alarm == math.inf:
                return
            if self._events and self._events[0][0] <= alarm:
                self.now, _, do, call = heapq.heappop(self._events)
                do(call)
                self.serve()
            else:
                before, self.now = len(self.waiting), alarm
                self.serve()
                assert len(self.waiting) < before, "it said that the first would fit now"

    def serve(self) -> None:
        for ticket in self.rates.serve(self.now):
            call = self.calls[ticket]
            assert call is self.first(), "somebody was passed"
            assert self.fits(call), "more was granted than the limit allows"
            self.waiting.remove(call)
            self.counted[call] = (math.inf, min(call.bound, self.tokens))
            if call.sends_after is None:
                self.at(1.0, self.drop, call)
            else:
                self.at(call.sends_after, self.send, call)
        head = self.first()
        assert head is None or not self.fits(head), "the first in line fits and still waits"
        assert self.rates.waiting == len(self.waiting)

    def first(self) -> Call | None:
        return max(self.waiting, key=lambda call: call.tries, default=None)

    def fits(self, call: Call) -> bool:
        counted = [units for until, units in self.counted.values() if until > self.now]
        enough = sum(counted) + min(call.bound, self.tokens) <= self.tokens
        return enough and len(counted) + 1 <= self.requests

    # -- the life of a call ----------------------------------------------------------------------

    def ask(self, call: Call) -> None:
        call.ticket = Ticket(call.bound, call.tries)
        self.calls[call.ticket] = call
        self.waiting.append(call)
        self.rates.ask(call.ticket)
        if call.gives_up_after is not None:
            self.at(call.gives_up_after, self.give_up, call)

    def give_up(self, call: Call) -> None:
        assert self.rates.withdraw(call.ticket) == (call in self.waiting)
        if call in self.waiting:
            self.waiting.remove(call)

    def drop(self, call: Call) -> None:
        del self.counted[call]
        self.rates.over(call.ticket, self.now)

    def send(self, call: Call) -> None:
        self.counted[call] = (self.now + PERIOD, self.counted[call][1])
        self.sent.append((self.now, round(call.bound * call.used)))
        self.rates.sent(call.ticket, self.now)
        self.at(call.heard_after, self.hear, call)

    def hear(self, call: Call) -> None:
        self.rates.heard(call.ticket, self.now)
        self.at(call.ends_after, self.end, call)

    def end(self, call: Call) -> None:
        used = round(call.bound * call.used)
        until, units = self.counted[call]
        self.counted[call] = (until, used if call.tells else units)
        self.rates.over(call.ticket, self.now, used if call.tells else None)


@given(LIMITS, CALLS)
def test_every_promise_of_a_limit_is_kept(limits: Any, calls: Any) -> None:
    world = World(*limits)
    asked = 0.0
    for call in calls:
        asked += call.asks_after
        world.at(asked, world.ask, call)
    world.run()
    assert not world.waiting, "somebody was never served"
    for end, _ in world.sent:
        recent = [tokens for at, tokens in world.sent if at <= end < at + PERIOD]
        assert len(recent) <= world.requests
        assert sum(min(tokens, world.tokens) for tokens in recent) <= world.tokens
    # All places are back: a minute later everything fits again.
    rates, later = world.rates, world.now + PERIOD
    assert (rates.waiting, rates.under_way) == (0, 0)
    for window in (rates.requests, rates.tokens):
        if window is not None:
            assert (window.held, window.when(window.limit, later)) == (0, later)


def served(rates: Rates, now: float, *tickets: Ticket) -> list[Ticket]:
    for ticket in tickets:
        rates.ask(ticket)
    return rates.serve(now)


def test_a_call_that_is_held_up_counts_from_when_it_leaves() -> None:
    rates, first, second = Rates(requests=1), Ticket(), Ticket()
    assert served(rates, 0, first, second) == [first]
    assert rates.next_at(500) == math.inf  # granted long ago, and not sent
    rates.sent(first, 500)
    assert rates.next_at(500) == 560
    assert not rates.serve(559.9)
    assert rates.serve(560) == [second]


def test_a_call_above_the_limit_goes_alone() -> None:
    rates, small, large = Rates(tokens=100), Ticket(40), Ticket(5000)
    assert served(rates, 0, small, large) == [small]
    rates.sent(small, 0)
    rates.over(small, 1, 40)
    assert rates.next_at(1) == 60
    assert rates.serve(60) == [large]
    rates.sent(large, 60)
    rates.over(large, 61, 3000)  # more than the limit: the server took it nonetheless
    assert not served(rates, 119.9, Ticket(1))
    assert len(rates.serve(120)) == 1


def test_tokens_that_were_not_used_are_free_at_once() -> None:
    rates, first, second = Rates(tokens=100), Ticket(90), Ticket(60)
    assert served(rates, 0, first, second) == [first]
    rates.sent(first, 0)
    rates.over(first, 5, 30)
    assert rates.serve(5) == [second]


def test_who_cannot_leave_in_time_is_told_so() -> None:
    rates = Rates(requests=1)
    first, patient, hasty = Ticket(), Ticket(deadline=100), Ticket(deadline=30)
    assert served(rates, 0, first) == [first]
    rates.sent(first, 0)
    assert served(rates, 1, hasty, patient) == []
    assert rates.hopeless(1) == [(hasty, 59)]
    rates.refused(first, 2, wish=300)
    assert rates.hopeless(2) == [(patient, 300)]
    assert rates.waiting == 0


# -- what servers say ------------------------------------------------------------------------------


def test_what_is_left_is_kept_to_and_fills_up() -> None:
    rates, told = Rates(), Ticket()
    assert served(rates, 0, told) == [told]
    rates.sent(told, 0)
    rates.told(told, Said(left=2, limit=60, reset=58), None, 0)
    rates.heard(told, 0)
    more = [Ticket() for _ in range(4)]
    assert served(rates, 0, *more) == more[:2]
    assert rates.next_at(0) == pytest.approx(1)
    assert rates.serve(1) == [more[2]]
    rates.over(more[0], 1)  # never sent: its place is back
    assert rates.serve(1) == [more[3]]


def test_calls_that_the_server_has_not_counted_are_taken_off() -> None:
    rates = Rates()
    calls = [Ticket(10) for _ in range(3)]
    assert served(rates, 0, *calls) == calls
    for call in calls:
        rates.sent(call, 0)
    rates.told(calls[0], Said(left=3, limit=60, reset=57), Said(left=25, limit=600, reset=57), 0)
    rates.heard(calls[0], 0)
    third, fourth = Ticket(1), Ticket(1)
    assert served(rates, 0, third, fourth) == [third]  # of 3 requests two are on their way
    rates.told(third, Said(left=3, limit=60, reset=57), Said(left=25, limit=600, reset=57), 0)
    rates.heard(third, 0)
    large = Ticket(5)
    assert served(rates, 0, large) == [fourth]  # and of 25 tokens 20 are
    assert rates.next_at(0) == pytest.approx(1)  # then there is another request


def test_a_window_that_begins_anew_is_waited_for_and_then_forgotten() -> None:
    rates, told = Rates(), Ticket()
    served(rates, 0, told)
    rates.told(told, Said(left=0, limit=100, reset=40, refills=False), None, 0)
    rates.heard(told, 0)
    more = [Ticket() for _ in range(150)]
    assert served(rates, 39.9, *more) == []
    assert rates.next_at(39.9) == 40
    assert rates.serve(40) == more  # what the new window holds, the next reply will tell


def test_a_reply_that_was_overtaken_brings_nothing_back() -> None:
    rates = Rates()
    rates.requests_left.tell(Said(left=2, limit=60, reset=58), 0)
    slow, quick, third = Ticket(), Ticket(), Ticket()
    assert served(rates, 0, slow, quick) == [slow, quick]
    for call in (slow, quick):
        rates.sent(call, 0)
    # The server sees the slow one first: one is left then, and none after the quick one.
    rates.told(quick, Said(left=0, limit=60, reset=60), None, 0)
    rates.heard(quick, 0)
    rates.told(slow, Said(left=1, limit=60, reset=59), None, 0)
    rates.heard(slow, 0)
    assert served(rates, 0, third) == []
    assert rates.next_at(0) == pytest.approx(1)


def test_what_others_take_of_a_limit_counts_at_once() -> None:
    rates, mine, next_ones = Rates(), Ticket(), [Ticket() for _ in range(3)]
    rates.requests_left.tell(Said(left=50, limit=60, reset=10), 0)
    assert served(rates, 0, mine) == [mine]
    rates.sent(mine, 0)
    rates.told(mine, Said(left=2, limit=60, reset=58), None, 0)
    rates.heard(mine, 0)
    assert served(rates, 0, *next_ones) == next_ones[:2]


@given(
    st.integers(1, 20),
    st.lists(st.tuples(TIMES, st.sampled_from([0.0, 0.2, 3.0])), min_size=1, max_size=40),
)
@example(2, [(0.0, 0.0), (0.0, 0.2), (59.9, 0.2), (0.0, 0.0), (0.0, 0.0)])
def test_a_server_that_tells_its_limit_is_never_passed(limit: int, calls: Any) -> None:
    rates, now, level, filled = Rates(), 0.0, float(limit), 0.0
    rates.requests_left.tell(Said(left=limit, limit=limit), 0)  # the first reply has come
    numbers = itertools.count()
    events: list[tuple[float, int, str, Any]] = []

    def at(seconds: float, what: str, ticket: Ticket, told: Any = None) -> None:
        heapq.heappush(events, (now + seconds, next(numbers), what, (ticket, told)))

    asked, latency = 0.0, {}
    for after, delay in calls:
        ticket = Ticket()
        asked, latency[ticket] = asked + after, delay
        at(asked, "ask", ticket)
    while events or rates.waiting:
        alarm = rates.next_at(now)
        if events and events[0][0] <= alarm:
            now, _, what, (ticket, told) = heapq.heappop(events)
            if what == "ask":
                rates.ask(ticket)
            elif what == "arrive":  # at the server, which refuses what is above its limit
                level, filled = min(limit, level + (now - filled) * limit / PERIOD), now
                assert level >= 1 - 1e-6
                level -= 1
                reset = (limit - level) * PERIOD / limit
                at(latency[ticket], "answer", ticket, Said(level, limit, reset))
            else:
                rates.told(ticket, told, None, now)
                rates.heard(ticket, now)
        else:
            now = alarm
        for ticket in rates.serve(now):
            rates.sent(ticket, now)
            at(latency[ticket], "arrive", ticket)


# -- refusals --------------------------------------------------------------------------------------


def burst(rates: Rates, size: int) -> list[Ticket]:
    calls = [Ticket() for _ in range(size)]
    assert served(rates, 0, *calls) == calls
    for call in calls:
        rates.sent(call, 0)
    return calls


def test_a_refusal_halts_everybody_and_then_one_goes_ahead() -> None:
    rates = Rates()
    calls = burst(rates, 8)
    rates.refused(calls[0], 1, wish=10)
    waiting = [Ticket() for _ in range(20)]
    assert served(rates, 5, *waiting) == []
    assert rates.next_at(5) == math.inf  # seven are still on their way, and may tell more
    for call in calls[1:]:
        rates.refused(call, 5, wish=8)  # left before we knew; the longest wish holds
    assert rates.next_at(5) == 13
    sizes, now = [], 13.0
    while rates.waiting:
        granted: list[Ticket] = []
        while rates.next_at(now) < math.inf:  # one after the other, as many as may be under way
            now = rates.next_at(now)
            granted += rates.serve(now)
        sizes.append(len(granted))
        for ticket in granted:
            rates.sent(ticket, now)
            rates.heard(ticket, now)
    assert sizes == [1, 2, 4, 4, 5, 4]  # doubled up to half of those before, then one by one


def test_after_enough_calls_that_went_well_nothing_is_left_of_a_refusal() -> None:
    rates = Rates()
    for call in burst(rates, 4):
        rates.refused(call, 1, wish=0)
    for _ in range(100):
        [ticket] = served(rates, 2, Ticket())
        rates.heard(ticket, 2)
    assert rates.idle


def test_pauses_grow_with_refusals_in_a_row_and_jitter_shortens_them() -> None:
    rates, now, pauses = Rates(), 0.0, []
    [ticket] = served(rates, now, Ticket())
    for _ in range(12):
        rates.refused(ticket, now, jitter=0.5)
        rates.ask(Ticket())
        pauses.append(rates.next_at(now) - now)
        now += pauses[-1]
        [ticket] = rates.serve(now)
    assert pauses[:4] == [0.125, 0.25, 0.5, 1.0]
    assert pauses[-1] == 15
    rates.heard(ticket, now)
    rates.ask(Ticket())
    now = rates.next_at(now)
    [ticket] = rates.serve(now)
    rates.refused(ticket, now, jitter=1)
    rates.ask(Ticket())
    assert rates.next_at(now) - now == 0.25  # one went well in between


def test_calls_that_left_without_a_ticket_are_one_round_of_refusals() -> None:
    rates = Rates()
    for _ in range(50):
        rates.refused(None, 0, jitter=1)
    rates.ask(Ticket())
    assert rates.next_at(0) == 0.25


def test_a_try_after_a_refusal_goes_ahead_of_new_calls() -> None:
    rates, held = Rates(requests=1), Ticket()
    assert served(rates, 0, held) == [held]
    new, again = Ticket(), Ticket(tries=1)
    assert served(rates, 0, new, again) == []
    rates.over(held, 0)
    assert rates.serve(0) == [again]


def test_saying_the_end_twice_gives_nothing_back_twice() -> None:
    rates, call, next_call = Rates(requests=1), Ticket(), Ticket()
    assert served(rates, 0, call) == [call]
    rates.over(call, 0)
    rates.over(call, 0)
    rates.over(Ticket(), 0)  # never granted
    assert served(rates, 0, next_call, Ticket()) == [next_call]


@pytest.mark.parametrize("value", [0, -5, 0.5, math.inf, math.nan, True, "60"])
def test_a_rate_that_is_none(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^requests_per_minute: "):
        checked_rate("requests_per_minute", value)


def test_a_rate_is_a_whole_number_or_none() -> None:
    assert checked_rate("requests_per_minute", None) is None
    assert checked_rate("requests_per_minute", 60.5) == 60
