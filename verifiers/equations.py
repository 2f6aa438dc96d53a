"""The verifier of written arithmetic: every equation in a text must be right."""

from __future__ import annotations

from fractions import Fraction

from longthought.errors import InvalidInput
from longthought.tools.calculator import evaluate, exact_text
from longthought.tools.loops import in_thread
from longthought.types import Candidate, JSONObject, JudgeContext, Verdict
from longthought.verifiers.chains import Equation, Side, equations_in, settled
from longthought.verifiers.protocol import verdict

__all__ = ["EquationsVerifier", "equations"]

_BLOCKING_CHARS = 10_000  # longer texts are read in a thread
_SHOWN_CHARS = 40  # of a value, in a reason
_FLOAT_PLACES = 10  # a number with more decimals comes from binary arithmetic


def equations() -> EquationsVerifier:
    """A verifier that checks every equation ``a op b = c`` in a text, without knowing the answer.

    It fails a candidate with a wrong equation, the reason names the first; it passes one whose
    equations are right; and it cannot say (score 0.5) where none is written. Right is what is
    equal, or equal when rounded to the decimals shown: ``10 / 3 = 3.33``. Equations with letters
    are no arithmetic and are left out, and so are those that may be meant in another way.

    An unfinished candidate is judged up to its last complete line, sentence or ``;``: what follows
    may still become right. The unfinished candidates of a branch end where a step ends, and are
    judged whole.
    """
    return EquationsVerifier()


class EquationsVerifier:
    """See :func:`equations`."""

    name = "equations"

    def spec(self) -> JSONObject:
        """The kind."""
        return {"kind": self.name}

    async def judge(self, candidate: Candidate, context: JudgeContext) -> Verdict:
        """The verdict on all that is written so far; never calls a model."""
        # What a branch hands in ended at a stop string; only a bare text may go on anywhere.
        whole = candidate.final or bool(candidate.messages)
        text = candidate.text if whole else settled(candidate.text)
        if len(text) > _BLOCKING_CHARS:
            return await in_thread(lambda: _judged(text))
        return _judged(text)


def _judged(text: str) -> Verdict:
    right = found = 0
    for equation in equations_in(text):
        found += 1
        problem = _problem(equation)
        if problem:
            return verdict(False, f"{equation.text}: {problem}")
        right += problem is not None
    if right:
        return verdict(
            True, "the equation is right" if right == 1 else f"{right} equations, all right"
        )
    return verdict(None, "its equations cannot be checked" if found else "no equation is written")


def _problem(equation: Equation) -> str | None:
    """What is wrong with an equation: empty if nothing is, None if that cannot be said."""
    unsure = equation.doubtful or equation.about
    try:
        lefts = _values(equation.left)
        rights = _values(equation.right)
    except InvalidInput:  # beyond the limits of the calculator
        return None
    except ZeroDivisionError:
        return None if unsure else "division by zero"
    pairs = [(left, right) for left in lefts for right in rights]
    least = 0 if equation.about else 1
    if any(_equal(*left, *right, least) for left, right in pairs):
        return ""
    if unsure or any(_excused(equation, left, right) for (left, _), (right, _) in pairs):
        return None
    left, right = equation.left, equation.right
    told = [(left, lefts[0][0], right), (right, rights[0][0], left)]
    values = [f"{one.text} is {_shown(value, other)}" for one, value, other in told if one.computed]
    return "; ".join(values) or "they differ"


def _values(side: Side) -> list[tuple[Fraction, int | None]]:
    """The value of each reading, with its decimal places if it is a number as it stands."""
    return [(evaluate(reading.expression), reading.places) for reading in side.readings]


def _equal(
    left: Fraction, left_places: int | None, right: Fraction, right_places: int | None, least: int
) -> bool:
    """Whether two values are equal, or one is the other rounded to ``least`` places or more."""
    apart = abs(left - right)
    if not apart:
        return True
    for places in (left_places, right_places):
        if places is not None and places >= least and 2 * apart * 10**places <= 1:
            return True
        if places is not None and places >= _FLOAT_PLACES and apart <= abs(left) / 10**12:
            return True  # 14.999999999999998, copied from a program
    return False


def _excused(equation: Equation, left: Fraction, right: Fraction) -> bool:
    """Whether a difference may be one of rounding that nobody was exact about."""
    for number, other, value, real in (
        (equation.right, equation.left, right, left),
        (equation.left, equation.right, left, right),
    ):
        places = number.readings[-1].places
        off = abs(value - real)
        if number.cut and places is not None and off * 10**places < 1:  # 2 / 3 = 0.66...
            return True
        if places == 0 and number.shared and off < 1:  # 17 / 5 = 3 with 2 left
            return True
        if places == 0 and other.decimal and 2 * off <= 1 and 50 * off <= abs(real):
            return True  # 3.33 * 3 = 10
    return False


def _shown(value: Fraction, other: Side) -> str:
    """A value in a reason, with more places than the number it is compared with."""
    text = exact_text(value)
    if len(text) <= _SHOWN_CHARS and "/" not in text:
        return text
    places = (other.readings[-1].places or 0) + 2
    if abs(value) < 10**_SHOWN_CHARS and places < _SHOWN_CHARS:
        return "about " + exact_text(Fraction(round(value * 10**places), 10**places))
    return text[:_SHOWN_CHARS] + "..."
