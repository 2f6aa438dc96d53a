"""Equations as people and models write them in prose: found, and put into plain expressions.

A *chain* is what stands between words: sides joined by equal signs, ``3 * 4 = 12 = 24 / 2``. Each
pair of neighbours is one equation. A side that letters belong to (``x + 3``, ``5 eggs * 2``) is no
arithmetic and makes no equation.

Prose is ambiguous. Where a sign may be a bullet, where a word may be part of the sum ("half of
10 + 4 = 9") or of the result ("= 3 million"), the equation is ``doubtful``: it may be right as it
stands, but if it is not, nothing is known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from longthought.tools.signs import ARITHMETIC
from longthought.verifiers.numerals import spelled

__all__ = ["Equation", "Reading", "Side", "equations_in", "settled"]

MAX_CHARS = 200_000  # of a text; what matters most stands at its end
MAX_TOKENS = 60  # of one side
MAX_DIGITS = 40  # of one number


@dataclass(frozen=True, slots=True)
class Reading:
    """One way to read a side: an expression, and if it is but a number its decimal places."""

    expression: str
    places: int | None = None


@dataclass(frozen=True, slots=True)
class Side:
    """One side of an equation. ``text`` is the side as written.

    ``computed``: it holds an operation. ``decimal``: a number in it shows decimals. ``cut``: three
    dots follow, its digits are cut off and not rounded. ``shared``: what follows may be the
    remainder of a division.
    """

    text: str
    readings: tuple[Reading, ...]
    computed: bool
    decimal: bool
    doubtful: bool
    cut: bool = False
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Equation:
    """Two neighbours in a chain. ``about``: they are joined by ≈."""

    left: Side
    right: Side
    about: bool

    @property
    def text(self) -> str:
        """As it is written, both sides without what stands around them."""
        return f"{self.left.text} {'≈' if self.about else '='} {self.right.text}"

    @property
    def doubtful(self) -> bool:
        """Whether one of the sides may have been meant in another way."""
        return self.left.doubtful or self.right.doubtful


def settled(text: str) -> str:
    """The part of an unfinished text whose meaning nothing written later can change.

    It ends with the last line, sentence or ``;``. What follows may go on in any way: ``= 1`` may
    become ``= 15``, ``= 24`` may become ``= 24 / 2``.
    """
    text = text[-2 * MAX_CHARS :]
    return text[: max((found.end() for found in _SETTLED.finditer(text)), default=0)]


def equations_in(text: str) -> Iterator[Equation]:
    """The equations of a text, in order; takes time in proportion to its length."""
    if len(text) > MAX_CHARS:  # a number must not be cut in two
        text = text[-MAX_CHARS:].partition("\n")[2]
    for line in _plain(text).split("\n"):
        if "=" in line or "≈" in line:
            annotations = _ANNOTATION.findall(line)
            for part in (_ANNOTATION.sub("", line), *annotations) if annotations else (line,):
                yield from _in_line(part)


# -- to one way of writing ------------------------------------------------------------------------

_SETTLED = re.compile(r"\n|(?<!\\);|[.!?](?=\s)")
_ANNOTATION = re.compile(r"<<([^<>]*)>>")  # of a calculator, as in GSM8K: $<<9*2=18>>18
_SUPERSCRIPT = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_DIGITS = r"(\d{1,12})"
_GROUP = r"\s{0,3}\{([^{}\n]{1,60})\}"
_REWRITTEN: list[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]] = [
    (re.compile(r"\n[ \t]*&?[ \t]*(?==(?![=>]))"), " "),  # a side on a line of its own
    (re.compile(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+"), lambda found: "^" + found[0].translate(_SUPERSCRIPT)),
    (re.compile(r"(?<=[\d)])\*\*(?=-?[\d(])|(?<=[\d)] )\*\*(?= -?[\d(])"), "^"),
    (re.compile(r"\*\*|__"), ""),  # bold
    (re.compile(r"(?<=[\d)])(?<!\b0)[xX](?=[\d($])|(?<=[\d)%] )[xX](?= [-($€£]{0,2}[\d.])"), "*"),
    (re.compile(r"\bCALL\b[ \t]{0,3}=?"), "="),  # of the embedded model's tool calls
    (re.compile(r"\b(?:US|CA|AU)(?=[$€£])"), ""),
]
_LATEX = [
    (re.compile(rf"(?<=\d) ?\\[dt]?frac\{{{_DIGITS}\}}\{{{_DIGITS}\}}"), r" \1/\2"),
    (re.compile(rf"\\[dt]?frac{_GROUP}{_GROUP}"), r"((\1)/(\2))"),
    (re.compile(r"\\(?:times|cdot|ast)(?![a-zA-Z])"), "*"),
    (re.compile(r"\\div(?![a-zA-Z])"), "/"),
    (re.compile(r"\\(?:approx|simeq)(?![a-zA-Z])"), "≈"),
    (re.compile(r"\\(?:left|right|displaystyle)(?![a-zA-Z])|\\[,;:! ]"), ""),
    (re.compile(r"\\(?:boxed|fbox|text|textbf|mathbf|mathrm|mbox)\s{0,3}\{|\\[()\[\]]"), " "),
    (re.compile(r"\\q?quad(?![a-zA-Z])"), ", "),
    (re.compile(r"\\\\"), "\n"),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\(?=[$%£€#*_])|&(?=[ \t]?=)|(?<==)&"), ""),
]


def _plain(text: str) -> str:
    """The text with one sign for each operation, and without LaTeX and Markdown around numbers."""
    if "\\" in text or "&" in text:
        for pattern, plain in _LATEX:
            text = pattern.sub(plain, text)
    text = spelled(text).translate(ARITHMETIC)
    for pattern, replaced in _REWRITTEN:
        text = pattern.sub(replaced, text)
    return text


# -- words and signs ------------------------------------------------------------------------------

_BREAKS = ("word", "mark", "odd")
_SCAN = re.compile(
    r"(?P<space>[ \t\u00a0]+)|(?P<number>\.?\d[\w.,:]*)|(?P<word>[^\W\d]\w*(?:['\u2019]\w+)?)"
    r"|(?P<mark>-+>|=>)|(?P<odd>[<>!:~]=+|=<|={3,}|-{2,})|(?P<equals>==?)|(?P<about>≈)"
    r"|(?P<sign>//|[-+*/^])|(?P<open>\()|(?P<close>\))|(?P<percent>%)|(?P<unit>[$€£¥₹°])|(?P<other>.)",
    re.DOTALL,
)
# 01 is part of a date, 000 of a number with gaps
_NUMBER = re.compile(
    r"(?:0|[1-9]\d{0,2}(?:,\d{3})+|[1-9]\d*)(?:\.\d+)?(?:[eE]\d{1,2})?|\.\d+", re.ASCII
)
_PUNCTUATION = ".,;:#([{<|\u2022\u2014\u2192"
_CLOSING = "]}>\"'`\u2018\u2019\u201c\u201d"


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    start: int
    end: int
    glued: bool  # nothing stands between it and the token before


def _tokens(line: str) -> list[_Token]:
    """The line as tokens, without white space and currency signs.

    The kinds are number, sign, open, close, percent, equals and about; and what breaks a chain:
    word, mark (punctuation) and odd (signs that say more than that something ends).
    """
    tokens: list[_Token] = []
    place, glued = 0, False
    while place < len(line):
        found = _SCAN.match(line, place)
        if found is None:  # the last alternative takes any character
            break
        kind, text = str(found.lastgroup), found[0]
        if kind == "number":
            text = text.rstrip(".,:")
            plain = _NUMBER.fullmatch(text) is not None and len(text) <= MAX_DIGITS
            in_word = glued and bool(tokens) and tokens[-1].kind == "word"
            kind = "number" if plain and not in_word else "word"
        elif kind == "other":
            kind = "mark" if text in _PUNCTUATION + _CLOSING else "odd"
        if kind not in ("space", "unit"):
            tokens.append(_Token(kind, text, place, place + len(text), glued))
        if kind != "unit":  # "is $5" begins a number like "is 5"
            glued = kind != "space"
        place += len(text)
    return _mixed(tokens)


def _mixed(tokens: list[_Token]) -> list[_Token]:
    """The tokens with ``2 1/2`` as one number."""
    merged: list[_Token] = []
    for token in tokens:
        merged.append(token)
        if len(merged) < 4 or token.kind != "number" or not token.glued:
            continue
        whole, over, slash, below = merged[-4:]
        if slash.text != "/" or not slash.glued or over.glued:
            continue
        if whole.kind == over.kind == "number" and whole.text.isdigit() and over.text.isdigit():
            text = f"({whole.text}+{over.text}/{below.text})"
            merged[-4:] = [_Token("number", text, whole.start, below.end, whole.glued)]
    return merged


# -- from tokens to equations ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Edge:
    """What stands beside a side. ``sure``: the side ends there and means what it says.

    ``operand``: a sign at the edge may belong to what stands there. ``bullet``: it may be a bullet.
    """

    sure: bool
    operand: bool = False
    bullet: bool = False


_JOINT = _Edge(True)


def _in_line(line: str) -> Iterator[Equation]:
    tokens = _tokens(line)
    start = 0
    for place in range(len(tokens) + 1):
        if place == len(tokens) or tokens[place].kind in _BREAKS:
            yield from _in_run(line, tokens, start, place)
            start = place + 1


def _in_run(line: str, tokens: list[_Token], start: int, end: int) -> Iterator[Equation]:
    """The equations between two tokens that break a chain."""
    joints = [i for i in range(start, end) if tokens[i].kind in ("equals", "about")]
    edges = [start - 1, *joints, end]
    computed = False
    for before, joint, after in zip(edges, joints, edges[2:], strict=False):
        lead = _JOINT if before >= start else _before(tokens[max(0, start - 3) : start])
        left = _left(line, tokens[before + 1 : joint], lead)
        trail = _JOINT if after < end else _after(tokens[after : after + 1])
        right = _right(line, tokens[joint + 1 : after], trail)
        computed = left is not None and (left.computed or (computed and before >= start))
        if left is not None and right is not None and (computed or right.computed):
            yield Equation(left, right, tokens[joint].kind == "about")


def _before(tokens: Sequence[_Token]) -> _Edge:
    """What the last tokens before a chain mean for its beginning."""
    if not tokens:
        return _Edge(True, bullet=True)
    last, earlier = tokens[-1], tokens[-2] if len(tokens) > 1 else None
    if last.kind == "odd":
        return _Edge(False, operand=True)
    if last.kind == "mark":
        ratio = last.text == ":" and not last.glued and earlier is not None
        return _Edge(not ratio, operand=last.text in _CLOSING, bullet=not ratio)
    word = last.text.lower()
    sure = len(word) > 1 or word in "ai"
    if word in _OF and earlier is not None:
        sure = earlier.text.lower() not in _SHARES and not earlier.text[-1:].isdigit()
    elif word in _PARTS or any(letter.isdigit() for letter in word):
        sure = False
    return _Edge(sure, operand=True)


def _after(tokens: Sequence[_Token]) -> _Edge:
    """What the token after a chain means for its end."""
    if not tokens:
        return _Edge(True)
    token = tokens[0]
    if token.kind == "mark":
        return _Edge(token.text != ":" or token.glued)
    word = token.text.lower()
    return _Edge(token.kind == "word" and len(word) > 1 and not token.glued and word not in _SCALES)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_OF = _words("of to")
_SHARES = _words(
    "half third thirds quarter quarters fourth fourths fifth fifths sixth sixths seventh sevenths "
    "eighth eighths ninth ninths tenth tenths percent percentage % root power multiple factorial "
    "square cube average mean median rest fraction"
)
"""Before "of": what follows is only what is computed with."""
_PARTS = _words(
    "twice thrice double triple half times plus minus mod modulo over by than from choose root "
    "sqrt log ln exp sin cos tan squared cubed percent per not instead except without"
)
"""Words whose neighbour may be part of a larger sum, or is not claimed at all."""
_SCALES = _words(
    "hundred thousand million billion trillion dozen percent am pm mod modulo remainder rem plus "
    "minus times over divided multiplied squared cubed point or to"
)
"""Words that make another number of the one before them."""
_REMAINDER = re.compile(
    r"[^.;=!?]{0,40}?\b(?:remainder|left|rest|[rR])\b|\s*\w{1,20},? (?:and )?\d"
)


def _left(line: str, tokens: Sequence[_Token], edge: _Edge) -> Side | None:
    """The longest expression that ends where the tokens end."""
    start = 0
    while start < len(tokens) <= MAX_TOKENS:
        good, stop, opened = _read(tokens, start)
        if good == len(tokens):
            return _led(line, tokens[start:], edge)
        if stop == len(tokens):
            if not opened:
                return None  # it ends with a sign
            start, edge = opened[-1] + 1, _JOINT
        elif tokens[stop].kind == "close":
            label = start == 0 and stop <= 1 and not edge.operand
            start, edge = stop + 1, _Edge(label or stop == 0, operand=True)
        elif tokens[stop].kind in ("number", "open"):
            start, edge = stop, _Edge(False)
        elif stop == start and edge.bullet and tokens[stop].text == "*":
            start, edge = start + 1, _JOINT
        else:
            return None
    return None


def _led(line: str, tokens: Sequence[_Token], edge: _Edge) -> Side | None:
    """The side these tokens are, behind this edge: a sign at its beginning may be none of it."""
    first = tokens[0]
    if first.kind != "sign":
        return _side(line, [tokens], edge.sure)
    if edge.operand:  # only "costs -3 + 5" is no difference
        unary = edge.sure and first.text == "-" and not first.glued and tokens[1].glued
        return _side(line, [tokens], False) if unary else None
    if not edge.bullet:
        return _side(line, [tokens], edge.sure)
    either = [tokens, tokens[1:]]
    return _side(line, either if tokens[1].glued else either[::-1], edge.sure)


def _right(line: str, tokens: Sequence[_Token], edge: _Edge) -> Side | None:
    """The longest expression that begins where the tokens begin."""
    good = _read(tokens, 0)[0] if len(tokens) <= MAX_TOKENS else 0
    if not good:
        return None
    sure = edge.sure
    if good < len(tokens):
        after, last = tokens[good], good == len(tokens) - 1
        if after.kind == "close":
            sure = True
        elif after.kind == "open":  # what stands in brackets may be a factor
            sure = last and edge.sure
        else:  # a star that closes emphasis
            sure = last and after.text == "*" and after.glued and edge.sure
    return _side(line, [tokens[:good]], sure)


def _read(tokens: Sequence[_Token], start: int) -> tuple[int, int, list[int]]:
    """Read an expression from ``start`` on.

    Returned are the end of the longest one that is complete (0 if there is none), where reading
    stopped, and the places of the brackets that were open then.
    """
    good, opened, expecting, signs = 0, list[int](), True, 0
    for i in range(start, len(tokens)):
        token = tokens[i]
        match token.kind:
            case "number" if expecting:
                expecting = False
            case "open" if expecting or token.glued:
                opened.append(i)
                expecting, signs = True, 0
            case "close" if opened and not expecting:
                opened.pop()
            case "sign" if not expecting:
                expecting, signs = True, 0
            case "sign" if token.text in "+-" and signs == 0:
                signs = 1
            case "percent" if not expecting:
                expecting = _modulo(tokens, i)
                signs = 0
            case _:
                return good, i, opened
        if not opened and not expecting:
            good = i + 1
    return good, len(tokens), opened


def _modulo(tokens: Sequence[_Token], place: int) -> bool:
    """Whether a percent sign is the operation."""
    return place + 1 < len(tokens) and tokens[place + 1].kind in ("number", "open")


def _implied(tokens: Sequence[_Token], place: int) -> bool:
    """Whether a bracket opens right behind a factor, as in ``2(3 + 4)``."""
    if place == 0 or tokens[place].kind != "open":
        return False
    before = tokens[place - 1].kind
    return before in ("number", "close") or (before == "percent" and not _modulo(tokens, place - 1))


def _side(line: str, ways: Sequence[Sequence[_Token]], sure: bool) -> Side:
    """The side that these tokens are, in every way in which they can be read."""
    tokens = ways[0]
    numbers = [token.text for token in tokens if token.kind == "number"]
    signs = {token.text for token in tokens if token.kind == "sign"}
    shares = sum(
        token.kind == "percent" and not _modulo(tokens, i) for i, token in enumerate(tokens)
    )
    mixed = any(text[0] == "(" for text in numbers)
    implied = any(_implied(tokens, i) for i in range(len(tokens)))
    # 200 + 10% may be 220; 6 / 2(1 + 2) is 1 or 9
    unclear = (0 < shares < len(numbers) and not signs.isdisjoint("+-")) or (
        implied and "/" in signs
    )
    places = None
    if len(numbers) == 1 and not mixed:
        places = len(numbers[0].partition(".")[2]) if "e" not in numbers[0].lower() else None
    readings = []
    for way in ways:
        if shares:
            fine = None if places is None else places + 2
            readings.append(Reading(_expression(way, share=True), fine))
        readings.append(Reading(_expression(way), places))
    end = tokens[-1].end
    return Side(
        line[tokens[0].start : end],
        tuple(readings),
        computed=len(numbers) > 1,
        decimal=any("." in text for text in numbers),
        doubtful=not sure or mixed or unclear,
        cut=line.startswith(("..", "\u2026"), end),
        shared=_REMAINDER.match(line, end) is not None,
    )


def _expression(tokens: Sequence[_Token], *, share: bool = False) -> str:
    """What the calculator is given; with ``share`` 50% is a half, else 50."""
    parts: list[str] = []
    for i, token in enumerate(tokens):
        if token.kind == "percent" and not _modulo(tokens, i):
            parts.append("/100" if share else "")
        elif _implied(tokens, i):
            parts.append("*(")
        else:
            parts.append(token.text)
    return " ".join(parts)
