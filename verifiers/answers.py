"""Answer kinds: how an answer is found in prose, brought to one form, and compared.

Use it as a namespace: ``from longthought import answers; answers.number()``.
"""

from __future__ import annotations

import builtins
import math
import re
from collections.abc import Callable, Sequence
from fractions import Fraction

from pydantic import BaseModel

from longthought.errors import InvalidInput
from longthought.tools.calculator import exact_text
from longthought.tools.signs import QUOTES
from longthought.tools.source import qualified_name, source_version
from longthought.types import JSONObject
from longthought.verifiers.expressions import normal_form
from longthought.verifiers.json_answers import JSONKind
from longthought.verifiers.numerals import announced_number, find_number, last_mark, read_number
from longthought.verifiers.puzzles import parse_puzzle, solution_in

__all__ = ["callable", "choice", "exact", "json", "number", "puzzle"]


def number(tolerance: float | None = None) -> Number:
    """A number, exact. ``0.5``, ``.50``, ``1/2``, ``½`` and ``\\frac{1}{2}`` are one answer.

    Found after ``\\boxed``, ``####``, "answer is" or ``=``, else the last number of the text; with
    thousands separators, decimals, fractions, powers of ten, currency and percent signs (both are
    read as units and dropped: ``50%`` is 50). The canonical form is a whole number, a terminating
    decimal, or a fraction in lowest terms. ``tolerance`` is the largest absolute difference at
    which two answers are still equal; votes are counted by the exact form all the same.

    Raises:
        InvalidInput: the tolerance is negative or no number.
    """
    return Number(tolerance)


def exact(*, strip: bool = True, case: bool = True) -> Exact:
    """The text after the last "Answer:" or in ``\\boxed``, else the last line that is not empty.

    ``strip`` takes away white space, quotes, Markdown emphasis and a final full stop around it;
    ``case=False`` ignores the case of letters.
    """
    return Exact(strip=strip, case=case)


def choice(options: Sequence[str]) -> Choice:
    """One of a few labels: ``answers.choice("ABCD")`` or ``answers.choice(["yes", "no"])``.

    Found after ``\\boxed``, "answer is" or "Answer:", else in brackets like ``(B)``, else alone on
    the last line. A text that names two labels where one is wanted holds no answer.

    Raises:
        InvalidInput: fewer than two labels, empty ones, or two that differ by case alone.
    """
    return Choice(options)


def json(form: type[BaseModel] | JSONObject) -> JSONKind:
    """JSON of the form that a pydantic model or a JSON schema describes.

    Found as the whole text, in the last fenced block, else as the last object or array in prose;
    what is not valid is no answer. The canonical form has sorted keys, no spaces, plain numbers
    and, for a model, its defaults, so that votes are counted by value.

    Raises:
        InvalidInput: the form is neither, or cannot be used.
    """
    return JSONKind(form)


def callable(function: Callable[[str], str | None]) -> FunctionKind:  # noqa: A001 (the public name)
    """An answer found by your own function from text to canonical form, or None.

    Apply it to its own result and it should give that result again. A function that raises has
    found nothing.

    Raises:
        InvalidInput: what is given cannot be called.
    """
    return FunctionKind(function)


def puzzle() -> PuzzleKind:
    """The expression that solves a make-a-target puzzle, from steps or written out.

    ``8 / 8 = 1; 7 - 1 = 6; 6 * 4 = 24. DONE`` and ``(7 - 8 / 8) * 4`` are both found as
    ``4 * (7 - 8 / 8)``. Only what follows the last ``BACK`` counts. An answer is equal to another
    with the same normal form, and to a question (``4 7 8 8 -> 24``) that it solves: the gold of a
    puzzle is its question.
    """
    return PuzzleKind()


class Number:
    """See :func:`number`."""

    name = "number"

    def __init__(self, tolerance: float | None = None) -> None:
        if tolerance is not None and not (math.isfinite(tolerance) and tolerance >= 0):
            raise InvalidInput("tolerance", f"{tolerance!r} is no number from 0 up")
        self.tolerance = tolerance

    def spec(self) -> JSONObject:
        """Kind and tolerance."""
        pairs: JSONObject = {"kind": self.name}
        return pairs if self.tolerance is None else {**pairs, "tolerance": self.tolerance}

    def find(self, text: str) -> str | None:
        """The final number of a text, exact."""
        value = find_number(text)
        return None if value is None else exact_text(value)

    def concludes(self, text: str) -> bool:
        """Whether the number is announced as the answer (boxed, ``####``, "answer is")."""
        return announced_number(text) is not None

    def equal(self, a: str, b: str) -> bool:
        """Equal values, or values no further apart than the tolerance."""
        if a == b:
            return True
        left, right = read_number(a), read_number(b)
        if left is None or right is None:
            return False
        return abs(left - right) <= Fraction(self.tolerance or 0)


class Exact:
    """See :func:`exact`."""

    name = "exact"

    def __init__(self, *, strip: bool = True, case: bool = True) -> None:
        self.strip, self.case = strip, case

    def spec(self) -> JSONObject:
        """Kind and parameters."""
        return {"kind": self.name, "strip": self.strip, "case": self.case}

    def find(self, text: str) -> str | None:
        """The marked answer or the last line that holds anything."""
        marked = last_mark(text, _LABELLED)
        while marked is not None and marked != text:
            text, marked = marked, last_mark(marked, _LABELLED)
        lines = [line for line in text.splitlines() if line.strip()]
        if not lines:
            return None
        line = _bare(lines[-1]) if self.strip else lines[-1]
        return (line if self.case else line.casefold()) or None

    def concludes(self, text: str) -> bool:
        """Whether the answer is announced; the last line of a text alone is no end of a thought."""
        marked = last_mark(text, _LABELLED)
        return marked is not None and bool(_bare(marked))

    def equal(self, a: str, b: str) -> bool:
        """The same text, in the same case unless case is ignored."""
        return a == b or (not self.case and a.casefold() == b.casefold())


class Choice:
    """See :func:`choice`."""

    name = "choice"

    def __init__(self, options: Sequence[str]) -> None:
        self.options = tuple(str(option).strip() for option in options)
        if len(self.options) < 2 or not all(self.options):
            raise InvalidInput("options", "two or more labels are needed, none of them empty")
        self._labels = {option.casefold(): option for option in self.options}
        if len(self._labels) < len(self.options):
            raise InvalidInput("options", "two labels are the same apart from case")
        label = "|".join(re.escape(o) for o in sorted(self.options, key=len, reverse=True))
        # One letter in lower case is more often a word ("a") than a label.
        label = label if all(len(o) == 1 for o in self.options) else f"(?i:{label})"
        end = r"(?![\w'\u2019-]|\.\w)"
        opening = r"[\s:*_`\"'(\[{$\\]*(?:(?i:the|option|choice|letter|answer|text)\b[\s:*({]*)*"
        self._leading = re.compile(rf"{opening}({label}){end}")
        self._second = re.compile(
            rf"[)\]*_.\"'\s]*(?:,|/|&|\b(?:or|and)\b)\s*[(\[*]*({label}){end}"
        )
        self._bracketed = re.compile(rf"[(\[]({label})[)\]]")

    def spec(self) -> JSONObject:
        """Kind and labels."""
        return {"kind": self.name, "options": list(self.options)}

    def find(self, text: str) -> str | None:
        """The label a text decides for; None when it names several or none."""
        alone = self._labels.get(_bare(text[:200]).strip("()[].: ").casefold())
        if alone and len(text) <= 200:
            return alone
        marked = last_mark(text, _LABELLED)
        if marked is not None:
            return self._decided(marked)
        lines = [line for line in text.splitlines() if line.strip()]
        if not lines:
            return None
        named = {self._labels[found.casefold()] for found in self._bracketed.findall(lines[-1])}
        if named:
            return named.pop() if len(named) == 1 else None
        return self._labels.get(_bare(lines[-1]).strip("()[].: ").casefold())

    def equal(self, a: str, b: str) -> bool:
        """The same label."""
        return a.casefold() == b.casefold()

    def _decided(self, marked: str) -> str | None:
        """The label a marked answer begins with, unless a second one follows at once."""
        alone = self._labels.get(_bare(marked).strip("()[].:${} ").casefold())
        if alone:
            return alone
        first = self._leading.match(marked)
        if not first:
            return None
        second = self._second.match(marked, first.end())
        if second and second[1].casefold() != first[1].casefold():
            return None
        return self._labels[first[1].casefold()]


class FunctionKind:
    """See :func:`callable`."""

    name = "callable"

    def __init__(self, function: Callable[[str], str | None]) -> None:
        if not builtins.callable(function):
            raise InvalidInput("answer function", f"{function!r} cannot be called")
        self.function = function

    def spec(self) -> JSONObject:
        """The function's qualified name and the hash of its source."""
        return {
            "kind": self.name,
            "function": qualified_name(self.function),
            "version": source_version(self.function),
        }

    def find(self, text: str) -> str | None:
        """What the function finds."""
        try:
            found = self.function(text)
        except Exception:  # an unforeseen text is no reason to lose a branch
            return None
        return None if found is None else str(found)

    def equal(self, a: str, b: str) -> bool:
        """The same text."""
        return a == b


class PuzzleKind:
    """See :func:`puzzle`."""

    name = "puzzle"

    def spec(self) -> JSONObject:
        """The kind."""
        return {"kind": self.name}

    def find(self, text: str) -> str | None:
        """The normal form of the expression the text arrives at."""
        expression = solution_in(text)
        return None if expression is None else normal_form(expression)

    def equal(self, a: str, b: str) -> bool:
        """The same normal form; or one is a puzzle and the other solves it."""
        if a == b:
            return True
        for question, answer in ((a, b), (b, a)):
            asked, expression = parse_puzzle(question), solution_in(answer)
            if asked is not None and expression is not None:
                return not asked.solved_by(expression)
        return False


# "Answer:" or "the answer is" wherever a label or a text may follow.
_LABELLED = re.compile(
    r"\banswer\b(?:[^\n.;:]{0,60}?\bis\b(?!\s+not\b)[\s:]*|[^\n.;:\w]*:[\s*_]*)", re.IGNORECASE
)


def _bare(text: str) -> str:
    """The text without white space, quotes, emphasis and a final full stop around it."""
    before = None
    while before != text:
        before = text
        text = text.strip().strip("*_" + QUOTES).removesuffix(".").rstrip()
    return text
