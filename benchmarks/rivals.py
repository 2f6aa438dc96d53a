"""The job of this benchmark by other frameworks, each as its own documentation writes it.

Every function opens one framework against the server at ``address`` and gives the job: a question,
the turns with the tool ``add`` that the server asks for, and the final text. What a framework
keeps, it keeps below ``directory``. Retries, tracing and telemetry are off; all else is as it
comes. Nothing here needs longthought: the rivals live in an environment of their own
(``rivals.txt``), and each is imported when it is opened.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks.bare import MODEL, QUESTION

__all__ = ["langgraph", "openai_agents", "pydantic_ai", "pydantic_ai_dbos"]

Job: TypeAlias = Callable[[], Awaitable[str]]

_TURNS = 1000


async def _add(a: int, b: int) -> int:
    return a + b


@asynccontextmanager
async def langgraph(address: str, directory: Path, *, stream: bool = False) -> AsyncIterator[Job]:
    """LangGraph: ``create_agent``, checkpoints by ``AsyncSqliteSaver``."""
    os.environ["LANGSMITH_TRACING"] = "false"
    from langchain.agents import create_agent
    from langchain_core.tools import StructuredTool
    from langchain_openai import ChatOpenAI
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    tool = StructuredTool.from_function(coroutine=_add, name="add", description="Add two numbers.")
    model = ChatOpenAI(
        model=MODEL,
        base_url=address,
        api_key="any",
        max_retries=0,
        streaming=stream,
        use_responses_api=False,
    )
    numbers = itertools.count()
    async with AsyncSqliteSaver.from_conn_string(str(directory / "langgraph.db")) as saver:
        agent = create_agent(model, [tool], checkpointer=saver)

        async def job() -> str:
            config = {
                "configurable": {"thread_id": str(next(numbers))},
                "recursion_limit": _TURNS,
            }
            question = {"messages": [{"role": "user", "content": QUESTION}]}
            state = await agent.ainvoke(question, config)
            return str(state["messages"][-1].text)

        yield job


@asynccontextmanager
async def pydantic_ai(address: str, directory: Path, *, stream: bool = False) -> AsyncIterator[Job]:
    """pydantic-ai, which keeps nothing by itself."""
    from pydantic_ai import UsageLimits

    agent = _pydantic_agent(address)
    limits = UsageLimits(request_limit=_TURNS)

    async def listen(_context: Any, events: AsyncIterable[Any]) -> None:
        async for _ in events:
            pass

    async def job() -> str:
        handler = listen if stream else None
        result = await agent.run(QUESTION, usage_limits=limits, event_stream_handler=handler)
        return str(result.output)

    yield job


@asynccontextmanager
async def pydantic_ai_dbos(
    address: str, directory: Path, *, stream: bool = False
) -> AsyncIterator[Job]:
    """pydantic-ai made durable by DBOS on SQLite; never streamed."""
    if stream:
        raise NotImplementedError("the job with DBOS is not streamed")
    from dbos import DBOS
    from pydantic_ai import UsageLimits
    from pydantic_ai.durable_exec.dbos import DBOSDurability

    DBOS(
        config={
            "name": "benchmark",
            "system_database_url": f"sqlite:///{directory / 'dbos.db'}",
            "run_admin_server": False,
            "log_level": "ERROR",
        }
    )
    agent = _pydantic_agent(address, capabilities=[DBOSDurability()])
    limits = UsageLimits(request_limit=_TURNS)

    @DBOS.workflow()
    async def answer(question: str) -> str:
        return str((await agent.run(question, usage_limits=limits)).output)

    DBOS.launch()
    try:
        yield lambda: answer(QUESTION)
    finally:
        await asyncio.to_thread(DBOS.destroy)


def _pydantic_agent(address: str, **more: Any) -> Any:
    import openai
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    client = openai.AsyncOpenAI(api_key="any", base_url=address, max_retries=0)
    model = OpenAIChatModel(MODEL, provider=OpenAIProvider(openai_client=client))
    agent = Agent(model, name="benchmark", **more)
    agent.tool_plain(_add, name="add", description="Add two numbers.")
    return agent


@asynccontextmanager
async def openai_agents(
    address: str, directory: Path, *, stream: bool = False
) -> AsyncIterator[Job]:
    """openai-agents with a ``SQLiteSession`` for each run, all in one file."""
    import openai
    from agents import (
        Agent,
        OpenAIChatCompletionsModel,
        Runner,
        SQLiteSession,
        function_tool,
        set_tracing_disabled,
    )

    set_tracing_disabled(True)
    tool = function_tool(_add, name_override="add", description_override="Add two numbers.")
    numbers = itertools.count()
    async with openai.AsyncOpenAI(api_key="any", base_url=address, max_retries=0) as client:
        model = OpenAIChatCompletionsModel(MODEL, client)
        agent = Agent(name="benchmark", tools=[tool], model=model)

        async def job() -> str:
            session = SQLiteSession(f"run-{next(numbers)}", directory / "sessions.db")
            try:
                if stream:
                    streamed = Runner.run_streamed(
                        agent, QUESTION, session=session, max_turns=_TURNS
                    )
                    async for _ in streamed.stream_events():
                        pass
                    return str(streamed.final_output)
                result = await Runner.run(agent, QUESTION, session=session, max_turns=_TURNS)
                return str(result.final_output)
            finally:
                session.close()

        yield job
