"""Every address of a host is tried, and no socket is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket

import pytest

from longthought.orchestrator.models.openai import dialling
from longthought.orchestrator.models.openai.dialling import dial

FAMILY, KIND = socket.AF_INET, socket.SOCK_STREAM


@pytest.fixture
def addresses():
    """Addresses on this machine: one that answers, one that refuses, one that is silent."""
    with contextlib.ExitStack() as held:

        def bound():
            made = held.enter_context(socket.socket())
            made.bind(("127.0.0.1", 0))
            return made

        open_, refusing, silent = bound(), bound(), bound()
        open_.listen(64)
        silent.listen(0)
        for _ in range(4):  # all that wait for `accept`; further ones are not even answered
            waiting = held.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(silent.getsockname())
        yield [each.getsockname() for each in (open_, refusing, silent)]


async def dialled(monkeypatch, *answers):
    async def getaddrinfo(host, port, **options):
        return [(FAMILY, KIND, 0, "", address) for address in answers]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    with await dial("some.name", 80) as connected:
        return connected.getpeername()


async def test_the_next_address_is_tried_after_a_refusal(monkeypatch, addresses):
    answering, refusing, _ = addresses
    assert await dialled(monkeypatch, refusing, refusing, answering) == answering


async def test_the_next_address_is_tried_beside_a_silent_one(monkeypatch, addresses):
    monkeypatch.setattr(dialling, "_HEAD_START", 0.01)
    answering, refusing, silent = addresses
    assert await dialled(monkeypatch, silent, refusing, answering) == answering


async def test_why_no_address_answers_is_said(monkeypatch, addresses):
    _, refusing, _ = addresses
    with pytest.raises(OSError, match="Connect call failed"):
        await dialled(monkeypatch, refusing, refusing)
    with pytest.raises(OSError, match=r"some.name has no address"):
        await dialled(monkeypatch)


async def test_a_number_is_not_looked_up(monkeypatch, addresses):
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", None)
    answering, _, _ = addresses
    with await dial(*answering) as connected:
        assert connected.getpeername() == answering
    with await dial(*answering, "127.0.0.1") as connected:
        assert connected.getsockname()[0] == "127.0.0.1"


def test_families_take_turns():
    six, four = (socket.AF_INET6, 1), (socket.AF_INET, 2)
    assert dialling._families_in_turn([six, six, six, four]) == [six, four, six, six]
    assert dialling._families_in_turn([four]) == [four]
    assert dialling._families_in_turn([]) == []


@pytest.mark.parametrize("steps", range(8))
async def test_cancelled_at_any_step_nothing_is_left_open(addresses, steps):
    answering, _, _ = addresses
    task = asyncio.create_task(dial(*answering))
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.result().close()
    for _ in range(3):
        await asyncio.sleep(0)
    del task
    gc.collect()  # a socket left open is a warning, and warnings are errors
