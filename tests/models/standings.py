"""How the endpoints of a model stand."""

from __future__ import annotations

from longthought.orchestrator.models import Failover


def failures(model: Failover) -> list[int]:
    return [one["failures"] for one in model.status()]


def in_flight(model: Failover) -> list[int]:
    return [one["in_flight"] for one in model.status()]
