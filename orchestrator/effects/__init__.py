"""The questions a run asks the outside world, each recorded under its key."""

from longthought.orchestrator.effects.model_calls import call_model
from longthought.orchestrator.effects.requests import ModelCall
from longthought.orchestrator.effects.small import draw, patched, sleep, suspend, tell_time
from longthought.orchestrator.effects.told_limits import tell_left
from longthought.orchestrator.effects.tool_calls import call_tool
from longthought.orchestrator.effects.verdicts import judge_candidate
from longthought.orchestrator.effects.whole_replies import whole_reply

__all__ = [
    "ModelCall",
    "call_model",
    "call_tool",
    "draw",
    "judge_candidate",
    "patched",
    "sleep",
    "suspend",
    "tell_left",
    "tell_time",
    "whole_reply",
]
