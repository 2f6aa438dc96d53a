"""Continuous batching: sequences join and leave a running batch at any step.

All rows in flight are decoded together by one worker thread, which lives only while there is work.
Callers are coroutines of any event loop; the thread wakes them through their own loop, so a model
may be used from one loop after another. A sequence that stops leaves its keys and values in the
prefix cache; when it comes back longer, only its new positions are computed.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from longthought.errors import BackendError

from .network import Cache, Floats, Network
from .prefixes import Prefix, PrefixCache, shared_start
from .sampling import Draw, draw_tokens

__all__ = ["Counters", "Engine", "Row", "Step"]

_STEPS_PER_WAKE = 4  # decode steps between two wakings of the callers
_AT_ONCE = 128  # positions of one forward pass: with more, what lies between is in no cache
_WORTH_WAITING = 16  # positions that a prompt saves, about what one more forward pass costs


@dataclass(frozen=True, slots=True)
class Step:
    """One drawn token and its log-probability in nats."""

    token: int
    logprob: float


@dataclass(slots=True)
class Counters:
    """What the engine has done so far, for tests and benchmarks.

    ``positions`` went through the network (prompt and drawn), ``reused`` came from the prefix
    cache, ``steps`` counts decode steps of the whole batch, ``widest`` the most rows in one.
    """

    positions: int = 0
    reused: int = 0
    steps: int = 0
    widest: int = 0

    def __add__(self, other: Counters) -> Counters:
        return Counters(
            self.positions + other.positions,
            self.reused + other.reused,
            self.steps + other.steps,
            max(self.widest, other.widest),
        )


@dataclass(eq=False, slots=True)
class Row:
    """One sequence to decode.

    ``prompt`` is never empty; at most ``limit`` tokens (1 or more) are drawn, and both together
    fit the network's positions. ``ends`` is called in the worker thread with each drawn token and
    says whether it was the last; ``worth_keeping`` whether the sequence may come back longer.
    ``cached`` is set to the number of prompt tokens that were not computed.
    """

    prompt: Sequence[int]
    draw: Draw
    limit: int
    ends: Callable[[int], bool]
    worth_keeping: Callable[[], bool] = lambda: True
    cached: int = 0


@dataclass(eq=False, slots=True)
class _Flight:
    """A row on its way. The worker writes ``ready``, ``over`` and ``failure``, the caller reads."""

    row: Row
    loop: asyncio.AbstractEventLoop
    tokens: list[int]
    ready: deque[Step] = field(default_factory=deque)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    over: bool = False
    cancelled: bool = False
    failure: Exception | None = None
    kept: bool = False  # its rows were kept for it, so nobody else begins with them


class Engine:
    """Decodes rows on a network, at most ``slots`` at once; further rows wait in order."""

    def __init__(self, network: Network, *, slots: int, cache_bytes: int) -> None:
        self.network = network
        self.slots = slots
        self.counters = Counters()
        self.prefixes = PrefixCache(cache_bytes)
        self._inbox: deque[_Flight] = deque()
        self._orders: deque[tuple[Callable[[Sequence[int]], object], Sequence[int]]] = deque()
        self._flights: list[_Flight] = []  # the place in this list is the row in the batch
        self._batch: Cache | None = None
        self._logits: Floats = np.zeros((slots, network.shape.vocabulary), np.float32)
        self._lock = threading.Lock()
        self._ending = threading.Lock()  # one close at a time
        self._thread: threading.Thread | None = None  # the last one started, perhaps at its end
        self._working = False
        self._closing = False

    @property
    def in_flight(self) -> int:
        """Rows that are being decoded or wait for a place."""
        return len(self._flights) + len(self._inbox)

    async def run(self, row: Row, deliver: Callable[[list[Step]], None]) -> None:
        """Decode a row to its end; ``deliver`` is called on the loop with what has come.

        Cancelling the caller frees the row's place at the next step.

        Raises:
            BackendError: the computation failed, or the engine was closed meanwhile.
        """
        flight = _Flight(row, asyncio.get_running_loop(), list(row.prompt))
        self._submit(flight)
        try:
            over = False
            while not over:
                await flight.wake.wait()
                flight.wake.clear()
                over = flight.over  # read before the steps, so that none is missed
                steps = [flight.ready.popleft() for _ in range(len(flight.ready))]
                if steps:
                    deliver(steps)
        finally:
            flight.cancelled = True
        if flight.failure is not None:
            raise BackendError(f"embedded engine: {flight.failure}") from flight.failure

    def keep(self, tokens: Sequence[int]) -> None:
        """Keep the rows of a sequence that has ended until it comes back longer, or is released.

        For a branch with a lease that waits for a tool. May be called from any thread; it takes
        effect before rows that come later. Once all that fits is kept, of others only the last
        one stays, until the next.
        """
        self._order(self.prefixes.keep, tokens)

    def release(self, tokens: Sequence[int], *, first: bool = True) -> None:
        """Do not keep the rows of a sequence any longer: its branch was parked, or has ended.

        They go before all others when room is needed, or, unless ``first``, by their last use. May
        be called from any thread, like :meth:`keep`.
        """
        self._order(self.prefixes.release if first else self.prefixes.unkeep, tokens)

    def close(self) -> None:
        """Stop the thread and free the memory. Rows in flight fail; later rows start afresh."""
        with self._ending:
            with self._lock:
                self._closing = True
                thread = self._thread
            if thread is not None:
                thread.join()
            with self._lock:  # no thread runs now, and none starts before this is done
                self.prefixes.clear()
                self._batch = None
                self._closing = False

    def wait_idle(self) -> None:
        """Block until nothing is in flight."""
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()

    def _submit(self, flight: _Flight) -> None:
        with self._lock:
            if self._closing:
                raise BackendError("the embedded model is being closed", sent=False)
            self._inbox.append(flight)
            if not self._working:
                self._working = True
                self._thread = threading.Thread(target=self._work, name="embedded-engine")
                self._thread.start()

    def _order(self, order: Callable[[Sequence[int]], object], tokens: Sequence[int]) -> None:
        with self._lock:
            if self._working:
                self._orders.append((order, tokens))
            else:
                order(tokens)  # no thread uses the cache now

    # Everything below runs in the worker thread.

    def _work(self) -> None:
        for turn in itertools.count(1):
            arrivals: list[_Flight] | None = None
            try:
                arrivals = self._next_arrivals()
                if arrivals is None:
                    return
                self._admit(arrivals)
                ended = self._step()
            except Exception as error:  # it must reach the callers, who would wait for ever
                self._end(dict.fromkeys({*(arrivals or ()), *self._flights}, error))
                self._flights.clear()
                continue
            self._wake(ended if turn % _STEPS_PER_WAKE else [*ended, *self._flights])

    def _next_arrivals(self) -> list[_Flight] | None:
        """Rows that may start now; None when there is nothing left and the thread ends."""
        self._leave(flight for flight in list(self._flights) if flight.cancelled)
        with self._lock:
            if self._closing:
                closed = BackendError("the model was closed")
                self._end(dict.fromkeys([*self._flights, *self._inbox], closed))
                self._flights.clear()
                self._inbox.clear()
            while self._orders:
                order, tokens = self._orders.popleft()
                order(tokens)
            arrivals: list[_Flight] = []
            while self._inbox and len(self._flights) + len(arrivals) < self.slots:
                flight = self._inbox.popleft()
                if not flight.cancelled:
                    arrivals.append(flight)
            if not arrivals and not self._flights:
                self._working = False
                return None
        return arrivals

    def _admit(self, arrivals: list[_Flight]) -> None:
        """Compute the prompts. Of several that begin alike one goes first, the others reuse it."""
        while arrivals:
            now: list[_Flight] = []
            later: list[_Flight] = []
            before: list[int] = []
            for flight in sorted(arrivals, key=lambda flight: flight.tokens):
                head = flight.tokens[:-1]
                (later if self._waits(head, before) else now).append(flight)
                before = head
            self._prefill(now)
            arrivals = later

    def _waits(self, head: list[int], before: list[int]) -> bool:
        """Whether a prompt had better wait until one that is under way can be reused for it."""
        shared = shared_start(head, before)
        gained = shared - self.prefixes.depth(head)
        return gained >= _WORTH_WAITING or (gained > 0 and shared == len(head))

    def _prefill(self, arrivals: list[_Flight]) -> None:
        if self._batch is None:
            self._batch = self.network.new_cache(self.slots)
        found = {flight: self.prefixes.find(flight.tokens[:-1]) for flight in arrivals}
        for flight in arrivals:
            flight.kept = self.prefixes.come_back(flight.tokens[:-1])

        def missing(flight: _Flight) -> int:
            return len(flight.tokens) - found[flight][0]

        for new, group in itertools.groupby(sorted(arrivals, key=missing), missing):
            start = len(self._flights)
            self._flights.extend(group)
            for place in range(start, len(self._flights)):
                depth, prefix = found[self._flights[place]]
                self._flights[place].row.cached = depth
                self._batch.lengths[place] = depth
                reused = self._flights[place].tokens[:depth]
                self._batch.places[place] = self.network.place_after(reused)
                if prefix is not None:
                    self._batch.keys[:, place, :, :depth] = prefix.keys[:, :, :depth]
                    self._batch.values[:, place, :, :depth] = prefix.values[:, :, :depth]
                self.counters.reused += depth
            self._forward(start, len(self._flights), new)
            if new > 1:
                for place in range(start, len(self._flights)):
                    if not self._flights[place].kept:
                        self._keep(place)

    def _forward(self, start: int, stop: int, new: int) -> None:
        """Push the last ``new`` tokens of some rows through the network."""
        assert self._batch is not None  # noqa: S101 - made in _prefill, before any row exists
        tokens = np.array([flight.tokens[-new:] for flight in self._flights[start:stop]], np.int64)
        part = self._batch.rows(start, stop)
        piece = max(1, _AT_ONCE // (stop - start))
        for begin in range(0, new, piece):
            logits = self.network.forward(tokens[:, begin : begin + piece], part)
        self._logits[start:stop] = logits
        self.counters.positions += tokens.size

    def _step(self) -> list[_Flight]:
        """Draw a token for every row and compute the rows that go on; returns those that ended."""
        if not self._flights:
            return []
        count = len(self._flights)
        self.counters.steps += 1
        self.counters.widest = max(self.counters.widest, count)
        tokens, logprobs = draw_tokens(
            self._logits[:count], [flight.row.draw for flight in self._flights]
        )
        ended: list[_Flight] = []
        for flight, token, logprob in zip(
            self._flights, tokens.tolist(), logprobs.tolist(), strict=True
        ):
            flight.tokens.append(token)
            flight.ready.append(Step(token, logprob))
            drawn = len(flight.tokens) - len(flight.row.prompt)
            if flight.row.ends(token) or drawn >= flight.row.limit:
                flight.over = True
                ended.append(flight)
        self._leave(ended)
        if self._flights:
            self._forward(0, len(self._flights), 1)
        return ended

    def _leave(self, leaving: Iterable[_Flight]) -> None:
        """Take rows out of the batch; the last row moves into the gap."""
        for flight in leaving:
            place = self._flights.index(flight)
            if flight.row.worth_keeping():
                self._keep(place)
            last = len(self._flights) - 1
            batch = self._batch
            if place != last and batch is not None:
                batch.move(last, place)
                self._logits[place] = self._logits[last]
                self._flights[place] = self._flights[last]
            self._flights.pop()

    def _keep(self, place: int) -> None:
        """Copy what is computed of a row into the prefix cache."""
        batch = self._batch
        if batch is None:
            return
        length = int(batch.lengths[place])
        tokens = tuple(self._flights[place].tokens[:length])
        if not self.prefixes.covers(tokens):
            keys = batch.keys[:, place, :, :length].copy()
            self.prefixes.add(Prefix(tokens, keys, batch.values[:, place, :, :length].copy()))

    def _end(self, failures: dict[_Flight, Exception]) -> None:
        for flight, failure in failures.items():
            flight.failure = failure
            flight.over = True
        self._wake(list(failures))

    @staticmethod
    def _wake(flights: list[_Flight]) -> None:
        """Wake the callers, with one call into each of their loops."""
        by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Event]] = {}
        for flight in flights:
            by_loop.setdefault(flight.loop, []).append(flight.wake)
        for loop, events in by_loop.items():
            try:
                loop.call_soon_threadsafe(_set_all, events)
            except RuntimeError:  # the loop was closed without cancelling its tasks
                for flight in flights:
                    flight.cancelled = flight.cancelled or flight.loop is loop


def _set_all(events: list[asyncio.Event]) -> None:
    for event in events:
        event.set()
