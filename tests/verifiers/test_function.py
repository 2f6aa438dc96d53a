"""Verifiers made from functions: what they are given, and what their answer means."""

import threading

import pytest

from longthought.errors import InvalidInput
from longthought.types import Candidate, Usage, Verdict
from longthought.verifiers import callable as verifier_of

CANDIDATE = Candidate("q", "text", "a")


async def judge(function, candidate=CANDIDATE, context=None, **options):
    return await verifier_of(function, **options).judge(candidate, context)


@pytest.mark.parametrize(
    ("value", "score", "passed"),
    [(True, 1.0, True), (False, 0.0, False), (None, 0.5, None), (0.25, 0.25, None), (1, 1.0, None)],
)
async def test_what_an_answer_means(value, score, passed):
    async def asked(question, answer):
        assert (question, answer) == ("q", "a")
        return value

    verdict = await judge(asked)
    assert (verdict.score, verdict.passed) == (score, passed)


async def test_a_threshold_decides_what_passes():
    assert (await judge(lambda q, a: 0.5, threshold=0.5)).passed is True
    assert (await judge(lambda q, a: 0.49, threshold=0.5)).passed is False
    for wrong in (-0.1, 1.1):
        with pytest.raises(InvalidInput):
            verifier_of(lambda q, a: 0, threshold=wrong)


async def test_a_verdict_is_passed_on():
    given = Verdict(0.3, None, "so-so", Usage(calls=1))
    assert await judge(lambda candidate: given) is given


async def test_functions_of_candidate_and_context():
    def whole(candidate):
        return candidate.text == "text"

    def annotated(it: Candidate, using):
        return it.text == "text" and using == "context"

    async def both(candidate, context):
        return context == "context"

    for function in (whole, annotated, both):
        assert (await judge(function, context="context")).passed is True


async def test_sync_functions_run_in_a_thread_and_may_return_awaitables():
    assert (
        await judge(lambda q, a: threading.current_thread() is not threading.main_thread())
    ).passed

    async def later():
        return True

    assert (await judge(lambda q, a: later())).passed is True


async def test_without_an_answer_the_function_is_not_asked():
    def never(question, answer):
        raise AssertionError

    verdict = await judge(never, Candidate("q", "text", None))
    assert (verdict.passed, verdict.reason) == (False, "no answer found")


async def test_unfinished_candidates_on_request():
    unfinished = Candidate("q", "te", None, final=False)
    assert (await judge(lambda candidate: True, unfinished)).passed is None
    assert (await judge(lambda candidate: True, unfinished, partial=True)).passed is True


@pytest.mark.parametrize("value", ["yes", [], float("nan"), object()])
async def test_other_values_are_type_errors(value):
    with pytest.raises(TypeError):
        await judge(lambda q, a: value)


@pytest.mark.parametrize(
    "function", ["text", lambda: True, lambda a, b, c: True, lambda a, b, *, c: True]
)
def test_unusable_functions_are_refused(function):
    with pytest.raises(InvalidInput):
        verifier_of(function)


def test_spec_names_function_source_and_parameters():
    def right(question, answer):
        return True

    spec = verifier_of(right, threshold=0.5, partial=True).spec()
    assert spec["kind"] == "callable"
    assert spec["function"].endswith("right")
    assert len(spec["version"]) == 16
    assert (spec["threshold"], spec["partial"]) == (0.5, True)
    assert "threshold" not in verifier_of(right).spec()
