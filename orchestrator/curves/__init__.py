"""Accuracy against compute: strategies compared on one bank of samples, with what is certain."""

from longthought.orchestrator.curves.bank import Answered, Banked, Draw
from longthought.orchestrator.curves.bootstrap import Band, Bootstrap
from longthought.orchestrator.curves.costs import Cost
from longthought.orchestrator.curves.curve import Curve, Difference, GroupShares, Line, Point
from longthought.orchestrator.curves.files import Fields, read_questions
from longthought.orchestrator.curves.measure import default_strategies, measure
from longthought.orchestrator.curves.questions import Control, Question, QuestionSet
from longthought.orchestrator.curves.runs import Progress
from longthought.orchestrator.curves.setup import Setup, setup_for
from longthought.orchestrator.curves.simulate import Simulated, orders, simulate
from longthought.orchestrator.curves.tasks import TASKS, puzzles, task_questions
from longthought.orchestrator.curves.ways import WORDS, Coverage, Live, Plan, Sampled, Way

__all__ = [
    "TASKS",
    "WORDS",
    "Answered",
    "Band",
    "Banked",
    "Bootstrap",
    "Control",
    "Cost",
    "Coverage",
    "Curve",
    "Difference",
    "Draw",
    "Fields",
    "GroupShares",
    "Line",
    "Live",
    "Plan",
    "Point",
    "Progress",
    "Question",
    "QuestionSet",
    "Sampled",
    "Setup",
    "Simulated",
    "Way",
    "default_strategies",
    "measure",
    "orders",
    "puzzles",
    "read_questions",
    "setup_for",
    "simulate",
    "task_questions",
]
