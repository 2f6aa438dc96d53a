"""A verdict: what a verifier said of a candidate, recorded whole."""

from __future__ import annotations

from collections.abc import Sequence

from longthought.errors import BudgetExhausted, InvalidInput
from longthought.orchestrator.branches import Branch
from longthought.orchestrator.effects.requests import ModelCall
from longthought.orchestrator.effects.tool_calls import call_tool
from longthought.orchestrator.effects.whole_replies import whole_reply
from longthought.orchestrator.places import current_frame
from longthought.orchestrator.session import MISSING, Session
from longthought.types import (
    JSON,
    Candidate,
    JSONObject,
    Message,
    Model,
    ModelReply,
    Sampling,
    Verdict,
    Verifier,
)
from longthought.verifiers import judge

__all__ = ["judge_candidate"]


class _Judging:
    """What a verifier may use; its calls are effects in the place of the verdict."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def model(
        self, messages: Sequence[Message], *, model: str | None = None, **sampling: JSON
    ) -> ModelReply:
        chosen = _model_named(self._session, model)
        options: Sampling = {**sampling}  # type: ignore[typeddict-item]
        return await whole_reply(self._session, ModelCall(messages, chosen, sampling=options))

    async def tool(self, name: str, arguments: JSONObject) -> JSONObject:
        return (await call_tool(self._session, name, arguments)).to_json()


async def judge_candidate(
    session: Session, verifier: Verifier, candidate: Candidate, *, defer: bool = False
) -> Verdict:
    """The verdict on a candidate, or the recorded one.

    Raises:
        Diverged, ReplayStopped: see :meth:`Session.recorded`.
    """
    frame = current_frame()
    key = frame.next_key("verify")
    form: JSONObject = {
        "verifier": verifier.spec(),
        "text": candidate.text,
        "answer": candidate.answer,
        "final": candidate.final,
    }
    if candidate.question != session.question:
        form["question"] = candidate.question
    event = session.recorded(key, form, frame)
    branch = frame.branch
    if event is not MISSING:
        result = session.result_of(event)
        if branch is not None:
            branch.tokens += result.get("judging_tokens", 0)
        _cut_short(branch, result.get("limit"))
        return Verdict.from_json(result)
    await session.until_live(frame)
    short: str | None = None
    queued, before = session.now, branch.tokens if branch is not None else 0
    session.counters.verifier_calls += 1
    inside = frame.places.enter(key.rpartition("#")[2], inner=True)
    with session.clocks.running("verify"), inside:
        try:
            verdict = await judge(verifier, candidate, _Judging(session))
        except BudgetExhausted as error:
            # the candidate is there and paid for; it only stays unjudged
            short = error.reason
            verdict = Verdict(0.5, None, f"not judged: {error}")
    clock = [round(at, 4) for at in (queued, queued, session.now)]
    result = verdict.to_json()
    if short is not None:
        result["limit"] = short
        _cut_short(branch, short)
    if branch is not None and branch.tokens > before:
        # a replay does not judge again, and has to come to the same count
        result["judging_tokens"] = branch.tokens - before
    session.finish(frame, key, "verify", session.put(form), result, clock=clock)
    if not defer:
        await session.commit(frame)
    return verdict


def _cut_short(branch: Branch | None, limit: str | None) -> None:
    """Let the search know that a limit of more than the branch left the candidate unjudged."""
    if branch is not None and limit is not None and not limit.startswith("branch."):
        branch.reason = limit


def _model_named(session: Session, name: str | None) -> Model:
    for model in session.models:
        if name is None or model.name == name:
            return model
    known = ", ".join(model.name for model in session.models)
    raise InvalidInput("model", f"the workflow has no model {name!r}", f"It has: {known}")
