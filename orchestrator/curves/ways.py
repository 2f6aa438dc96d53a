"""The ways of answering that a curve compares, and the words by which they are named.

A *sampled* way is a policy that asks for independent samples: all its sizes are computed from one
bank of samples, without a call. A *live* way asks for something else (no temperature, tools, steps
that go back): it is run. *Coverage* is what the best selection there could be would reach.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from longthought.errors import InvalidInput
from longthought.orchestrator import strategies
from longthought.orchestrator.strategies import Policy
from longthought.types import JSONObject, Sampling

__all__ = ["WORDS", "Coverage", "Live", "Plan", "Sampled", "Way", "bank_plan", "parse_ways"]

WORDS = (
    "single, majority, checked, weighted, best-of[:WAVE], beta[:SURE[:WAVE]], pass, "
    "greedy, direct, tools, backtrack[:ATTEMPTS]"
)
"""The words for ways; ``@K`` behind one of the first seven asks for one size alone."""

PolicyOf: TypeAlias = Callable[[int], Policy]


@dataclass(frozen=True, slots=True)
class Plan:
    """How runs are made: a policy, and what it changes about a setup.

    ``options`` say the same in the words of the command line, so that ``replay`` builds the same
    workflow again.
    """

    name: str
    policy: Policy
    sampling: Sampling = field(default_factory=Sampling)
    tools: tuple[str, ...] = ()
    verified: bool = False
    options: JSONObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sampled:
    """A policy of independent samples at several sizes; ``policy`` makes it for a size.

    Only a ``verified`` one is told verdicts: a vote that nobody verified must not profit from
    them. ``sizes`` empty stands for the powers of two up to the size of the bank.
    """

    name: str
    label: str
    policy: PolicyOf
    verified: bool = False
    sizes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Live:
    """A way that has to be run; ``size`` is the number of attempts it may make."""

    name: str
    label: str
    plan: Plan
    size: int = 1


@dataclass(frozen=True, slots=True)
class Coverage:
    """``pass@k``: whether any of k samples is right. Only an oracle can choose like that."""

    name: str = "pass"
    label: str = "pass@k, oracle"
    sizes: tuple[int, ...] = ()


Way: TypeAlias = Sampled | Live | Coverage


def bank_plan(samples: int, verified: bool) -> Plan:
    """The runs that fill a bank: so many samples of each question, every one judged."""
    options: JSONObject = {"strategy": "majority", "n": samples}
    return Plan("bank", strategies.sample(samples), verified=verified, options=options)


def parse_ways(
    words: Iterable[str | Way],
    *,
    samples: int,
    verified: bool,
    step_stop: Sequence[str] = ("\n",),
) -> list[Way]:
    """Ways from their words; those that are ways already stay as they are.

    ``verified`` says whether there is a verifier, ``step_stop`` where a step of thought ends.

    Raises:
        InvalidInput: there is no such way, it needs a verifier, or more samples than are drawn.
    """
    ways: dict[str, Way] = {}
    for word in words:
        if isinstance(word, str):
            way = _parsed(word.strip(), samples, tuple(step_stop))
        else:
            way = word
        _check(way, samples, verified)
        known = ways.get(way.name)
        if known is not None and isinstance(way, Sampled | Coverage) and way.sizes:
            sizes = sorted({*getattr(known, "sizes", ()), *way.sizes})
            way = replace(way, sizes=tuple(sizes))
        ways[way.name] = way
    if not ways:
        raise InvalidInput("strategies", "none is given", f"Use {WORDS}")
    return list(ways.values())


def sizes_of(way: Sampled | Coverage, samples: int) -> tuple[int, ...]:
    """The sizes at which a way is measured on a bank: its own, or powers of two and the whole."""
    powers = [1 << n for n in range(samples.bit_length()) if 1 << n <= samples]
    return way.sizes or tuple(sorted({*powers, samples}))


# -- words --------------------------------------------------------------------------------------


def _parsed(word: str, samples: int, step_stop: tuple[str, ...]) -> Way:
    name, at, size = word.partition("@")
    kind, *arguments = name.split(":")
    sizes = () if not at or size == "k" else (_whole(word, size),)
    way = _sampled(word, kind, arguments, sizes)
    if way is None:
        way = _live(word, kind, arguments, samples, step_stop)
        if way is not None and at:
            raise InvalidInput("strategies", f"{kind!r} has no sizes", f"Leave @{size} away")
    if way is None:
        raise InvalidInput("strategies", f"there is no {word!r}", f"Use {WORDS}")
    return way


def _sampled(word: str, kind: str, arguments: list[str], sizes: tuple[int, ...]) -> Way | None:
    match kind, arguments:
        case "single", []:
            return Sampled("single", "one sample", lambda _n: strategies.single(), sizes=(1,))
        case "majority", []:
            return Sampled("majority", "majority of k", strategies.sample, sizes=sizes)
        case "checked", []:
            return Sampled(kind, "majority of k, checked", _checked, True, sizes)
        case "weighted", []:
            return Sampled("weighted", "verifier-weighted vote", _weighted, True, sizes)
        case "best-of", [] | [_]:
            wave = _whole(word, arguments[0]) if arguments else None
            return Sampled(
                _joined(kind, arguments),
                "best of k, verified" if wave is None else f"best of k, waves of {wave}",
                lambda n: strategies.best_of(n, wave=wave and min(wave, n)),
                True,
                sizes,
            )
        case "beta", [] | [_] | [_, _]:
            return _beta(word, arguments, sizes)
        case "pass", []:
            return Coverage(sizes=sizes)
    return None


def _checked(n: int) -> Policy:
    # a verifier that may err had better not leave a question without an answer
    return strategies.sample(n, select=strategies.majority(fallback=True))


def _weighted(n: int) -> Policy:
    return strategies.sample(n, select=strategies.weighted())


def _beta(word: str, arguments: list[str], sizes: tuple[int, ...]) -> Sampled:
    try:
        sure = float(arguments[0]) if arguments else 0.95
    except ValueError:
        raise InvalidInput("strategies", f"{word!r} cannot be read", "Write beta:0.95") from None
    stop = strategies.beta(sure)
    wave = _whole(word, arguments[1]) if len(arguments) > 1 else None
    return Sampled(
        f"beta:{sure:g}" + (f":{wave}" if wave else ""),
        f"majority until {sure:g} sure" + (f", waves of {wave}" if wave else ""),
        lambda n: strategies.sample(n, wave=wave and min(wave, n), stop=stop),
        sizes=sizes,
    )


def _live(
    word: str, kind: str, arguments: list[str], samples: int, step_stop: tuple[str, ...]
) -> Live | None:
    one: JSONObject = {"strategy": "single"}
    match kind, arguments:
        case "greedy", []:
            plan = Plan(
                "greedy",
                strategies.single(),
                Sampling(temperature=0.0),
                options={**one, "temperature": 0.0},
            )
            return Live("greedy", "greedy", plan)
        case "direct", []:
            plan = Plan(
                "direct",
                strategies.single(),
                Sampling(temperature=0.0, reasoning_effort="none"),
                options={**one, "temperature": 0.0, "reasoning_effort": "none"},
            )
            return Live("direct", "direct answer", plan)
        case "tools", []:
            plan = Plan(
                "tools",
                strategies.single(),
                tools=("calculator",),
                options={**one, "tools": ["calculator"]},
            )
            return Live("tools", "with a calculator", plan)
        case "backtrack", [] | [_]:
            attempts = _whole(word, arguments[0]) if arguments else samples
            policy = strategies.backtrack(width=2, restarts=attempts - 1, stop=step_stop)
            options: JSONObject = {"strategy": "backtrack", "n": attempts}
            plan = Plan(kind, policy, verified=True, options=options)
            return Live(_joined(kind, arguments), "backtracking, verified", plan, attempts)
    return None


def _joined(kind: str, arguments: list[str]) -> str:
    return ":".join([kind, *arguments])


def _whole(word: str, text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise InvalidInput("strategies", f"{word!r} cannot be read", f"{text!r} is no number")
    return int(text)


def _check(way: Way, samples: int, verified: bool) -> None:
    needs = way.verified if isinstance(way, Sampled) else False
    needs = way.plan.verified if isinstance(way, Live) else needs
    if needs and not verified:
        raise InvalidInput("strategies", f"{way.name} needs a verifier", "Give --verifier")
    largest = max(way.sizes, default=0) if isinstance(way, Sampled | Coverage) else 0
    if largest > samples:
        fix = f"Give --samples {largest}"
        problem = f"{way.name}@{largest} needs more than {samples} samples"
        raise InvalidInput("strategies", problem, fix)
