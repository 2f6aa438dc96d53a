"""What slots, leases and tokens were used for: the figures, of one run or of many together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from longthought.types import JSONObject

__all__ = ["BackendUse", "Utilisation", "quantile"]


@dataclass(slots=True)
class BackendUse:
    """What one backend was used for.

    Attributes:
        calls: model calls that came to an end, whatever it was.
        permits: calls and tries that had a slot; ``slots`` is how many there were at last.
        at_once: most slots in use at one time, those of all runs and processes together.
        busy_seconds: of all slots together.
        share: of the slots that were there, while runs that called the backend were under way.
            Each process, and in it each workflow, has slots of its own.
        queued_seconds: waited for a slot, all calls together.
        leases: how often each thing happened to a lease.
        lease_seconds: leases held, all branches together; ``acting_seconds`` while a tool ran.
        prompt_tokens, cached_tokens, output_tokens: as the backend reported them.
        known_tokens: had been computed before, so that a cache could have had them.
        recomputed_tokens: of those, not found; None where no call ever reported a hit.
        endpoints: the same of each of several, by its name; ``share`` is of its own slots.
    """

    calls: int = 0
    permits: int = 0
    slots: int = 0
    at_once: int = 0
    busy_seconds: float = 0.0
    share: float = 0.0
    queued_seconds: float = 0.0
    leases: Counter[str] = field(default_factory=Counter)
    lease_seconds: float = 0.0
    acting_seconds: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    known_tokens: int = 0
    recomputed_tokens: int | None = None
    endpoints: dict[str, BackendUse] = field(default_factory=dict)

    def at(self, endpoint: str) -> BackendUse:
        """What an endpoint of it was used for."""
        return self.endpoints.setdefault(endpoint, BackendUse())

    def to_json(self) -> JSONObject:
        """All figures."""
        several = {name: use.to_json() for name, use in self.endpoints.items()}
        return {
            "calls": self.calls,
            "permits": self.permits,
            "slots": self.slots,
            "slots_at_once": self.at_once,
            "busy_seconds": round(self.busy_seconds, 4),
            "share": round(self.share, 4),
            "queued_seconds": round(self.queued_seconds, 4),
            "leases": dict(sorted(self.leases.items())),
            "lease_seconds": round(self.lease_seconds, 4),
            "lease_seconds_acting": round(self.acting_seconds, 4),
            "prompt_tokens": self.prompt_tokens,
            "cached_tokens": self.cached_tokens,
            "output_tokens": self.output_tokens,
            "known_tokens": self.known_tokens,
            "recomputed_tokens": self.recomputed_tokens,
            **({"endpoints": several} if several else {}),
        }


@dataclass(slots=True)
class Utilisation:
    """One run or many, all attempts together.

    Attributes:
        runs: how many there are.
        period: first and last moment on record, in seconds since the epoch.
        latencies: seconds from the first to the last event of each run that is completed or
            incomplete, shortest first.
        seconds: on each clock: model, tool, verify, queue, wall. Each run's own, added up.
        backends: by the name of the model.
        permit_seconds_during_tools: a slot was held by a branch whose tool ran.
        tool_seconds_in_generation: a branch's tool ran while its own generation was timed; those
            aside that were meant to, because they began while the reply still streamed.
        early_starts: tools that did so; ``early_seconds`` before the ends of their replies.
    """

    runs: int = 0
    period: tuple[float, float] = (0.0, 0.0)
    latencies: list[float] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    backends: dict[str, BackendUse] = field(default_factory=dict)
    permit_seconds_during_tools: float = 0.0
    tool_seconds_in_generation: float = 0.0
    early_starts: int = 0
    early_seconds: float = 0.0

    @property
    def period_seconds(self) -> float:
        """From the first event to the last."""
        return self.period[1] - self.period[0]

    @property
    def runs_per_second(self) -> float:
        """Runs that are completed or incomplete, over the whole period."""
        return len(self.latencies) / self.period_seconds if self.period_seconds else 0.0

    def to_json(self) -> JSONObject:
        """All figures."""
        return {
            "runs": self.runs,
            "ended": len(self.latencies),
            "period_seconds": round(self.period_seconds, 4),
            "runs_per_second": round(self.runs_per_second, 6),
            "latency_seconds": {
                "p50": round(quantile(self.latencies, 0.5), 4),
                "p95": round(quantile(self.latencies, 0.95), 4),
            },
            "seconds": {name: round(value, 4) for name, value in self.seconds.items()},
            "backends": {name: use.to_json() for name, use in self.backends.items()},
            "permit_seconds_during_tools": round(self.permit_seconds_during_tools, 4),
            "tool_seconds_in_generation": round(self.tool_seconds_in_generation, 4),
            "early_starts": self.early_starts,
            "early_seconds": round(self.early_seconds, 4),
        }


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value below which ``share`` of the others are, 0 of nothing; shortest first."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
