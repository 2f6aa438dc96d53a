"""Twenty kills on each store; ``make chaos`` has two hundred."""

from __future__ import annotations

import pytest

from tests.chaos.run import chaos


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
async def test_killed_runs_end_as_if_nothing_had_happened(kind: str) -> None:
    totals = await chaos(kind, kills=20, seed=1)
    assert not totals.failures, "\n".join(totals.failures)
    assert totals.in_run >= 10, str(totals)
