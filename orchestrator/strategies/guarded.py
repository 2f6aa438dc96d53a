"""A policy as the executor calls it: its own mistakes are named before anything follows."""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import contextmanager

from longthought.errors import PolicyError
from longthought.orchestrator.strategies.policy import Ask, Outcome, Pick, Policy, State
from longthought.storage import canonical

__all__ = ["GuardedPolicy"]


class GuardedPolicy:
    """Passes calls on to a policy and checks what comes back.

    Raises (from every method):
        PolicyError: the policy failed, its state is no JSON, or it asked for what cannot be run.
    """

    def __init__(self, policy: Policy, models: int) -> None:
        self._policy, self._models = policy, models

    def start(self, question: str, seed: int) -> State:
        """The state before anything was asked."""
        with self._mistakes("start"):
            state = self._policy.start(question, seed)
            canonical(state)
            return state

    def ask(self, state: State, room: int, known: Container[str]) -> list[Ask]:
        """New branches; ``known`` are the ids of those asked for before."""
        with self._mistakes("ask"):
            asks = self._policy.ask(state, room)
            canonical([state, [ask.to_json() for ask in asks]])
        names = [ask.id for ask in asks]
        if len(asks) > room:
            raise PolicyError(f"{self._name} asked for {len(asks)} branches with room for {room}")
        if len(set(names)) < len(names) or any(name in known for name in names):
            raise PolicyError(f"{self._name} asked for {names}: an Ask id is used again")
        for ask in asks:
            self._check(ask, known)
        return asks

    def tell(self, state: State, outcome: Outcome) -> None:
        """One more input."""
        with self._mistakes("tell"):
            self._policy.tell(state, outcome)

    def done(self, state: State) -> Pick | None:
        """The pick, if there is one."""
        with self._mistakes("done"):
            return self._policy.done(state)

    @property
    def _name(self) -> str:
        return getattr(self._policy, "name", type(self._policy).__name__)

    def _check(self, ask: Ask, known: Container[str]) -> None:
        if not ask.id or not ask.id.isprintable() or "/" in ask.id or "#" in ask.id:
            raise PolicyError(f"{self._name}: {ask.id!r} is no Ask id")
        if ask.parent is not None and ask.parent not in known:
            raise PolicyError(f"{self._name}: Ask {ask.id} has no parent {ask.parent!r}")
        if not 0 <= ask.model < self._models:
            raise PolicyError(f"{self._name}: Ask {ask.id} names model {ask.model}")

    @contextmanager
    def _mistakes(self, method: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
            raise PolicyError(f"{self._name}.{method} failed: {problem}") from error
