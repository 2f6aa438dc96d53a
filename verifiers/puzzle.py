"""The verifier of make-a-target puzzles: exact, and able to judge an unfinished line of steps."""

from __future__ import annotations

from fractions import Fraction

from longthought.tools.loops import in_thread
from longthought.types import Candidate, JSONObject, JudgeContext, Verdict
from longthought.verifiers.protocol import verdict
from longthought.verifiers.puzzles import (
    Puzzle,
    Step,
    marked_expression,
    parse_puzzle,
    reachable,
    show,
    solution_in,
    steps_in,
    walk,
)

__all__ = ["PuzzleVerifier", "puzzle"]

MAX_ORACLE_NUMBERS = 5
_BLOCKING_NUMBERS = 4  # up to here reachability is decided in a few milliseconds


def puzzle(*, oracle: bool = False, integers: bool = False) -> PuzzleVerifier:
    """A verifier for questions like ``4 7 8 8 -> 24``.

    A finished candidate passes when its steps are exact arithmetic on the numbers at hand, use
    each number once and end at the target; an expression alone may stand for the steps. An
    unfinished one fails as soon as a written step is wrong, else it passes with score 0.5.

    ``oracle``: an unfinished candidate fails as well when the target cannot be reached from the
    numbers left (up to five of them). That is knowledge no reasoner has: it is labelled in
    ``spec()`` and belongs into comparisons only. ``integers``: every result must be a whole number
    not below zero, which is the rule of the embedded model.
    """
    return PuzzleVerifier(oracle=oracle, integers=integers)


class PuzzleVerifier:
    """See :func:`puzzle`."""

    name = "puzzle"

    def __init__(self, *, oracle: bool = False, integers: bool = False) -> None:
        self.oracle, self.integers = oracle, integers

    def spec(self) -> JSONObject:
        """Kind and parameters; ``oracle`` stands there when it is on."""
        pairs: JSONObject = {"kind": self.name}
        if self.oracle:
            pairs["oracle"] = True
        if self.integers:
            pairs["integers"] = True
        return pairs

    async def judge(self, candidate: Candidate, context: JudgeContext) -> Verdict:
        """The verdict on steps or an expression; never calls a model."""
        asked = parse_puzzle(candidate.question)
        if asked is None:
            return Verdict(0.0, None, "the question is no puzzle of the form 4 7 8 8 -> 24")
        if candidate.final:
            return self._finished(asked, candidate)
        return await self._unfinished(asked, candidate.text)

    def _finished(self, asked: Puzzle, candidate: Candidate) -> Verdict:
        steps = steps_in(candidate.text)
        if steps and marked_expression(candidate.text) is None:
            return self._followed(asked, steps)
        expression = solution_in(candidate.text) or solution_in(candidate.answer or "")
        if expression is None:
            return verdict(False, "no steps and no expression found")
        problem = asked.solved_by(expression, integers=self.integers)
        return verdict(not problem, problem or f"the expression makes {asked.target}")

    def _followed(self, asked: Puzzle, steps: list[Step]) -> Verdict:
        hand, problem = walk(asked.numbers, steps, integers=self.integers)
        if problem:
            return verdict(False, problem)
        if len(hand) > 1:
            return verdict(False, f"numbers are left over: {show(hand)}")
        if set(hand) != {asked.target}:
            return verdict(False, f"the steps end at {show(hand)}, not at {asked.target}")
        return verdict(True, f"every step is right and the last makes {asked.target}")

    async def _unfinished(self, asked: Puzzle, text: str) -> Verdict:
        steps = steps_in(text)
        hand, problem = walk(asked.numbers, steps, integers=self.integers)
        if problem:
            return verdict(False, problem)
        if len(hand) == 1 and set(hand) != {asked.target}:
            return verdict(False, f"all numbers are used and make {show(hand)}")
        if len(hand) == 1 and steps and steps[-1].result == asked.target:
            return verdict(True, f"all numbers are used and make {show(hand)}")
        if self.oracle and not await self._within_reach(hand, asked.target):
            return verdict(False, f"{asked.target} cannot be reached from {show(hand)}")
        return verdict(True, f"right so far, {show(hand)} left", score=0.5)

    async def _within_reach(self, hand: tuple[Fraction, ...], target: int) -> bool:
        """Whether the target can still be made; more numbers than can be searched count as yes."""
        if len(hand) > MAX_ORACLE_NUMBERS:
            return True
        if len(hand) <= _BLOCKING_NUMBERS:
            return reachable(hand, target, self.integers)
        return await in_thread(lambda: reachable(hand, target, self.integers))
