"""Grading: the gold answer in prose or canonical form."""

import pytest

from longthought.verifiers import answers, grade


@pytest.mark.parametrize(
    ("kind", "answer", "gold", "right"),
    [
        (answers.number(), "1234", "so he pays 1,200 + 34 = 1234\n#### 1,234", True),
        (answers.number(), "0.5", "1/2", True),
        (answers.number(), "The answer is 7", "7", True),
        (answers.number(), "7", "8", False),
        (answers.number(), None, "8", False),
        (answers.number(), "7", "seven", False),
        (answers.number(tolerance=0.1), "7.05", "7", True),
        (answers.choice("ABCD"), "B", "The answer is (B).", True),
        (answers.choice("ABCD"), "A", "B", False),
        (answers.exact(case=False), "paris", "Paris", True),
        (answers.exact(), "Paris", "Answer: Paris", True),
        (answers.puzzle(), "4 * (7 - 8 / 8)", "4 7 8 8 -> 24", True),
        (answers.puzzle(), "4 * (7 - 8 / 8)", "(7 - 8 / 8) * 4", True),
        (answers.puzzle(), "4 * (8 - 8 / 7)", "4 7 8 8 -> 24", False),
        (answers.callable(lambda text: None), "x", " x ", True),
    ],
)
def test_grade(kind, answer, gold, right):
    assert grade(kind, answer, gold) is right
