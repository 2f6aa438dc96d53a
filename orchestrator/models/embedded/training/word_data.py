"""The training generator of word problems: what is asked, and how it is thought about.

One segment is a problem with up to three branches: a chain of thought, the same with a tool call
for each result, and the answer at once. Besides there are bare sums. A product with 11 to 19 is
thought in parts: ``12 * 37`` as ``37 * 2 = 74``, ``37 * 10 = 370``, ``74 + 370 = 444``.

**The demonstrator is careless on purpose**: in the second half of training, one result out of
eight has a digit that is off by one, and what follows goes on from the wrong number. That is where
the model's own slips come from, which voting, checking and tools then mend.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from longthought.orchestrator.models.embedded.training.packing import Segment
from longthought.orchestrator.models.embedded.words import problems as p
from longthought.orchestrator.models.embedded.words import vocabulary as v

__all__ = ["chain_lines", "segments", "training_problem"]

_SUMS_SHARE = 0.45
_TOOL_SHARE = 0.55
_SLIPS = 0.12  # of the results in a chain of thought
_DIRECT_SHARE = (1.0, 0.5, 0.2, 0.2, 0.2)  # by number of steps: most of the longer ones are lost
_SIGN = {sign: token for token, sign in v.OPERATORS.items()}


def chain_lines(steps: Sequence[p.Step]) -> list[p.Step]:
    """The lines of a chain of thought, without slips."""
    lines: list[p.Step] = []
    for step in steps:
        left, right = step.left, step.right
        if step.operator == "*" and 11 <= left <= 19:
            units, tens = right * (left % 10), right * 10
            lines.append(p.Step(right, "*", left % 10, units))
            lines.append(p.Step(right, "*", 10, tens))
            lines.append(p.Step(units, "+", tens, step.result))
        else:
            lines.append(step)
    return lines


def _careless(draw: random.Random, lines: list[p.Step], share: float) -> list[p.Step]:
    """The lines with slips; later lines use the wrong numbers. Unchanged if that leads nowhere."""
    wrong: dict[int, int] = {}
    written: list[p.Step] = []
    for line in lines:
        # numbers below ten come from the problem, larger ones may be results of the lines before
        left = wrong.get(line.left, line.left) if line.left > 9 else line.left
        right = wrong.get(line.right, line.right) if line.right > 9 else line.right
        result = p.apply(left, line.operator, right)
        if result is None:
            return lines
        if draw.random() < share:
            result = _slip(draw, result)
        if result != line.result:
            wrong[line.result] = result
        written.append(p.Step(left, line.operator, right, result))
    return written


def _slip(draw: random.Random, result: int) -> int:
    """The number with one digit off by one, if that is a number of the same length."""
    length = len(str(result))
    other = result + draw.choice((-1, 1)) * 10 ** draw.randrange(length)
    return other if 0 < other <= p.LARGEST and len(str(other)) == length else result


def _operation(line: p.Step) -> list[int]:
    return [*v.digits_of(line.left), _SIGN[line.operator], *v.digits_of(line.right)]


def _answer(into: Segment, number: int) -> Segment:
    into.add([v.ANSWER, *v.digits_of(number), v.END], True)
    return into


def _chain(draw: random.Random, problem: p.Problem, slips: float) -> Segment:
    made = Segment([v.MODE_CHAIN], [False])
    lines = chain_lines(problem.steps)
    if slips:
        lines = _careless(draw, lines, slips)
    for line in lines:
        made.add([*_operation(line), v.EQUALS, *v.digits_of(line.result), v.NEWLINE], True)
    return _answer(made, lines[-1].result)


def _tool(problem: p.Problem) -> Segment:
    made = Segment([v.MODE_TOOL], [False])
    for step in problem.steps:
        made.add([*_operation(step), v.CALL], True)
        made.add([*v.digits_of(step.result), v.RETURN], False)
    return _answer(made, problem.answer)


def training_problem(draw: random.Random) -> p.Problem:
    """A problem that no rule keeps out of training: the only ones this generator writes."""
    while True:
        problem = p.random_problem(draw)
        if not p.is_reserved(problem):
            return problem


def _problem(draw: random.Random, slips: float) -> Segment:
    problem = training_problem(draw)
    prompt = [*v.encode(problem.text), v.COLON]
    made = Segment(prompt, [False] * len(prompt), [_chain(draw, problem, slips)])
    if draw.random() < _TOOL_SHARE:
        made.branches.append(_tool(problem))
    if draw.random() < _DIRECT_SHARE[len(problem.steps) - 1]:
        made.branches.append(_answer(Segment([v.MODE_DIRECT], [False]), problem.answer))
    return made


def _sum(draw: random.Random) -> Segment:
    """One bare operation, of the sizes that occur in problems."""
    while True:
        operator = draw.choice("++--***/")
        low = draw.choice((99, 999, p.LARGEST))
        if operator == "+":
            left, right = draw.randint(11, low), draw.randint(11, draw.choice((99, 999, 5000)))
        elif operator == "-":
            left = draw.randint(20, low)
            right = draw.randint(11, min(left - 1, draw.choice((99, 999, 5000))))
        elif operator == "*":
            left, right = draw.randint(11, low), draw.choice((2, 3, 4, 5, 6, 7, 8, 9, 10))
            if draw.random() < 0.3:
                left, right = right, left
        else:
            right = draw.choice((2, 3, 5))
            left = right * draw.randint(5, low)
        result = p.apply(left, operator, right)
        if result is not None and left <= p.LARGEST:
            break
    line = p.Step(left, operator, right, result)
    made = Segment([v.MODE_SUM, *_operation(line), v.EQUALS], [])
    made.trained.extend([False] * len(made.tokens))
    made.add([*v.digits_of(result), v.NEWLINE], True)
    return made


def segments(seed: int | str, progress: float = 0.0) -> Iterator[Segment]:
    """An endless stream of training examples, the same for the same seed.

    ``progress`` is the share of the training that is over: slips come in its second half.
    """
    draw = random.Random(seed)
    slips = _SLIPS if progress >= 0.5 else 0.0
    while True:
        yield _sum(draw) if draw.random() < _SUMS_SHARE else _problem(draw, slips)
