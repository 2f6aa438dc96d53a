"""Endpoints that refuse what is too much, in virtual time: nobody is refused again and again."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable

import pytest

from longthought.budgets.caution import Caution
from longthought.budgets.rates import Rates, Ticket

LATENCIES = (0.001, 0.02, 0.2, 2.0)


class Bucket:
    """Takes on ``burst`` calls at once, and ``rate`` a second."""

    def __init__(self, burst: int, rate: float) -> None:
        self.burst, self.rate, self.level, self.at = burst, rate, float(burst), 0.0

    def wait(self, now: float) -> float:
        self.level = min(self.burst, self.level + (now - self.at) * self.rate)
        self.at = now
        if self.level < 1:
            return (1 - self.level) / self.rate
        self.level -= 1
        return 0.0


class FixedWindow:
    """Takes on ``burst`` calls in every period of ``burst / rate`` seconds."""

    def __init__(self, burst: int, rate: float) -> None:
        self.burst, self.period, self.number, self.used = burst, burst / rate, -1, 0

    def wait(self, now: float) -> float:
        number = int(now / self.period)
        if number != self.number:
            self.number, self.used = number, 0
        if self.used == self.burst:
            return (number + 1) * self.period - now
        self.used += 1
        return 0.0


class Clients:
    """So many calls that want to leave at the moment 0; each is made again when it is refused."""

    def __init__(self, server: Bucket | FixedWindow, calls: int, latency: float, seed: int) -> None:
        self.server, self.latency, self.random = server, latency, random.Random(seed)
        self.rates, self.now, self.tells = Rates(), 0.0, True
        self.refused = [0] * calls
        self.left = calls
        self.numbers: dict[Ticket, int] = {}
        self._events: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._order = itertools.count()

    def run(self) -> None:
        for number in range(len(self.refused)):
            self.leave(number, None)  # nobody knows yet that there is a limit
        while self.left:
            for ticket in self.rates.serve(self.now):
                self.rates.sent(ticket, self.now)
                self.leave(self.numbers.pop(ticket), ticket)
            alarm = self.rates.next_at(self.now)
            if self._events and self._events[0][0] <= alarm:
                self.now, _, do, arguments = heapq.heappop(self._events)
                do(*arguments)
            else:
                assert alarm < math.inf, "everybody waits for nothing"
                self.now = alarm

    def leave(self, number: int, ticket: Ticket | None) -> None:
        self.soon(self.arrive, number, ticket)

    def arrive(self, number: int, ticket: Ticket | None) -> None:
        self.soon(self.hear, number, ticket, self.server.wait(self.now))

    def hear(self, number: int, ticket: Ticket | None, wait: float) -> None:
        if not wait:
            self.left -= 1
            self.rates.heard(ticket, self.now)
        else:
            self.refused[number] += 1
            wish = wait if self.tells else None
            self.rates.refused(ticket, self.now, wish, jitter=self.random.uniform(0.5, 1))
        if ticket is not None:
            self.rates.over(ticket, self.now)
        if wait:
            again = Ticket(1, self.refused[number])
            self.numbers[again] = number
            self.rates.ask(again)

    def soon(self, do: Callable[..., None], *arguments: object) -> None:
        at = self.now + self.latency / 2 * self.random.uniform(0.8, 1.2)
        heapq.heappush(self._events, (at, next(self._order), do, arguments))


@pytest.mark.parametrize("tells", [True, False])
@pytest.mark.parametrize("server", [Bucket, FixedWindow])
@pytest.mark.parametrize(("burst", "rate"), [(1, 2), (2, 20), (16, 160), (10, 10), (60, 1)])
def test_a_server_over_its_limit_refuses_nobody_often(
    server: type[Bucket | FixedWindow], burst: int, rate: float, tells: bool
) -> None:
    for latency, seed in itertools.product(LATENCIES, range(3)):
        clients = Clients(server(burst, rate), 64, latency, seed)
        clients.tells = tells
        clients.run()
        assert max(clients.refused) <= (4 if tells else 6), (latency, seed)
        assert sum(clients.refused) <= 3 * len(clients.refused), (latency, seed)


def test_the_pause_between_calls_is_what_the_server_took_on() -> None:
    clients = Clients(Bucket(1, 20), 64, 0.02, seed=1)
    clients.run()
    assert sum(clients.refused) - 63 <= 32  # all that were refused once they could know
    assert clients.now <= 1.5 * 63 / 20


def test_a_pause_that_nobody_needs_any_more_is_forgotten() -> None:
    caution = Caution()
    caution.refused(None, 0.0, 8.0, 1.0, together=0)
    now = 8.0
    for _ in range(40):
        now = caution.when(now, 0)
        caution.granted(now)
        caution.well(now, now)
    assert caution.none
    assert caution.when(now, 1000) == now


def test_calls_in_vain_are_not_made_by_those_with_few_tries_left() -> None:
    rates, tired, fresh = Rates(), Ticket(tries=3), Ticket()
    now = 0.0
    for _ in range(3):
        rates.refused(None, now, None)
        rates.ask(probe := Ticket(tries=4))
        now = rates.next_at(now)
        assert rates.serve(now) == [probe]
        rates.refused(probe, now, None)
        rates.over(probe, now)
    rates.ask(tired)
    rates.ask(fresh)
    now = rates.next_at(now)
    assert rates.serve(now) == [fresh]
    rates.heard(fresh, now)
    assert rates.serve(rates.next_at(now)) == [tired]


def test_time_in_which_nobody_wanted_to_leave_is_no_pause() -> None:
    """A few calls an hour, and one of them refused: the next need not wait for as long again."""
    rates, now = Rates(), 0.0

    def call(*, well: bool) -> None:
        nonlocal now
        ticket = Ticket()
        rates.ask(ticket)
        now = rates.next_at(now)
        assert rates.serve(now) == [ticket]
        rates.sent(ticket, now)
        now += 1.0
        if well:
            rates.heard(ticket, now)
        else:
            rates.refused(ticket, now, 1.0)
        rates.over(ticket, now)

    rates.refused(None, now, 1.0)
    for well in (True, True, True, False):
        now += 1200.0
        call(well=well)
    began = now
    for _ in range(4):
        call(well=True)
    # a second on its way for each, as in the round before, and the pause the server wished for
    assert now - began <= 10.0
