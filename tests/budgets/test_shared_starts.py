"""Starts that begin with each other are charged once each, and nothing of them is left."""

from __future__ import annotations

from collections.abc import Hashable
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from longthought.budgets.lease_book import GROWTH, Lease, LeaseBook, Starts, added
from longthought.budgets.leases import LeaseScheduler

SYSTEMS, QUESTIONS = ("s0", "s1"), ("q0", "q1", "q2")


@st.composite
def leases(draw: st.DrawFn, branch: int) -> Lease:
    """A lease whose start begins with a system prompt and goes on with a question, or less.

    Its tokens are somebody's estimate: another lease may think otherwise of the same start.
    """
    system = draw(st.sampled_from(SYSTEMS))
    question = f"{system} {draw(st.sampled_from(QUESTIONS))}"
    depth = draw(st.integers(0, 3))
    sizes = draw(st.lists(st.integers(0, 900), min_size=3, max_size=3).map(sorted))
    chain = list(zip((system, question, f"{question} step"), sizes, strict=True))[:depth]
    *before, (prefix, tokens) = chain or [(None, 0)]
    context = tokens + draw(st.integers(0, 500))
    return Lease(branch, None, context, prefix, tokens, tuple(before))


def pieces(lease: Lease) -> list[tuple[Hashable, int]]:
    return list(added(lease.before, lease.prefix, lease.prefix_tokens))


def charged_for(held: list[Lease], most: dict[Hashable, int]) -> float:
    """Own parts of all leases, and each start once, at the most anybody took it for."""
    shared = {start for lease in held for start, _ in pieces(lease)}
    return sum(lease.charge for lease in held) + sum(most[start] for start in shared)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_each_start_is_charged_once_and_all_of_it_goes_back(data: st.DataObject) -> None:
    book, held, most = LeaseBook(), list[Lease](), dict[Hashable, int]()
    for branch in range(data.draw(st.integers(1, 25))):
        if held and data.draw(st.booleans()):
            gone = held.pop(data.draw(st.integers(0, len(held) - 1)))
            book.close(gone)
            left = {start for lease in held for start, _ in pieces(lease)}
            most = {start: tokens for start, tokens in most.items() if start in left}
        else:
            lease = data.draw(leases(branch))
            need = book.need(lease.context, lease.prefix, lease.prefix_tokens, lease.before)
            before = book.charged
            book.open(lease)
            held.append(lease)
            for start, tokens in pieces(lease):
                most[start] = max(most.get(start, 0), tokens)
            assert abs(book.charged - before - need) < 1e-6, "what was said is what is charged"
            if data.draw(st.booleans()):
                book.grow(lease, lease.context + 100)
        assert abs(book.charged - charged_for(held, most)) < 1e-6
        own = sum(one.context + GROWTH - one.prefix_tokens for one in held)
        assert book.actual == own + sum(most.values())
    for lease in held:
        book.close(lease)
    assert (book.charged, book.actual, len(book)) == (0, 0, 0)
    assert book.need(500, "s0 q0", 400, (("s0", 300),)) == 400 + 100 + GROWTH, "nothing is held"


def charges(starts: list[Starts]) -> list[float]:
    """What a scheduler charges with each further branch of these starts, then without any."""
    scheduler = LeaseScheduler[int](16, capacity=100_000)
    found = []
    for branch, (*before, (prefix, tokens)) in enumerate(starts):
        scheduler.enqueue(
            branch,
            resumed=False,
            now=0.0,
            branch=branch,
            context=tokens + 10,
            prefix=prefix,
            prefix_tokens=tokens,
            before=tuple(before),
        )
        assert scheduler.grant(0.0) == branch
        found.append(scheduler.charged)
    for branch in range(len(starts)):
        scheduler.end(branch, 1.0)
    return [*found, scheduler.charged]


def test_questions_under_one_system_prompt_pay_for_it_together() -> None:
    def of(question: str, system: str = "s") -> Starts:
        return ((system, 5_000), (f"{system} {question}", 5_200))

    *alike, ended = charges([of("q"), of("q"), of("r"), of("r"), of("q", "t")])
    assert ended == 0
    growth = [round(after - before) for before, after in pairwise([0.0, *alike])]
    own = growth[1]  # the same question once more: nothing but what is the branch's own
    assert own == 10 + GROWTH
    assert [one - own for one in growth] == [5_200, 0, 200, 0, 5_200]
