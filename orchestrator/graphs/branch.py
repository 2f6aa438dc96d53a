"""One branch as a graph: reason <-> act -> judge. Its nodes are public, for graphs of your own.

reason   asks the model to go on with the conversation in ``messages``
act      calls the tools the model asked for, side by side if none of them writes
judge    finds the answer and asks the verifier, if there is one
"""

from __future__ import annotations

import asyncio
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from langchain_core.runnables.config import var_child_runnable_config
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command

from longthought.errors import BackendError, BudgetExhausted
from longthought.orchestrator.branches import Branch
from longthought.orchestrator.definition import FINAL_PROMPT, STEP_PROMPT
from longthought.orchestrator.effects import (
    ModelCall,
    call_model,
    call_tool,
    judge_candidate,
    tell_left,
    whole_reply,
)
from longthought.orchestrator.graphs.placed import Builder, Compiled, compile_graph
from longthought.orchestrator.graphs.walk import Walk
from longthought.orchestrator.places import current_frame, enter_label
from longthought.orchestrator.session import Session
from longthought.orchestrator.typed import OutputCheck, find_answer, mend_prompt
from longthought.types import (
    Candidate,
    FinishReason,
    Message,
    Model,
    ModelReply,
    Sampling,
    ToolCallPart,
    Verdict,
    text_of,
)
from longthought.verifiers import concludes

if TYPE_CHECKING:
    from longthought.orchestrator.context import Context

__all__ = [
    "Thought",
    "act",
    "after_reason",
    "branch_graph",
    "judge",
    "last_call",
    "reason",
    "run_branch",
]


class Thought(TypedDict, total=False):
    """The state of a branch. ``ids`` are the conversation ids of ``messages``, for speed only.

    ``misfit`` says what is wrong with a typed answer, empty if it is valid; ``mended`` counts how
    often the branch was told. ``told`` is the share of a limit that it was told of last.
    """

    messages: list[Message]
    ids: list[str]
    finish_reason: FinishReason
    ended: bool
    turns: int
    candidate: Candidate
    verdict: Verdict
    misfit: str
    mended: int
    told: float


async def reason(state: Thought, runtime: Runtime[Context]) -> dict[str, Any]:
    """Ask the model to go on; adds its message."""
    ctx = runtime.context
    session, branch = ctx.session, current_frame().branch
    model = branch.model if branch else session.models[0]
    turns = state.get("turns", 0)
    messages, continues = _prepared(state, branch, model)
    known, told = state.get("ids", ())[: len(messages) - continues], state.get("told", 0.0)
    if session.definition.tell_left and _takes_a_line(branch, model):
        line, told = await tell_left(session, told)
        if line:
            messages, known = _with_line(messages, line), known[: len(messages) - 1]
    if turns >= session.definition.max_turns:
        messages = [*messages, {"role": "user", "content": FINAL_PROMPT}]
    sampling: Sampling = branch.sampling if branch else session.definition.sampling
    output = session.definition.output
    if output is not None:
        output = session.definition.output_for(model, step=branch is not None and branch.step)
    call = ModelCall(
        messages,
        model,
        tuple(session.tools) if turns < session.definition.max_turns else (),
        sampling,
        output,
        continues,
        known,
        acts=branch is not None,
    )
    reply = await whole_reply(session, call, defer=branch is not None)
    messages = _joined(messages, reply["message"], continues)
    if branch is not None:
        branch.messages = messages
    return {
        "messages": messages,
        "ids": session.conversation(messages, call.known),
        "finish_reason": reply["finish_reason"],
        "ended": _ended(reply),
        "turns": turns + 1,
        **({"told": told} if told else {}),
    }


def after_reason(state: Thought) -> Literal["act", "judge"]:
    """To the tools if the model asked for any, else to the judge."""
    return "act" if state["messages"][-1].get("tool_calls") else "judge"


async def act(state: Thought, runtime: Runtime[Context]) -> dict[str, Any]:
    """Call the tools the last message asks for; adds a tool message for each, in their order."""
    session, branch = runtime.context.session, current_frame().branch
    calls = state["messages"][-1]["tool_calls"]
    finish = state.get("finish_reason")

    async def one(call: ToolCallPart) -> Message:
        result = await call_tool(
            session,
            call["name"],
            call["arguments"],
            call_id=call["id"],
            finish_reason=finish,
            defer=branch is not None,
        )
        return {"role": "tool", "tool_call_id": call["id"], "content": result.content}

    if len(calls) == 1:
        added = [await one(calls[0])]
    elif _all_read(session, calls):
        added = await _side_by_side(one, calls)
    else:
        added = [await one(call) for call in calls]  # writes keep the order they were asked in
    messages = [*state["messages"], *added]
    if branch is not None:
        branch.messages = messages
    return {"messages": messages}


async def judge(state: Thought, runtime: Runtime[Context]) -> dict[str, Any]:
    """Find the answer in what was said, and ask the verifier if there is one.

    What is no valid answer of the form that was asked for is turned down without asking it.
    """
    session, branch = runtime.context.session, current_frame().branch
    candidate = _candidate(session, branch, state)
    update: dict[str, Any] = {"candidate": candidate}
    verifier, typed = session.definition.verifier, session.definition.typed
    deferred, misfit = branch is not None, None
    if typed is not None:
        if candidate.final and candidate.answer is None and typed.problem(candidate.text):
            misfit = await judge_candidate(session, OutputCheck(typed), candidate, defer=deferred)
        update["misfit"] = misfit.reason if misfit else ""
    if verifier is not None:
        update["verdict"] = misfit or await judge_candidate(
            session, verifier, candidate, defer=deferred
        )
    if branch is not None:
        branch.candidate, branch.verdict = candidate, update.get("verdict")
        branch.misfit = update.get("misfit", "")
    return update


async def _reason_and_go(
    state: Thought, runtime: Runtime[Context]
) -> Command[Literal["act", "judge"]]:
    """``reason`` and ``after_reason`` in one: a conditional edge costs half a superstep more."""
    update = await reason(state, runtime)
    return Command(update=update, goto=after_reason({**state, **update}))  # type: ignore[typeddict-item]


async def _judge_or_mend(
    state: Thought, runtime: Runtime[Context]
) -> dict[str, Any] | Command[Literal["reason"]]:
    """``judge``; back to ``reason`` with what is wrong, if a typed answer is not valid."""
    update = await judge(state, runtime)
    if not update.get("misfit") or not _may_mend(runtime.context.session, state):
        return update
    told: Message = {"role": "user", "content": mend_prompt(update["misfit"])}
    messages = [*state["messages"], told]
    return Command(
        update={"messages": messages, "mended": state.get("mended", 0) + 1}, goto="reason"
    )


@cache
def _branch_builder() -> Builder:
    from longthought.orchestrator.context import Context

    graph: Builder = StateGraph(Thought, context_schema=Context)
    graph.add_node("reason", _reason_and_go, destinations=("act", "judge"))
    graph.add_node("act", act)
    graph.add_node("judge", _judge_or_mend, destinations=("reason", END))
    graph.add_edge(START, "reason")
    graph.add_edge("act", "reason")
    graph.add_edge("judge", END)
    return graph


@cache
def branch_graph() -> Compiled:
    """The graph of every branch of ``ctx.explore``, compiled: to be drawn, or run by LangGraph."""
    return compile_graph(_branch_builder(), name="branch")


@cache
def _branch_walk() -> Walk:
    nodes = {"reason": _reason_and_go, "act": act, "judge": _judge_or_mend}
    return Walk(_branch_builder(), nodes)


async def run_branch(ctx: Context, branch: Branch) -> None:
    """Run one branch to its end; what it came to is left in ``branch``."""
    # a graph that a tool runs is one of its own: not a subgraph of the node that explores
    var_child_runnable_config.set(None)
    state: Thought = {"messages": branch.messages}
    definition = ctx.session.definition
    limit = 3 * (definition.max_turns + definition.output_retries) + 10
    try:
        await _branch_walk().run(state, ctx, limit=limit)
    except BudgetExhausted as error:
        if error.scope != "branch":
            raise
        branch.cut = error.reason
        if not await _closed(ctx, branch):
            raise
    finally:
        if branch.early is not None:
            await branch.early.close()


def last_call(session: Session, branch: Branch) -> ModelCall:
    """The call that asks for an answer from what a branch has, out of what was kept back for it."""
    sampling = session.definition.sampling
    if sampling.get("thinking_tokens") or sampling.get("min_thinking_tokens"):
        sampling = {**sampling, "thinking_tokens": 0}  # a thought that is cut is no answer
        sampling.pop("min_thinking_tokens", None)
    return ModelCall(
        [*branch.messages, {"role": "user", "content": FINAL_PROMPT}],
        branch.model,
        sampling=sampling,
        output=session.definition.output_for(branch.model, step=branch.step),
        last_answer=True,
    )


async def _closed(ctx: Context, branch: Branch) -> bool:
    """Whether a branch out of its own limit has given an answer with what that keeps back."""
    own, session = branch.scope.budget, ctx.session
    if not (own.final_answer_tokens or own.kept_back("nanodollars")):
        return False
    with ctx.label("limit"):
        call = last_call(session, branch)
        try:
            reply = await call_model(session, call, defer=True)
        except (BackendError, BudgetExhausted):
            return False
        messages = _joined(list(call.messages), reply["message"], continues=False)
        branch.messages = messages
        state: Thought = {"messages": messages, "finish_reason": reply["finish_reason"]}
        await judge({**state, "ended": True}, Runtime(context=ctx))
    return True


# -- details --------------------------------------------------------------------------------


def _prepared(state: Thought, branch: Branch | None, model: Model) -> tuple[list[Message], bool]:
    """The messages to send, and whether the last one is unfinished and to be continued."""
    messages = state["messages"]
    if branch is None or not branch.step or messages[-1]["role"] != "assistant":
        return messages, False
    if model.capabilities.continues:
        return messages, True
    return [*messages, {"role": "user", "content": STEP_PROMPT}], False


def _takes_a_line(branch: Branch | None, model: Model) -> bool:
    """Whether a prompt may say more than its messages: not amid a text that goes on."""
    return not (model.capabilities.inline_tools or (branch is not None and branch.step))


def _with_line(messages: list[Message], line: str) -> list[Message]:
    """The messages with a line at the end of the last: another one would break the turns."""
    *before, last = messages
    content = last["content"]
    if isinstance(content, list):
        return [*before, {**last, "content": [*content, {"type": "text", "text": line}]}]
    return [*before, {**last, "content": f"{content}\n\n{line}" if content else line}]


def _joined(messages: list[Message], said: Message, continues: bool) -> list[Message]:
    if not continues:
        return [*messages, said.copy()]  # the adapter's own stays as it is
    text = text_of(messages[-1]) + text_of(said)
    return [*messages[:-1], {**said, "content": text}]


def _candidate(session: Session, branch: Branch | None, state: Thought) -> Candidate:
    text = _thought(session, branch, state)
    kind, answer = session.definition.answer, find_answer(session.definition, text)
    final = True
    if branch is not None and branch.step:
        stopped = state.get("finish_reason") == "stop" and bool(branch.sampling.get("stop"))
        ended = state.get("ended", False) or (kind is not None and concludes(kind, text))
        final = not stopped or ended
        if not final:
            # the stop string belongs to the step: without it the model would not see its end
            _close_step(branch, state)
            text = _thought(session, branch, state)
    return Candidate(session.question, text, answer, final, tuple(state["messages"]))


def _may_mend(session: Session, state: Thought) -> bool:
    """Whether a branch that is through may be told what is wrong with its answer.

    A reply that was cut short is not mended by asking again, and a model whose text goes on after a
    tool call takes no message in between.
    """
    branch = current_frame().branch
    model = branch.model if branch else session.models[0]
    left = state.get("mended", 0) < session.definition.output_retries
    whole = state.get("finish_reason") == "stop"
    return left and whole and not model.capabilities.inline_tools


def _ended(reply: ModelReply) -> bool:
    """Whether the model has nothing more to say: it ended by itself, or with an empty step."""
    by_itself = reply.get("stopped_by", "unknown") is None
    return by_itself or not text_of(reply["message"]).strip()


def _close_step(branch: Branch, state: Thought) -> None:
    last = state["messages"][-1]
    if branch.model.capabilities.continues:
        stop = branch.sampling["stop"][0]
        last["content"] = f"{text_of(last)}{stop}"
    branch.messages = state["messages"]


def _thought(session: Session, branch: Branch | None, state: Thought) -> str:
    """What the branch has said that an answer may be found in."""
    model = branch.model if branch else session.models[0]
    opening = branch.opening if branch else len(session.opening_of(model))
    new = state["messages"][opening:]
    if model.capabilities.inline_tools:
        return "".join(
            f" = {text_of(m)}" if m["role"] == "tool" else text_of(m)
            for m in new
            if m["role"] in ("assistant", "tool")
        )
    if branch is not None and branch.step:
        return "\n".join(text_of(m) for m in new if m["role"] == "assistant")
    return text_of(state["messages"][-1])


def _all_read(session: Session, calls: list[ToolCallPart]) -> bool:
    tools = [session.tools.get(call["name"]) for call in calls]
    return all(tool is None or tool.spec.effect in ("pure", "read") for tool in tools)


async def _side_by_side(one: Any, calls: list[ToolCallPart]) -> list[Message]:
    async def labelled(index: int, call: ToolCallPart) -> Message:
        with enter_label(f"call{index}"):
            message: Message = await one(call)
            return message

    tasks = [asyncio.create_task(labelled(i, call)) for i, call in enumerate(calls)]
    try:
        await asyncio.wait(tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        raise
    failures = [error for task in tasks if (error := task.exception())]
    if failures:  # several may wait, each for a signal of its own
        raise failures[0]
    return [task.result() for task in tasks]
