"""The manifest of a run: what it was begun with, written once and read by every attempt."""

from __future__ import annotations

from collections.abc import Sequence

from longthought import __version__
from longthought.budgets import Budget, PriceBook
from longthought.orchestrator.definition import Definition
from longthought.storage import Journal, Store
from longthought.types import JSON, JSONObject, Message, text_of

__all__ = ["begin", "branch_budget_of", "manifest_of", "opening_of", "question_text"]


def manifest_of(
    definition: Definition,
    question: str | Sequence[Message],
    seed: int,
    budget: Budget,
    prices: PriceBook,
    options: JSONObject,
    tenant: str | None = None,
) -> JSONObject:
    """The manifest of a new run: all that shapes it, readable and by fingerprint."""
    branch = definition.branch_budget
    manifest: JSONObject = {
        "workflow": definition.parts(),
        "question": question if isinstance(question, str) else list(question),
        "seed": seed,
        "budget": budget.to_json(),
        **({"branch_budget": branch.to_json()} if branch is not None else {}),
        "prices": prices.to_json([model.name for model in definition.models]),
        "source": definition.source,
        "options": options,
    }
    if tenant is not None:
        manifest["tenant"] = tenant
    return manifest


async def begin(
    store: Store,
    definition: Definition,
    manifest: JSONObject,
    *,
    run_id: str | None = None,
    run_key: bytes | None = None,
) -> Journal:
    """A new run in the store, owned by this process."""
    return await store.create_run(
        definition.name,
        manifest,
        fingerprint=definition.fingerprint(),
        version=__version__,
        run_id=run_id,
        run_key=run_key,
    )


def branch_budget_of(manifest: JSONObject) -> Budget | None:
    """The limits of each branch, None if it has none of its own."""
    limits = manifest.get("branch_budget")
    return Budget.from_json(limits) if limits else None


def question_text(question: JSON) -> str:
    """The question as text: that of the last message of the user's."""
    if isinstance(question, str):
        return question
    users = [message for message in question if message["role"] == "user"]
    return text_of(users[-1]) if users else ""


def opening_of(system: str | None, question: JSON) -> list[Message]:
    """The conversation that a run begins with."""
    opening: list[Message] = []
    if system is not None:
        opening.append({"role": "system", "content": system})
    if isinstance(question, str):
        opening.append({"role": "user", "content": question})
    else:
        opening.extend(question)
    return opening
