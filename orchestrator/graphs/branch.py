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

from longthought.errors import InvalidInput
from longthought.orchestrator.branches import Branch
from longthought.orchestrator.definition import FINAL_PROMPT, STEP_PROMPT
from longthought.orchestrator.effects import (
    ModelCall,
    call_model,
    call_tool,
    judge_candidate,
)
from longthought.orchestrator.graphs.placed import Compiled, compile_graph
from longthought.orchestrator.places import current_frame, enter_label
from longthought.orchestrator.session import Session
from longthought.types import (
    Candidate,
    FinishReason,
    Message,
    Model,
    Sampling,
    ToolCallPart,
    Verdict,
    text_of,
)

if TYPE_CHECKING:
    from longthought.orchestrator.context import Context

__all__ = ["Thought", "act", "after_reason", "branch_graph", "judge", "reason", "run_branch"]


class Thought(TypedDict, total=False):
    """The state of a branch. ``ids`` are the conversation ids of ``messages``, for speed only."""

    messages: list[Message]
    ids: list[str]
    finish_reason: FinishReason
    turns: int
    candidate: Candidate
    verdict: Verdict


async def reason(state: Thought, runtime: Runtime[Context]) -> dict[str, Any]:
    """Ask the model to go on; adds its message."""
    ctx = runtime.context
    session, branch = ctx.session, current_frame().branch
    model = branch.model if branch else session.models[0]
    turns = state.get("turns", 0)
    messages, continues = _prepared(state, branch, model)
    if turns >= session.definition.max_turns:
        messages = [*messages, {"role": "user", "content": FINAL_PROMPT}]
    sampling: Sampling = branch.sampling if branch else session.definition.sampling
    call = ModelCall(
        messages,
        model,
        tuple(session.tools) if turns < session.definition.max_turns else (),
        sampling,
        session.definition.output,
        continues,
        state.get("ids", ())[: len(messages) - continues],
    )
    reply = await call_model(session, call, defer=branch is not None)
    messages = _joined(messages, reply["message"], continues)
    if branch is not None:
        branch.messages = messages
    return {
        "messages": messages,
        "ids": session.conversation(messages, call.known),
        "finish_reason": reply["finish_reason"],
        "turns": turns + 1,
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
    """Find the answer in what was said, and ask the verifier if there is one."""
    session, branch = runtime.context.session, current_frame().branch
    candidate = _candidate(session, branch, state)
    update: dict[str, Any] = {"candidate": candidate}
    verifier = session.definition.verifier
    if verifier is not None:
        deferred = branch is not None
        update["verdict"] = await judge_candidate(session, verifier, candidate, defer=deferred)
    if branch is not None:
        branch.candidate, branch.verdict = candidate, update.get("verdict")
    return update


async def _reason_and_go(
    state: Thought, runtime: Runtime[Context]
) -> Command[Literal["act", "judge"]]:
    """``reason`` and ``after_reason`` in one: a conditional edge costs half a superstep more."""
    update = await reason(state, runtime)
    return Command(update=update, goto=after_reason({**state, **update}))  # type: ignore[typeddict-item]


@cache
def branch_graph() -> Compiled:
    """The graph every branch of ``ctx.explore`` runs on."""
    from longthought.orchestrator.context import Context

    graph: StateGraph[Any, Any, Any, Any] = StateGraph(Thought, context_schema=Context)
    graph.add_node("reason", _reason_and_go, destinations=("act", "judge"))
    graph.add_node("act", act)
    graph.add_node("judge", judge)
    graph.add_edge(START, "reason")
    graph.add_edge("act", "reason")
    graph.add_edge("judge", END)
    return compile_graph(graph, name="branch")


async def run_branch(ctx: Context, branch: Branch) -> None:
    """Run one branch to its end; what it came to is left in ``branch``."""
    # its own run as LangGraph sees it: not a subgraph of the node that explores
    var_child_runnable_config.set(None)
    state: Thought = {"messages": branch.messages}
    limit = 3 * ctx.session.definition.max_turns + 10
    # what it came to stands in the branch; LangGraph need not put an output together at each step
    await branch_graph().ainvoke(state, {"recursion_limit": limit}, context=ctx, output_keys=[])


# -- details --------------------------------------------------------------------------------


def _prepared(state: Thought, branch: Branch | None, model: Model) -> tuple[list[Message], bool]:
    """The messages to send, and whether the last one is unfinished and to be continued."""
    messages = state["messages"]
    if branch is None or not branch.step or messages[-1]["role"] != "assistant":
        return messages, False
    if model.capabilities.continues:
        return messages, True
    return [*messages, {"role": "user", "content": STEP_PROMPT}], False


def _joined(messages: list[Message], said: Message, continues: bool) -> list[Message]:
    if not continues:
        return [*messages, said.copy()]  # the adapter's own stays as it is
    text = text_of(messages[-1]) + text_of(said)
    return [*messages[:-1], {**said, "content": text}]


def _candidate(session: Session, branch: Branch | None, state: Thought) -> Candidate:
    text = _thought(session, branch, state)
    kind = session.definition.answer
    answer = kind.find(text) if kind else (text.strip() or None)
    if answer is not None and not isinstance(answer, str):
        raise InvalidInput("answer", f"{kind!r}.find returned {answer!r}", "Return text or None")
    final = True
    if branch is not None and branch.step:
        stopped = state.get("finish_reason") == "stop" and bool(branch.sampling.get("stop"))
        final = answer is not None and kind is not None if stopped else True
        if not final:
            # the stop string belongs to the step: without it the model would not see its end
            _close_step(branch, state)
            text = _thought(session, branch, state)
    return Candidate(session.question, text, answer, final, tuple(state["messages"]))


def _close_step(branch: Branch, state: Thought) -> None:
    last = state["messages"][-1]
    if branch.model.capabilities.continues:
        stop = branch.sampling["stop"][0]
        last["content"] = f"{text_of(last)}{stop}"
    branch.messages = state["messages"]


def _thought(session: Session, branch: Branch | None, state: Thought) -> str:
    """What the branch has said that an answer may be found in."""
    model = branch.model if branch else session.models[0]
    new = state["messages"][len(session.opening) :]
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
    return [task.result() for task in tasks]
