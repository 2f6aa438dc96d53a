"""Written equations: found in prose, checked exactly, and left alone where they may mean more."""

import re
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from longthought import Store, Workflow, strategies, verifiers
from longthought.orchestrator.models import ScriptedModel
from longthought.orchestrator.traces import explain
from longthought.tools.calculator import exact_text
from longthought.types import Candidate, Capabilities, Verifier
from longthought.verifiers import chains
from longthought.verifiers import equations as made
from longthought.verifiers.chains import equations_in, settled


async def judge(text, *, final=True, messages=()):
    return await made().judge(Candidate("How many?", text, None, final, messages), None)


def test_it_is_a_verifier():
    verifier: Verifier = verifiers.equations()
    assert (verifier.name, verifier.spec()) == ("equations", {"kind": "equations"})


# --- what is right -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "12 + 3 = 15",
        "He has 12+3=15 apples.",
        "7 = 3 + 4",
        "3 * 4 = 12 = 24 / 2",
        "2 + 3 * 4 = 14",
        "(2 + 3) * 4 = 20",
        "2 * (3 + (4 - 1)) = 12 = 3 * 4",
        "3 + 4\n= 7",
        "-3 + 5 = 2; 3 - -4 = 7; 3 * (-4) = -12",
        "12 \u00f7 4 = 3, 3 \u00d7 4 = 12, 9 \u2212 4 = 5, 3 x 4 = 12, 3x4 = 12",
        "2^10 = 1024, 2**10 = 1024, 5\u00b2 = 25",
        "2(3 + 4) = 14",
        "7 // 2 = 3 and 10 % 3 = 1",
        "1,200 + 34 = 1,234",
        "$5 + $3.50 = $8.50",
        "20% * 50 = 10",
        "1/2 = 50%",
        "100 - 20 = 80%",
        "1/2 + 1/3 = 5/6",
        "\u00bd + \u00bc = \u00be",
        "2\u00bd * 2 = 5 and 2 1/2 + 1/2 = 3",
        "1e3 + 1 = 1001",
        r"\[ \frac{1}{2} + \frac{1}{3} = \boxed{\frac{5}{6}} \]",
        r"\(5 \times 4 = 20\) and \$3 \cdot 2 = \$6, so 7 \div 2 = 3.5",
        r"\frac{5}{4} = 1 \frac{1}{4}",
        "13 * 2 = $<<13*2=26>>26",
        "8 / 8 = 1 [1 4 7 left]; 7 - 1 = 6 [4 6 left]; 6 * 4 = 24. DONE",
        "8 / 8 CALL = 1 RET",
        "x = 3 + 4 = 7",
        "- 3 + 5 = 8\n* 2 + 2 = 4\n1. 2 * 2 = 4\n2) 5 - 1 = 4\n-3 + 4 = 1",
        "**3 + 4 = 7** and *3 + 4 = 7*",
        "(3 + 4 = 7), [3 + 4 = 7], `3 + 4 = 7`",
        "\u0663 + \u0664 = \u0667",
        "0.1 + 0.2 = 0.30000000000000004",
    ],
)
async def test_right_equations_pass(text):
    verdict = await judge(text)
    assert (verdict.passed, verdict.score) == (True, 1.0), verdict.reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("12 + 3 = 16", "12 + 3 = 16: 12 + 3 is 15"),
        ("7 = 3 + 5", "7 = 3 + 5: 3 + 5 is 8"),
        ("3 * 4 = 12 = 24 / 3", "12 = 24 / 3: 24 / 3 is 8"),
        ("3 * 4 = 12 = 13", "12 = 13: they differ"),
        ("3 + 4 = 2 * 4", "3 + 4 = 2 * 4: 3 + 4 is 7; 2 * 4 is 8"),
        ("2 + 3 * 4 = 20", "2 + 3 * 4 is 14"),
        ("1 + 1 = 2, 2 + 2 = 5, 3 + 3 = 7", "2 + 2 = 5: 2 + 2 is 4"),
        ("3 + 4\n= 8", "3 + 4 is 7"),
        ("10 / 3 = 3.34", "10 / 3 is about 3.3333"),
        ("10 / 3 = 3", "10 / 3 is about 3.33"),
        ("2/3 = 0.66", "2/3 is about 0.6667"),
        ("4.95 / 0.75 = 6", "4.95 / 0.75 is 6.6"),
        ("1,200 + 34 = 1,235", "1,200 + 34 is 1234"),
        ("$5 + $3.50 = $9.50", "is 8.5"),
        ("20% * 50 = 12", "20% * 50 is 10"),
        ("5 / 0 = 0", "5 / 0 = 0: division by zero"),
        ("2^10 = 1000", "2^10 is 1024"),
        ("1. 3 + 4 = 8", "3 + 4 is 7"),
        ("(b) 3 + 4 = 8", "3 + 4 is 7"),
        ("- 3 + 4 = 8", "3 + 4 = 8: 3 + 4 is 7"),
        ("2x = 3 + 4 = 8", "3 + 4 is 7"),
        ("a total of 48 + 24 = 73 clips", "48 + 24 is 72"),
        ("that's 2+1 = 9 hours", "2+1 is 3"),
        ("13 * 2 = $<<13*2=26>>27", "13 * 2 is 26"),
        (r"\[ 3 \times 4 = \boxed{13} \]", "3 * 4 is 12"),
        ("10**40 * 10**40 = 1", "0000..."),
    ],
)
async def test_the_first_wrong_equation_is_named(text, reason):
    verdict = await judge(text)
    assert (verdict.passed, verdict.score) == (False, 0.0), verdict.reason
    assert reason in verdict.reason


@pytest.mark.parametrize("shown", ["3", "3.3", "3.33", "3.333", "3.3333333333333335"])
async def test_decimals_may_be_rounded_to_the_digits_shown(shown):
    assert (await judge(f"10 / 3 = {shown}")).passed is ("." in shown)


async def test_a_tie_may_be_rounded_either_way():
    assert (await judge("1 / 8 = 0.12, 1 / 8 = 0.13")).passed
    assert not (await judge("1 / 8 = 0.11")).passed


# --- what says nothing -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I do not know.",
        "x = 3",
        "Room 5 = 7",
        "x + 3 = 9 and 3x + 4 = 13 and y - 3 + 4 = 9",
        "5 eggs * 2 = 12 eggs",
        "f(2) = 5, sqrt(16) = 4, \u221a16 = 4, 5! = 120, max(3, 4 + 5) = 9",
        "3 + 4 != 8, 3 + 4 <= 8, 3 + 4 => 8, 3 + 4 := 8",
        "3 + 4 = ?",
        "3 + 4 = 7x",
        "9:00 + 2:30 = 11:30",
        "3,5 + 1,5 = 6",
        "1.234,56 + 1 = 2",
        "2024-01-02 = 5",
        "3 plus 4 = 8",
        "10 : 2 = 4",
        "50\u00a2 + 50\u00a2 = $1",
        "Title 3 + 4\n=======",
    ],
)
async def test_where_no_equation_is_written(text):
    verdict = await judge(text)
    assert (verdict.passed, verdict.score) == (None, 0.5)
    assert verdict.reason == "no equation is written"


@pytest.mark.parametrize(
    "text",
    [
        "half of 10 + 4 = 9",
        "\u221a16 + 9 = 13",
        "20% of 50 + 10 = 20",
        "5 more than 3 * 4 = 17",
        "10 mod 3 + 1 = 2",
        "Is 3 + 4 = 8?",
        "500 + 500 = 1 thousand",
        "3 + 4 = 9 - cost",
        "3 + 4 = 8 x",
        "$3 + 2 = $6/hour",
        "17 / 5 = 3 remainder 2",
        "17 / 5 = 3 apples with 2 left",
        "210/60 = 3 hours and 30 minutes",
        "10 + 4 = 2 (mod 12)",
        "200 + 10% = 220",
        "6 / 2(1 + 2) = 1",
        "2 / 3 = 0.66...",
        "3.33 * 3 = 10",
        "3 + 4 \u2248 9",
        "9**9**9 = 1",
        "1 + 1" + " + 1" * 40 + " = 5",
        "1" * 50 + " + 1 = 5, 2 + 2 = 4 x 4 x",
    ],
)
async def test_what_may_mean_something_else_is_never_turned_down(text):
    assert (await judge(text)).passed is not False


async def test_an_equation_that_cannot_be_checked_does_not_hide_another():
    assert (await judge("half of 10 + 4 = 9, 3 + 4 = 7")).passed is True
    assert (await judge("half of 10 + 4 = 9, 3 + 4 = 8")).passed is False
    assert (await judge("half of 10 + 4 = 9")).reason == "its equations cannot be checked"


# --- unfinished --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "passed"),
    [
        ("12 + 3 =", None),
        ("12 + 3 = 1", None),
        ("12 + 3 = 16", None),  # 16 - 1
        ("12 + 3 = 16.", None),  # 16.5 - 1.5
        ("100 * 10 = 1,", None),
        ("1000000 + 1000000 = 2 mill", None),
        ("12 + 3 = 16\n", False),
        ("12 + 3 = 16;", False),
        ("12 + 3 = 16. ", False),
        ("12 + 3 = 15\n", True),
        ("12 + 3 = 15\n4 * 5 =", True),
        ("12 + 3 = 15\n4 * 5 = 2", True),
        ("12 + 3 = 16\n4 * 5 = 2", False),
        (r"3 * 4 = 24 \;", None),
    ],
)
async def test_an_unfinished_text_is_judged_as_far_as_it_is_settled(text, passed):
    assert (await judge(text, final=False)).passed is passed


async def test_an_unfinished_branch_ends_where_its_step_ends():
    said = [{"role": "assistant", "content": "12 + 3 = 16"}]
    assert (await judge("12 + 3 = 16", final=False, messages=said)).passed is False


NUMBERS = st.integers(0, 999)
PHRASES = [
    "So there are {} apples.",
    "{}",
    "- {}",
    "1. {}",
    "First {}, then more;",
    "({})",
    "**{}**",
    "Answer: ${}$",
]


def written(value):
    text = exact_text(value)
    return f"({text})" if text.startswith("-") or "/" in text else text


@st.composite
def sums(draw):
    """A true equation, or a chain of them."""
    left, right = Fraction(draw(NUMBERS)), Fraction(draw(st.integers(1, 99)))
    sign = draw(st.sampled_from("+-*/"))
    results = {"+": left + right, "-": left - right, "*": left * right, "/": left / right}
    result = results[sign]
    text = f"{left} {sign} {right} = {written(result)}"
    if draw(st.booleans()) and result.denominator == 1:
        text += f" = {result + 7} - 7"
    if draw(st.booleans()):
        text = text.replace(" ", "")
    if draw(st.booleans()):
        text = text.translate({ord("*"): "\u00d7", ord("/"): "\u00f7", ord("-"): "\u2212"})
    return text


TEXTS = st.lists(st.tuples(st.sampled_from(PHRASES), sums()), min_size=1, max_size=4).map(
    lambda parts: "\n".join(phrase.format(one) for phrase, one in parts)
)


@given(TEXTS)
@example("12 + 3 = 15")
async def test_true_equations_pass(text):
    verdict = await judge(text)
    assert verdict.passed is True, verdict.reason


@settings(max_examples=60)
@given(TEXTS)
@example("3 * 4 = 24 / 2 = 12.")
@example("1500000 + 1500000 = 3 million.")
@example("17 / 5 = 3 remainder 2")
async def test_no_beginning_of_a_true_text_is_turned_down(text):
    for end in range(len(text)):
        verdict = await judge(text[:end], final=False)
        assert verdict.passed is not False, (text[:end], verdict.reason)


@given(TEXTS, st.text(max_size=20))
def test_what_is_settled_stays_as_it_is(text, more):
    for end in range(0, len(text), 5):
        assert settled(text[:end] + more).startswith(settled(text[:end]))


@given(
    st.integers(0, 9_999), st.integers(0, 9_999), st.sampled_from("+-*"), st.data(), st.booleans()
)
async def test_one_changed_digit_fails(left, right, sign, data, finished):
    result = str({"+": left + right, "-": left - right, "*": left * right}[sign])
    place = data.draw(st.integers(int(result[0] == "-"), len(result) - 1))
    digit = data.draw(st.sampled_from([d for d in "0123456789" if d != result[place]]))
    wrong = result[:place] + digit + result[place + 1 :]
    if re.match(r"-?0\d", wrong):  # 07 is no number
        return
    phrase = data.draw(st.sampled_from(PHRASES))
    text = phrase.format(f"{left} {sign} {right} = {wrong}")
    verdict = await judge(text if finished else text + "\n", final=finished)
    assert verdict.passed is (int(wrong) == int(result)), verdict.reason


CENTS = st.decimals(0, 999, places=2)


@given(CENTS, CENTS, CENTS.filter(bool))
async def test_a_cent_too_much_is_found(left, right, off):
    assert (await judge(f"It costs ${left} + ${right} = ${left + right}.")).passed
    assert not (await judge(f"It costs ${left} + ${right} = ${left + right + off}.")).passed


# --- any text, and its cost --------------------------------------------------------------------


@given(st.text(max_size=200), st.booleans())
async def test_any_text_is_judged(text, final):
    assert (await judge(text, final=final)).score in (0.0, 0.5, 1.0)


@settings(max_examples=300)
@given(
    st.text(alphabet="0123456789+-*/=()^%$.,:;<>x\u2248\u00bd\u00b2\\{}&\n frac", max_size=80),
    st.booleans(),
)
async def test_any_soup_of_signs_is_judged(text, final):
    assert (await judge(text, final=final)).score in (0.0, 0.5, 1.0)


class _Counting:
    """Counts the calls of a function and the characters it is given."""

    def __init__(self, function):
        self.function, self.calls, self.chars = function, 0, 0

    def __call__(self, text):
        self.calls += 1
        self.chars += len(text)
        return self.function(text)


PIECES = [
    "1", "1 ", "(", ")", "1 + ", "1+1=2 ", "1+1=2\n", "=", "=1", "\u22481", "50%=", "((1)=", "9^9",
    "9^9^9=1 ", "1/7^99+1/3^97=", "1e99/7^300=", "<<1+1=2", "\n=", "-", "--", "1.", "1,000",
    "1 1/2 ", "\\frac{1}{", "\\\\ ", "\u00bd", "\u00b2", "CALL ", "**", "'a", "= 3 a", "3 + (",
]  # fmt: skip


@pytest.mark.parametrize("piece", PIECES)
async def test_the_work_grows_with_the_length_alone(piece, monkeypatch):
    module = __import__("sys").modules["longthought.verifiers.equations"]
    work = []
    for size in (5_000, 10_000):
        counting = _Counting(module.evaluate)
        monkeypatch.setattr(module, "evaluate", counting)
        text = (piece * size)[:size]
        for equation in equations_in(text):
            module._problem(equation)
        monkeypatch.setattr(module, "evaluate", counting.function)
        assert counting.calls <= size
        assert counting.chars <= 12 * size  # two readings, each side in two equations, spaces
        work.append(counting.chars)
    assert work[1] <= 2 * work[0] + 500


@pytest.mark.parametrize("piece", PIECES)
def test_each_side_is_read_once(piece, monkeypatch):
    """Reading goes over every token a few times, however the text is made."""
    steps = 0
    read = chains._read

    def counted(tokens, start):
        nonlocal steps
        found = read(tokens, start)
        steps += found[1] - start + 1
        return found

    monkeypatch.setattr(chains, "_read", counted)
    text = (piece * 10_000)[:10_000]
    list(equations_in(text))
    assert steps <= 5 * len(text)


async def test_a_long_text_is_judged_by_its_end():
    filler = "So it goes on and on.\n" * 20_000
    assert (await judge(filler + "3 + 4 = 8")).passed is False
    assert (await judge("3 + 4 = 8\n" + filler)).passed is None
    assert (await judge("5 + 4 = 9 " * 40_000)).passed is None  # cut in the middle of its only line


# --- in a search -------------------------------------------------------------------------------


@pytest.mark.parametrize("continues", [True, False])
async def test_backtracking_rewinds_a_wrong_line(sqlite_store: Store, continues: bool):
    """At once: the line after a wrong one is never asked for."""
    asked: list[str] = []
    right = ["2 * 3 = 6\n", "6 + 4 = 10\n", "The answer is 10."]

    def said(request):
        """The next line; a wrong one at every other seed."""
        written_so_far = "".join(
            str(message["content"]) for message in request["messages"] if message["role"] != "user"
        )
        asked.append(written_so_far)
        number = sum(line.strip() in written_so_far for line in right)
        return right[number] if number == 2 or request["sampling"]["seed"] % 2 else "2 + 2 = 5\n"

    workflow = Workflow(
        "lines",
        model=ScriptedModel(said, capabilities=Capabilities(seeds=True, continues=continues)),
        answer=verifiers.answers.number(),
        verifier=verifiers.equations(),
        strategy=strategies.backtrack(width=4, depth=6),
        store=sqlite_store,
    )
    run = await workflow.run("How many?")
    assert (run.answer, run.status) == ("10", "completed")
    assert run.support["dead_ends"] == 2
    assert not any("2 + 2" in text for text in asked)


@pytest.mark.parametrize("fallback", [False, True])
async def test_a_checked_vote(sqlite_store: Store, fallback: bool):
    """Samples with wrong equations do not vote; where all are wrong, only the fallback answers."""

    async def voted(*said):
        workflow = Workflow(
            "vote",
            model=ScriptedModel(lambda request: said[request["sampling"]["seed"]]),
            answer=verifiers.answers.number(),
            verifier=verifiers.equations(),
            strategy=strategies.sample(len(said), select=strategies.majority(fallback=fallback)),
            store=sqlite_store,
        )
        run = await workflow.run("How many?")
        assert (await workflow.replay(run.id)).answer == run.answer
        return run

    run = await voted("2 + 2 = 5", "2 + 2 = 5", "2 + 2 = 4", "The answer is 4.")
    assert (run.answer, run.status, run.support["votes"]) == ("4", "completed", {"4": 2})
    refused = await voted("2 + 2 = 5", "2 + 2 = 5", "2 + 2 = 6")
    assert refused.status == "incomplete"
    assert refused.answer == ("5" if fallback else None)
    assert refused.stop_reason == ("rejected" if fallback else "all_samples")
    told = explain(await sqlite_store.read(refused.id))
    assert told.votes == ({"5": 2, "6": 1} if fallback else {})
