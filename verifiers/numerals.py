"""Numbers in prose: finding them, and reading each one exactly."""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

from longthought.tools.signs import FRACTION_SLASH, MINUS, TIMES

__all__ = ["announced_number", "boxed", "find_number", "last_mark", "read_number", "spelled"]

MAX_CHARS = 200_000  # of a text; an answer stands at its end
MAX_DIGITS = 1_000
MAX_EXPONENT = 500

_PLAIN = {**dict.fromkeys(map(ord, MINUS), "-"), ord(FRACTION_SLASH): "/", 0x202F: None}
_LATEX = re.compile(r"\\[,;:! ]|\\left|\\right|\{,\}|\\(?=[$%£€])|~")
_LATEX_FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*(-?[\d.,]+)\s*\}\s*\{\s*(-?[\d.,]+)\s*\}")
_POWER_OF_TEN = re.compile(
    rf"[ \t]?(?:[{TIMES}]|\\times|\\cdot)[ \t]?10[ \t]?(?:\^|\*\*)[ \t]?[{{]?([+-]?\d{{1,6}})[}}]?"
)
_VULGAR = re.compile(r"(\d?)([¼-¾⅐-⅞])")
_DIGIT = re.compile(r"[^\W\D]")
_DECIMAL = r"(?:\d{1,3}(?:,\d{3}){1,20}(?!\d)|\d+)(?:\.\d+)?|\.\d+"
_NUMBER = re.compile(
    rf"(?<![\w.])(?:(?P<whole>\d+)\s(?=\d+/\d))?(?P<number>{_DECIMAL})(?:[eE](?P<exponent>[+-]?\d+))?"
    rf"(?:\s?/\s?(?P<below>{_DECIMAL})(?![\d/]))?",
    re.ASCII,
)
# What may stand between a sign and its number, and what makes a minus a sign of subtraction.
_CURRENCY = re.compile(r"(?:US|CA|AU)?[$€£¥₹]\s?$")
_ANSWER = re.compile(
    r"\banswers?\b(?:[^\n.;:=]{0,60}?\b(?:is|are|equals|be)\b|[^\n.;:=\w]*(?=[:=]))[\s:=]*",
    re.IGNORECASE,
)
_HASHES = re.compile(r"####[ \t]*")
_EQUALS = re.compile(r"=\s*(?=[-+$€£¥₹(]*\.?\d)")
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")


def find_number(text: str) -> Fraction | None:
    """The number a text gives as its answer.

    The last of these marks decides: a ``\\boxed{}``, ``#### 42``, or "answer is" / "Answer:", of
    which the number after the last ``=`` on the line counts, else the first one. Without a mark it
    is the last number that follows a ``=``, else the last number of all.
    """
    text = _plain(text[-MAX_CHARS:])
    found = _announced(text)
    if found is not None:
        return found
    equals = list(_EQUALS.finditer(text))
    if equals:
        found = _first(text[equals[-1].end() :].lstrip("("))
        if found is not None:
            return found
    return _last(text)


def announced_number(text: str) -> Fraction | None:
    """The number behind the last mark of a final answer, see :func:`find_number`; or None."""
    return _announced(_plain(text[-MAX_CHARS:]))


def read_number(text: str) -> Fraction | None:
    """The value of a text that is one number and nothing else, or None."""
    text = _plain(text[:MAX_CHARS]).strip().rstrip("%").rstrip()
    found = next(_NUMBER.finditer(text), None)
    if not found or found.end() != len(text) or text[: found.start()].strip(" +-$€£¥₹"):
        return None
    return _value(found)


def last_mark(text: str, words: re.Pattern[str] = _ANSWER) -> str | None:
    """What follows the last mark of a final answer: inside a box, or the rest of the line.

    ``words`` matches the words that announce an answer.
    """
    text = text[-MAX_CHARS:]
    box = max((m.end() for m in _BOXED.finditer(text)), default=-1)
    told = (m.end() for marks in (_HASHES, words) for m in marks.finditer(text))
    line = max(told, default=-1)
    if box > line:
        return boxed(text, box)
    return _line(text, line) if line >= 0 else None


def boxed(text: str, start: int) -> str:
    """The text from ``start`` to the brace that closes a box opened just before it."""
    depth = 1
    for end in range(start, min(len(text), start + 2_000)):
        depth += (text[end] == "{") - (text[end] == "}")
        if depth == 0:
            return text[start:end]
    return _line(text, start)


def spelled(text: str) -> str:
    """The text with fractions that are one character written out, and with ASCII digits."""
    if text.isascii():
        return text
    text = _VULGAR.sub(_spell_vulgar, text)
    return _DIGIT.sub(lambda m: str(unicodedata.decimal(m[0], m[0])), text)


def _line(text: str, start: int) -> str:
    """The rest of the line, or the next line that holds anything when the rest is empty."""
    rest = text[start : start + 2_000].lstrip()
    return rest.split("\n", 1)[0]


def _plain(text: str) -> str:
    """The text with one minus sign, ASCII digits, and without LaTeX spacing and escapes."""
    text = spelled(text.translate(_PLAIN))
    text = _POWER_OF_TEN.sub(r"e\1", text)
    if "\\" in text or "{" in text:
        text = _LATEX_FRACTION.sub(r"\1/\2", text)
        text = _LATEX.sub(lambda m: "," if m[0] == "{,}" else "", text)
    return text.replace("*", "").replace("__", "")


def _spell_vulgar(match: re.Match[str]) -> str:
    spelled = unicodedata.normalize("NFKC", match[2]).replace(FRACTION_SLASH, "/")
    return f"{match[1]} {spelled}" if match[1] else spelled


def _announced(text: str) -> Fraction | None:
    marked = last_mark(text)
    return None if marked is None else _in_answer(marked)


def _in_answer(text: str) -> Fraction | None:
    """The number of a marked answer: after its last ``=`` if there is one, else the first."""
    _, equals, after = text.rpartition("=")
    if equals:
        found = _first(after)
        if found is not None:
            return found
    return _first(text)


def _first(text: str) -> Fraction | None:
    for match in _NUMBER.finditer(text):
        value = _value(match)
        if value is not None:
            return value
    return None


def _last(text: str) -> Fraction | None:
    for match in reversed(list(_NUMBER.finditer(text))):
        value = _value(match)
        if value is not None:
            return value
    return None


def _value(match: re.Match[str]) -> Fraction | None:
    """The exact value, or None for a number too large to be an answer."""
    exponent = match["exponent"] or "0"
    if match.end() - match.start() > MAX_DIGITS or len(exponent) > 5:
        return None
    if abs(int(exponent)) > MAX_EXPONENT:
        return None
    value = Fraction(match["number"].replace(",", "")) * Fraction(10) ** int(exponent)
    if match["below"]:
        below = Fraction(match["below"].replace(",", ""))
        if below == 0:
            return None
        value /= below
    if match["whole"]:
        value += int(match["whole"])
    return -value if _negative(match.string[: match.start()][-12:]) else value


def _negative(before: str) -> bool:
    """Whether the text before a number ends in its minus sign, and not in one of subtraction."""
    close = before.endswith("-")
    text = _CURRENCY.sub("", before[:-1] if close else before)
    if close and not text.endswith("-"):
        return not re.search(r"[\w)\]}]$", text)
    spaced = text.rstrip()
    if not spaced.endswith("-"):
        return False
    earlier = spaced[:-1].rstrip()
    if spaced == text:  # the sign touches the number or its currency
        return not re.search(r"[\w)\]}]$", spaced[:-1])
    return not earlier or earlier[-1] in "=(:"
