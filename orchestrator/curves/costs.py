"""What a sample or a run has cost, read from its record."""

from __future__ import annotations

from dataclasses import dataclass, fields

from longthought.budgets import Amount
from longthought.storage import Recording
from longthought.types import JSONObject, Usage

__all__ = ["Cost", "costs_of"]


@dataclass(frozen=True, slots=True)
class Cost:
    """Samples, tokens, model calls and dollars; means of many are no whole numbers.

    ``samples`` are lines of thought that begin at the question; steps that go on are part of one.
    ``cached_tokens`` are the part of ``prompt_tokens`` that the backend read from its cache. Calls
    of a verifier are in, and so are tries that failed.
    """

    samples: float = 0
    prompt_tokens: float = 0
    cached_tokens: float = 0
    output_tokens: float = 0
    calls: float = 0
    usd: float = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(a + b for a, b in zip(self.values, other.values, strict=True)))

    @property
    def values(self) -> tuple[float, ...]:
        """The figures in the order of the fields."""
        return (
            self.samples,
            self.prompt_tokens,
            self.cached_tokens,
            self.output_tokens,
            self.calls,
            self.usd,
        )

    @property
    def tokens(self) -> float:
        """Prompt and output together."""
        return self.prompt_tokens + self.output_tokens

    def to_json(self) -> JSONObject:
        """All figures, rounded to where they still say something."""
        value: JSONObject = {f.name: round(getattr(self, f.name), 4) for f in fields(self)}
        value["tokens"] = round(self.tokens, 4)
        value["usd"] = round(self.usd, 9)
        return value


def costs_of(recording: Recording) -> dict[str, Cost]:
    """The cost of every branch of a run by its place; what belongs to none stands under "".

    A place is that of the branch's search with the branch's name behind it.
    """
    places = {
        f"{event.key}/{ask}"
        for event in recording.events
        if event.type == "fold" and event.body["input"] == "ask"
        for ask in event.body["data"]["asks"]
    }
    # a line of thought that goes on from another is named after it: r0.1 and then r0.1.0
    begun = {place for place in places if place.rpartition(".")[0] not in places}
    costs = {place: Cost(samples=place in begun) for place in places}
    costs[""] = Cost()
    for event in recording.events:
        if event.type == "effect_finished" and event.body["kind"] == "model":
            place = event.key.rpartition("#")[0]
            while place and place not in places:
                place = place.rpartition("/")[0]
            costs[place] += _cost_of_call(recording, event.body)
    return costs


def _cost_of_call(recording: Recording, body: JSONObject) -> Cost:
    charged = Amount.from_json(body.get("charged"))
    cached = 0
    if recording.has(body["result"]):
        result = recording.get(body["result"])
        cached = Usage.from_json(result.get("usage")).cached_tokens
    return Cost(
        prompt_tokens=charged.tokens - charged.output_tokens,
        cached_tokens=cached,
        output_tokens=charged.output_tokens,
        calls=charged.model_calls,
        usd=float(charged.usd),
    )
