"""The small effects: the time, a random draw, a patch mark, a sleep, a wait for a signal."""

from __future__ import annotations

import asyncio
import hashlib
import math
import random
from contextlib import nullcontext

from longthought.errors import Diverged, InvalidInput, SignalTimeout, Suspended
from longthought.orchestrator.places import Frame, current_frame
from longthought.orchestrator.session import MISSING, Session
from longthought.storage import Event, canonical
from longthought.storage.difference import describe_change
from longthought.storage.names import check_signal_name
from longthought.types import JSON, JSONObject

__all__ = ["draw", "patched", "signal_form", "sleep", "suspend", "tell_time"]


async def tell_time(session: Session) -> float:
    """Seconds since the epoch, the same on every replay."""
    return float(await _simple(session, "now", {}, lambda _key: session.now))


async def draw(session: Session) -> float:
    """A number in [0, 1) that follows from the run's seed and the place."""

    def number(key: str) -> float:
        material = f"{session.seed}\n{key}".encode()
        return random.Random(hashlib.sha256(material).digest()).random()

    return float(await _simple(session, "random", {"seed": session.seed}, number))


async def patched(session: Session, name: str) -> bool:
    """Whether this run began after the change ``name``: False for runs recorded before it.

    A run that has already gone past this place without the mark keeps to the old way; any other
    records the mark and takes the new one. The mark has a key of its own, so that adding it
    changes no other key.
    """
    frame = current_frame()
    key = frame.mark_key("patch", name)
    if key in session.index.finished:
        session.asked.add(key)
        return True
    if session.index.holds_beyond(frame.path, frame.places.numbered(frame.path)):
        return False
    if session.mode == "replay":
        return False
    await session.until_live(frame)
    session.finish(frame, key, "patch", session.put({"patch": name}), True)
    await session.commit(frame)
    return True


async def sleep(session: Session, seconds: float) -> None:
    """Go on so many seconds after this was first asked, whatever happens to the process.

    A sleep with more than ``park_after`` seconds left parks the run until a waker finds it due.

    Raises:
        InvalidInput: ``seconds`` is no time.
        Suspended: the run parks.
        Diverged: it sleeps since an earlier attempt, and for another time.
    """
    check_seconds("seconds", seconds)
    frame = current_frame()
    key = frame.next_key("sleep")
    form: JSONObject = {"seconds": float(seconds)}
    if session.recorded(key, form, frame) is not MISSING:
        return
    await session.until_live(frame)
    begun = await _begun(session, frame, key, "sleep", form)
    until = round(begun + seconds, 6)
    longest = session.definition.park_after
    if longest is not None and until - session.now > longest:
        session.waiting.append({"name": "sleep", "key": key, "until": until})
        raise Suspended("sleep", key)
    seat = session.seats.waiting(frame)
    with seat.tool_running("sleep", int(1000 * seconds)) if seat else nullcontext():
        await asyncio.sleep(max(0.0, until - session.now))
    session.finish(frame, key, "sleep", session.put(form), {"until": until})
    await session.commit(frame)


async def _begun(session: Session, frame: Frame, key: str, kind: str, form: JSONObject) -> float:
    """When a wait began, in this attempt or an earlier one: seconds since the epoch."""
    seq, request = session.index.started.get(key), session.put(form)
    if seq is None:
        session.enter_chain(frame.branch)
        event = session.journal.stage("effect_started", key, kind=kind, request=request)
        await session.commit(frame)
    else:
        event = session.recording.events[seq - 1]
        if event.body["request"] != request:
            before = session.recording.get(event.body["request"])
            waits = f"sleeps for {before['seconds']:g} s" if kind == "sleep" else "waits"
            told = describe_change(before, form)
            raise Diverged(key, f"it {waits} since an earlier attempt. {told}")
    return float(event.body["at"])


async def suspend(
    session: Session,
    name: str,
    ask: JSON = None,
    *,
    timeout: float | None = None,  # noqa: ASYNC109 (it outlives the process)
    key: str | None = None,
    since: float | None = None,
) -> JSON:
    """Wait for a signal; the run parks, without a task or memory, until it comes.

    ``timeout`` is in seconds from when the wait was put on record, or from ``since``. What is on
    record first counts, the signal or that the time was over; a signal that is late stays for the
    next wait that it fits.

    ``key`` is given for a wait inside another effect: it must not take a number of its own, since a
    replay that is handed the outer effect does not wait again.

    Raises:
        InvalidInput: ``name`` is no name, ``timeout`` is no time, or ``ask`` is not JSON.
        SignalTimeout: no signal has come in time.
        Suspended: the signal is not there yet.
        Diverged: it waits since an earlier attempt, and for something else.
    """
    check_signal_name("name", name)
    if timeout is not None:
        check_seconds("timeout", timeout)
    try:
        canonical(ask)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput("ask", f"is not JSON: {error}", "Use plain data") from error
    frame = current_frame()
    key = key or frame.next_key("signal")
    form = signal_form(name, ask, timeout)
    event = session.recorded(key, form, frame)
    if event is not MISSING:
        if event.body["status"] == "timeout":
            raise SignalTimeout(name, key, timeout or 0.0)
        return session.result_of(event)["value"]
    signal = _signal_for(session, name, key)
    if signal is None:
        until = None
        if timeout is not None:
            await session.until_live(frame)
            if since is None:
                since = await _begun(session, frame, key, "signal", form)
            until = round(since + timeout, 6)
        if until is None or session.now < until:
            due = {} if until is None else {"until": until}
            session.waiting.append({"name": name, "key": key, "ask": ask, **due})
            raise Suspended(name, key)
        session.finish(frame, key, "signal", session.put(form), {"until": until}, status="timeout")
        await session.commit(frame)
        raise SignalTimeout(name, key, timeout or 0.0)
    await session.until_live(frame)
    value = session.recording.get(signal.body["value"])
    result = {"signal": signal.body["signal"], "value": value}
    session.finish(frame, key, "signal", session.put(form), result)
    await session.commit(frame)
    return value


def signal_form(name: str, ask: JSON, timeout: float | None) -> JSONObject:
    """The request of a wait for a signal."""
    form: JSONObject = {"signal": name, "ask": ask}
    return form if timeout is None else {**form, "timeout": float(timeout)}


def check_seconds(field: str, seconds: float) -> None:
    """Refuse what is no time to wait.

    Raises:
        InvalidInput: it is no number, not finite, or below 0.
    """
    number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not number or not (math.isfinite(seconds) and seconds >= 0):
        raise InvalidInput(field, f"{seconds!r} is no time to wait", "Use seconds from 0")


def _signal_for(session: Session, name: str, key: str) -> Event | None:
    """The first signal of this name that is for this place and answered no other one."""
    used = session.used_signals
    for finished in session.index.finished.values():
        if finished.body["kind"] == "signal" and finished.body["status"] == "ok":
            used.add(session.result_of(finished)["signal"])
    for event in session.index.signals:
        fits = event.body["name"] == name and event.key in ("", key)
        if fits and event.body["signal"] not in used:
            used.add(event.body["signal"])
            return event
    return None


async def _simple(session: Session, kind: str, form: JSONObject, make: JSON) -> JSON:
    frame = current_frame()
    key = frame.next_key(kind)
    event = session.recorded(key, form, frame)
    if event is not MISSING:
        return session.result_of(event)
    await session.until_live(frame)
    value = make(key)
    session.finish(frame, key, kind, session.put(form), value)
    await session.commit(frame)
    return value
