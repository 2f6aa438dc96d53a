"""Fair shares by themselves: who stands back, and what is remembered of whom."""

from __future__ import annotations

from longthought.budgets.fairness import FairShares


def serve(shares: FairShares, party: str, times: int) -> None:
    """A party is served so often, one time after the other."""
    for _ in range(times):
        shares.join(party)
        shares.charge(party, 1.0)
        shares.leave(party)


def test_who_is_ahead_stands_back_also_after_a_pause() -> None:
    shares = FairShares(4.0)
    shares.join("slow")
    serve(shares, "quick", 6)
    shares.join("quick")
    assert shares.ahead() == {"quick"}
    serve(shares, "slow", 2)
    assert shares.ahead() == set()


def test_who_was_overtaken_while_it_rested_starts_level() -> None:
    shares = FairShares(4.0)
    shares.join("slow")
    serve(shares, "quick", 2)
    shares.charge("slow", 10.0)
    shares.join("quick")
    assert shares.ahead() == set()


def test_of_parties_that_are_over_nothing_is_left() -> None:
    shares = FairShares(4.0)
    for pair in range(1000):
        shares.join(f"slow {pair}")
        serve(shares, f"quick {pair}", 3)
        shares.leave(f"slow {pair}")
    assert len(shares) == 0


def test_where_somebody_is_always_served_those_before_are_forgotten_too() -> None:
    shares = FairShares(4.0)
    shares.join("0")
    for run in range(1000):
        shares.charge(str(run), 1.0)
        shares.join(str(run + 1))
        serve(shares, str(run), 5)
        shares.leave(str(run))
        assert len(shares) < 20
