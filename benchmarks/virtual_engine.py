"""An inference engine in virtual time: continuous batching, chunked prefill, a prefix cache.

Iteration-level: one iteration decodes one token of every sequence and prefills up to ``chunk``
tokens. Iterations in which nothing can change but lengths are taken in one jump, so the cost of a
simulation goes by the number of requests, not of tokens. What has ended stays in the cache until
the least recently used is evicted, its tail first, as in vLLM and SGLang. Seconds are virtual.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict, deque
from collections.abc import Hashable
from dataclasses import dataclass, field

__all__ = ["EngineRates", "Request", "VirtualEngine"]


@dataclass(frozen=True, slots=True)
class EngineRates:
    """How fast an engine is. An iteration lasts ``step + step_each * decoding + prefilled / rate``.

    Attributes:
        slots: sequences that may run at once.
        step: seconds of an iteration, whatever is in it.
        step_each: seconds more for each sequence that decodes.
        prefill: tokens per second.
        chunk: tokens that one iteration may prefill.
        block: tokens of a cache block; only whole blocks are found again.
    """

    slots: int = 16
    step: float = 0.012
    step_each: float = 0.0006
    prefill: float = 8000.0
    chunk: int = 2048
    block: int = 16


@dataclass(slots=True, eq=False)
class Request:
    """One call: compute the prompt where the cache does not have it, then decode.

    Attributes:
        key: what the context belongs to; its next request begins with this one's tokens.
        prompt: tokens of the prompt, shared ones included.
        known: of these, how many the key had before: what a perfect cache would find.
        output: tokens to decode.
        prefix, prefix_tokens: the start that it shares with others.
    """

    key: Hashable
    prompt: int
    known: int
    output: int
    prefix: Hashable = None
    prefix_tokens: int = 0
    submitted: float = 0.0
    cached: int = 0
    """Tokens of the prompt that were found, at the first admission."""
    uncached: int = 0
    """Tokens that had to be prefilled at the first admission."""
    missing: int = 0
    """Tokens still to be prefilled."""
    resident: int = 0
    """Own tokens that occupy memory while it runs."""
    left: int = 0
    """Tokens still to be decoded when decoding (re)starts."""
    ends: int = 0
    order: int = 0
    started: float = field(default=-1.0)
    first_token: float = 0.0


class VirtualEngine:
    """Requests in, ended requests out, and the virtual time at which they end.

    Besides what a server offers there are :meth:`keep`, :meth:`swap`, :meth:`discard` and
    :meth:`hold`, for rivals that change the engine itself.
    """

    def __init__(self, capacity: int, rates: EngineRates | None = None) -> None:
        self.rates = rates or EngineRates()
        self.capacity = capacity
        self.now = 0.0
        self.waiting: deque[Request] = deque()
        self.running: dict[Request, None] = {}
        self.prefilled = self.recomputed = self.decoded = self.preempted = 0
        self.forgotten = 0
        """Tokens that were known and not found, as far as clients are told: at first admission."""
        self.busy = self.slot_seconds = 0.0
        self._prefilling: deque[Request] = deque()
        self._decoding: list[tuple[int, int, Request]] = []
        self._iterations = 0
        self._orders = 0
        self._pinned = 0
        self._idle: OrderedDict[Hashable, int] = OrderedDict()
        self._idle_tokens = 0
        self._users: dict[Hashable, int] = {}
        self._kept: dict[Hashable, int] = {}
        self._swapped: dict[Hashable, int] = {}
        self._held: dict[Hashable, int] = {}

    @property
    def running_tokens(self) -> int:
        """Tokens that nothing can evict now."""
        return self._pinned

    # -- what a client sees ------------------------------------------------------------------------

    def submit(self, request: Request) -> None:
        """Put a request at the end of the engine's own queue."""
        request.submitted, request.left = self.now, request.output
        self.waiting.append(request)

    def advance(self, until: float) -> list[Request]:
        """Run to the first end of a request or to ``until``, whichever is first.

        The iteration under way then is finished, so time may be a little past ``until``.
        """
        while True:
            self._admit()
            self._make_room_to_decode()
            if not self.running:
                self.now = max(self.now, until)
                return []
            if self.now >= until:
                return []
            ended = self._prefill_step() if self._prefilling else self._decode_steps(until)
            if ended:
                return ended

    # -- what only an engine can do ----------------------------------------------------------------

    def hold(self, request: Request) -> None:
        """Keep slot and memory of an ended request until its key's next request."""
        tokens = self._take_idle(request.key)
        self._held[request.key] = tokens
        self._pinned += tokens

    def keep(self, key: Hashable) -> None:
        """Keep a context in memory until its next request, whatever else needs room."""
        tokens = self._take_idle(key)
        self._kept[key] = tokens
        self._pinned += tokens

    def swap(self, key: Hashable) -> None:
        """Move a context to memory without end; it is back at no cost."""
        self._swapped[key] = self._take_idle(key)

    def discard(self, key: Hashable) -> None:
        """Forget a context."""
        self._take_idle(key)

    # -- iterations --------------------------------------------------------------------------------

    def _prefill_step(self) -> list[Request]:
        rates, budget, done = self.rates, self.rates.chunk, []
        while budget and self._prefilling:
            request = self._prefilling[0]
            tokens = min(budget, request.missing)
            request.missing -= tokens
            budget -= tokens
            if not request.missing:
                done.append(self._prefilling.popleft())
        tokens = rates.chunk - budget
        self.prefilled += tokens
        ended = self._pass(1, tokens)
        for request in done:
            request.first_token = request.first_token or self.now
            request.ends = self._iterations + request.left
            heapq.heappush(self._decoding, (request.ends, request.order, request))
        return ended

    def _decode_steps(self, until: float) -> list[Request]:
        count = len(self._decoding)
        seconds = self.rates.step + self.rates.step_each * count
        steps = self._decoding[0][0] - self._iterations
        if until < math.inf:
            steps = min(steps, max(1, math.ceil((until - self.now) / seconds)))
        room = (self.capacity - self._pinned) // count
        return self._pass(min(steps, room), 0)

    def _pass(self, steps: int, prefilled: int) -> list[Request]:
        """Some iterations in which every decoding sequence grows by one token each."""
        rates, count = self.rates, len(self._decoding)
        seconds = steps * (rates.step + rates.step_each * count) + prefilled / rates.prefill
        self.now += seconds
        self.busy += seconds
        self.slot_seconds += seconds * len(self.running)
        self._iterations += steps
        self.decoded += steps * count
        self._pinned += steps * count
        self._evict()
        ended = []
        while self._decoding and self._decoding[0][0] <= self._iterations:
            _, _, request = heapq.heappop(self._decoding)
            request.resident += request.left
            self._leave(request)
            ended.append(request)
        return ended

    def _make_room_to_decode(self) -> None:
        while self._pinned + len(self._decoding) > self.capacity:
            if len(self.running) == 1:
                if self._unkeep() or self._unhold(None):
                    continue
                raise RuntimeError("one context is larger than the whole memory")
            self._preempt(next(reversed(self.running)))

    def _preempt(self, request: Request) -> None:
        """The last that came gives its memory up; what it has decoded becomes prompt."""
        self.preempted += 1
        if request in self._prefilling:
            self._prefilling.remove(request)
            request.resident -= request.missing
            self._pinned -= request.missing
        else:
            produced = request.left - (request.ends - self._iterations)
            self._decoding.remove((request.ends, request.order, request))
            heapq.heapify(self._decoding)
            request.resident += produced
            request.prompt += produced
            request.left -= produced
        request.known = request.prompt
        self._leave(request)
        self.waiting.appendleft(request)

    # -- memory ------------------------------------------------------------------------------------

    def _admit(self) -> None:
        while self.waiting and len(self.running) + len(self._held) < self.rates.slots + (
            self.waiting[0].key in self._held
        ):
            request = self.waiting[0]
            if not self._place(request):
                # If nothing runs nothing would ever free memory: what is kept has to go.
                if self.running or not (self._unkeep() or self._unhold(request.key)):
                    return
                continue
            self.waiting.popleft()
            self._orders += 1
            request.order = self._orders
            if request.started < 0:
                request.started = self.now
            self.running[request] = None
            self._prefilling.append(request)

    def _place(self, request: Request) -> bool:
        """Reserve memory for a prompt; False if running sequences leave no room for it."""
        own_prompt = request.prompt - request.prefix_tokens
        shared_new, shared_hit = self._shared(request)
        key = request.key
        kept = self._kept.get(key, 0) + self._held.get(key, 0)
        need = own_prompt + shared_new - kept + self.rates.block
        if self._pinned + need > self.capacity:
            return False
        own_hit = self._take_idle(key) + kept + self._swapped.pop(key, 0)
        self._kept.pop(key, None)
        self._held.pop(key, None)
        self._pinned -= kept
        if shared_hit < request.prefix_tokens:
            own_hit = 0
        own_hit = min(own_hit, own_prompt - 1)
        own_hit -= own_hit % self.rates.block
        found = shared_hit + own_hit
        if request.started < 0:
            request.cached, request.uncached = found, request.prompt - found
            self.forgotten += max(0, request.known - found)
        self.recomputed += max(0, request.known - found - self.rates.block)
        request.missing = request.prompt - found
        request.resident = own_prompt
        self._pinned += own_prompt
        self._use_prefix(request)
        self._evict()
        return True

    def _shared(self, request: Request) -> tuple[int, int]:
        """Tokens of the shared start that must be placed anew, and how many are found."""
        if request.prefix is None:
            return 0, 0
        if self._users.get(request.prefix):
            return 0, request.prefix_tokens
        return request.prefix_tokens, self._idle.get(request.prefix, 0)

    def _use_prefix(self, request: Request) -> None:
        prefix = request.prefix
        if prefix is not None:
            if not self._users.get(prefix):
                self._take_idle(prefix)
                self._pinned += request.prefix_tokens
            self._users[prefix] = self._users.get(prefix, 0) + 1

    def _leave(self, request: Request) -> None:
        """A sequence leaves the batch; its context becomes the most recently used idle one."""
        del self.running[request]
        self._pinned -= request.resident
        self._put_idle(request.key, request.resident)
        prefix = request.prefix
        if prefix is not None:
            self._users[prefix] -= 1
            if not self._users[prefix]:
                self._pinned -= request.prefix_tokens
                self._put_idle(prefix, request.prefix_tokens)
        self._evict()

    def _unkeep(self) -> bool:
        """Let the cache have what was kept first; False if nothing is kept."""
        for key in self._kept:
            tokens = self._kept.pop(key)
            self._pinned -= tokens
            self._put_idle(key, tokens)
            return True
        return False

    def _unhold(self, but: Hashable) -> bool:
        """Take the memory, not the slot, of who holds both; False if nobody has any."""
        for key, tokens in reversed(self._held.items()):
            if tokens and key != but:
                self._held[key] = 0
                self._pinned -= tokens
                self._put_idle(key, tokens)
                return True
        return False

    def _put_idle(self, key: Hashable, tokens: int) -> None:
        self._take_idle(key)
        self._idle[key] = tokens
        self._idle_tokens += tokens

    def _take_idle(self, key: Hashable) -> int:
        tokens = self._idle.pop(key, 0)
        self._idle_tokens -= tokens
        return tokens

    def _evict(self) -> None:
        excess = self._pinned + self._idle_tokens - self.capacity
        while excess > 0 and self._idle:
            key = next(iter(self._idle))
            tokens = min(excess, self._idle[key])
            self._idle_tokens -= tokens
            excess -= tokens
            if tokens == self._idle[key]:
                del self._idle[key]
            else:
                self._idle[key] -= tokens
