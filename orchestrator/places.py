"""Where an effect stands: keys made of places in graphs, never of the order of calls.

A *place* is a stack of graph nodes (superstep, node name, Send path) and labels. Effects are
numbered within a place, and one place belongs to one task: numbering by call order across
concurrent work would silently swap the results of branches on replay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from functools import lru_cache
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote as _quote

from longthought.errors import InvalidInput, UnlabelledConcurrency

if TYPE_CHECKING:
    from longthought.orchestrator.branches import Branch

__all__ = [
    "Entry",
    "Frame",
    "Places",
    "current_frame",
    "enter_label",
    "enter_node",
    "inside_a_run",
]


@lru_cache(maxsize=4096)
def quote(text: str) -> str:
    """A name as a part of a path: no slash, number sign or line break."""
    return _quote(text, safe="")


_CURRENT: ContextVar[Frame | None] = ContextVar("longthought_place", default=None)


class Frame:
    """One entered place.

    ``branch`` is the branch it belongs to, ``inner`` whether it stands inside the call of a
    verifier or a tool; both are inherited by what is inside.
    """

    __slots__ = (
        "_idle",
        "active",
        "branch",
        "inner",
        "invocation",
        "invocations",
        "parent",
        "path",
        "places",
        "task",
    )

    def __init__(self, places: Places, path: str, parent: Frame | None) -> None:
        self.places, self.path, self.parent = places, path, parent
        self.branch: Branch | None = parent.branch if parent else None
        self.inner: bool = parent.inner if parent else False
        self.task: asyncio.Task[Any] | None = None
        self.invocation = 0
        self.invocations: dict[str, int] = {}
        self.active: set[Frame] = set()
        self._idle: asyncio.Event | None = None

    def claim(self) -> None:
        """Make the running task the one this place belongs to.

        Raises:
            UnlabelledConcurrency: it belongs to another one.
        """
        task = asyncio.current_task()
        if self.task is None:
            self.task = task
        elif self.task is not task:
            raise UnlabelledConcurrency(self.path)

    def next_key(self, kind: str) -> str:
        """The key of the next effect here.

        Raises:
            UnlabelledConcurrency: another task has recorded effects at this place.
        """
        self.claim()
        return f"{self.path}#{self.places.number(self.path)}:{kind}"

    def mark_key(self, kind: str, name: str) -> str:
        """A key with a name instead of a number: adding one leaves all other keys as they are."""
        return f"{self.path}!{quote(name)}:{kind}"

    async def until_siblings_rest(self, child: Frame) -> None:
        """Wait until every other node of the same superstep has finished or is suspended too.

        LangGraph cancels the siblings of a node that raises; a suspension must not cost them.
        """
        self.leave(child)
        if self._idle is None:
            self._idle = asyncio.Event()
        if not self.active:
            self._idle.set()
        await self._idle.wait()

    def leave(self, child: Frame) -> None:
        """A node inside this place is over or suspended."""
        self.active.discard(child)
        if not self.active and self._idle is not None:
            self._idle.set()


class Places:
    """All places of one run attempt: effect numbers, and which places are entered now."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._entered: set[str] = set()

    def number(self, path: str) -> int:
        """The next effect number at a place, from 0."""
        number = self._numbers.get(path, 0)
        self._numbers[path] = number + 1
        return number

    def numbered(self, path: str) -> int:
        """How many effects were numbered at a place so far."""
        return self._numbers.get(path, 0)

    def root(self) -> Entry:
        """The place outside all graphs."""
        return Entry(Frame(self, "", None))

    def enter(self, part: str, *, branch: Branch | None = None, inner: bool = False) -> Entry:
        """A place inside the current one; ``inner`` if a verifier's or a tool's work is done there.

        Raises:
            UnlabelledConcurrency: two tasks are in the same place at once.
        """
        return self.enter_at(f"{current_frame().path}/{part}", branch=branch, inner=inner)

    def enter_at(self, path: str, *, branch: Branch | None = None, inner: bool = False) -> Entry:
        """A place by its whole path: for a search that several nodes go on with."""
        frame = Frame(self, path, current_frame())
        if branch is not None:
            frame.branch, frame.inner = branch, False
        elif inner:
            frame.inner = True
        return Entry(frame)

    def entered(self, path: str) -> None:
        """Somebody enters a place.

        Raises:
            UnlabelledConcurrency: somebody is there.
        """
        if path in self._entered:
            raise UnlabelledConcurrency(path)
        self._entered.add(path)

    def left(self, path: str) -> None:
        """Nobody is at a place any more."""
        self._entered.discard(path)


class Entry:
    """A block of code at a place; entered once."""

    __slots__ = ("_frame", "_token")

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    def __enter__(self) -> Frame:
        frame = self._frame
        if frame.parent is not None:
            frame.places.entered(frame.path)
            frame.parent.active.add(frame)
        self._token = _CURRENT.set(frame)
        return frame

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        frame = self._frame
        if frame.parent is not None:
            frame.places.left(frame.path)
            frame.parent.leave(frame)
        _CURRENT.reset(self._token)


def current_frame() -> Frame:
    """The place this code runs in.

    Raises:
        InvalidInput: it runs outside a workflow.
    """
    frame = _CURRENT.get()
    if frame is None:
        raise InvalidInput(
            "ctx", "is used outside a run of its workflow", "Use it in a node of its graph"
        )
    return frame


def inside_a_run() -> bool:
    """Whether this code runs in a workflow, which then waits for what is begun here."""
    return _CURRENT.get() is not None


def enter_label(label: str) -> Entry:
    """A labelled place, for concurrency inside one node.

    Raises:
        InvalidInput: the label is empty.
    """
    if not label:
        raise InvalidInput("label", "is empty", "Give each concurrent part a name of its own")
    return current_frame().places.enter(quote(str(label)))


def enter_node(name: str, config: Mapping[str, Any]) -> Entry:
    """The place of a graph node, from the metadata LangGraph gives its task."""
    parent = current_frame()
    metadata = config["metadata"]
    path = ".".join(_path_parts(metadata["langgraph_path"][1:]))
    part = f"{metadata['langgraph_step']}.{quote(name)}"
    if path != name:
        part += f".{path}"
    turn = _invocation(parent, config)
    frame = Frame(parent.places, f"{parent.path}/{part}{f'~{turn}' if turn else ''}", parent)
    frame.invocation = turn
    return Entry(frame)


def _path_parts(path: tuple[Any, ...]) -> Iterator[str]:
    for part in path:
        if isinstance(part, tuple):
            yield from _path_parts(part)
        elif not isinstance(part, bool):
            yield quote(str(part))


def _invocation(parent: Frame, config: Mapping[str, Any]) -> int:
    """Which call of a graph inside ``parent`` this node belongs to: 0 for the first, and so on.

    Calls one after the other are numbered in that order. Calls side by side have no order.
    """
    # the namespace without the node itself: it is one per call of a graph, and changes per run
    identity = config["metadata"]["langgraph_checkpoint_ns"].rpartition("|")[0]
    if not identity:  # no graph of LangGraph's around it, as in a tool of a branch
        identity = str(getattr(config.get("callbacks"), "parent_run_id", ""))
    turn = parent.invocations.get(identity)
    if turn is None:
        if parent.active:
            raise UnlabelledConcurrency(parent.path)
        turn = parent.invocations[identity] = len(parent.invocations)
    elif turn != len(parent.invocations) - 1:
        raise UnlabelledConcurrency(parent.path)
    return turn
