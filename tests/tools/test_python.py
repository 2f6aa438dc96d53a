"""The tool ``python`` on the real Monty: results, limits, isolation, and no process left behind."""

import asyncio
import json
from pathlib import Path

import pytest

from longthought.errors import InvalidInput
from longthought.tools import Tool, ToolCall, python, run_tool


def children(names=("monty",)) -> set[int]:
    """Process ids of our own children that run Monty."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        for pid in (task / "children").read_text().split():
            try:
                if Path(f"/proc/{pid}/comm").read_text().strip() in names:
                    found.add(int(pid))
            except OSError:
                continue
    return found


def worked(pids):
    """Ticks of processor time that these processes have used."""
    times = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(time) for each in times for time in each[11:13])


async def gone(pids=None):
    """Wait until the workers (these, or all) have ended; the system takes a moment to tell."""
    async with asyncio.timeout(20):
        while children() & pids if pids is not None else children():
            await asyncio.sleep(0.01)


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/task").exists(), reason="children are counted by /proc"
)


@pytest.fixture
async def tool():
    it = python(seconds=2, memory_mb=32)
    yield it
    await it.aclose()


async def run(tool, code, **options):
    return await run_tool(tool, ToolCall("c1", "python", {"code": code}), **options)


def test_it_is_a_pure_tool_that_names_its_limits():
    it = python(seconds=2, seed=3)
    assert isinstance(it, Tool)
    assert it.spec.effect == "pure"
    assert it.spec.fingerprint()["options"] == {"seconds": 2, "memory_mb": 64, "seed": 3}
    assert "math" in it.spec.description
    assert "yield" in it.spec.description


@pytest.mark.parametrize("options", [{"seconds": 0}, {"seconds": float("inf")}, {"memory_mb": 0}])
def test_limits_have_to_be_above_zero(options):
    with pytest.raises(InvalidInput):
        python(**options)


@pytest.mark.parametrize(
    ("code", "content"),
    [
        ("1 + 2", "3"),
        ("print('hi')\nprint(3)", "hi\n3\n"),
        ("print('a', end='')\n'b'", "a\nb"),
        ("x = 3\nx * 2", "6"),
        ("'text'", "text"),
        ("['a', 1]", "['a', 1]"),
        ("x = 1", "(nothing was printed, and the last line has no value)"),
        ("```python\nprint(1)\n```", "1\n"),
        ("import numpy as np\nimport math\nmath.floor(2.5)", "2"),
        ("import time\ntime.sleep(10)\n1", "1"),
        ("from collections import Counter\nCounter('aab').most_common(1)", "[('a', 2)]"),
        ("print('\u00e9 \U0001f600 \u6f22')", "\u00e9 \U0001f600 \u6f22\n"),
    ],
)
async def test_output_and_last_value(tool, code, content):
    result = await run(tool, code)
    assert (result.status, result.content) == ("ok", content)
    assert result.layers == ["monty"]


async def test_data_holds_output_and_value_apart(tool):
    result = await run(tool, "print('a')\n{'k': (1, 2.5, None), 'nan': float('nan')}")
    assert result.data == {"output": "a\n", "value": {"k": [1, 2.5, None], "nan": "nan"}}
    json.dumps(result.to_json(), allow_nan=False)


async def test_every_call_starts_afresh(tool):
    await run(tool, "secret = 1")
    result = await run(tool, "secret")
    assert result.status == "tool_error"
    assert "NameError" in result.content


async def test_the_same_code_gives_the_same_answer(tool):
    code = "import random, datetime, time\n"
    code += "[random.random(), str(datetime.datetime.now()), time.time()]"
    first, second = await run(tool, code), await run(tool, code)
    assert first.content == second.content
    other = python(seed=9)
    assert (await run(other, code)).content != first.content
    await other.aclose()


@pytest.mark.parametrize(
    ("code", "told", "missing"),
    [
        ("x = 1\n1/0", "line 2: ZeroDivisionError: division by zero", None),
        ("a b", "SyntaxError", None),
        ("raise ValueError('no')", "ValueError: no", None),
        ("import numpy as np\nnp.zeros(3)", "Available modules: asyncio", "module numpy"),
        ("def g():\n    yield 1", "yield expressions. Write it without", "yield expressions"),
        ("class A(int):\n    pass", "class inheritance", "class inheritance and metaclasses"),
        ("input('x')", "NameError", None),
        ("10 ** 5000", "cannot be shown", None),
        ("print('before')\n1/0", "before\nline 2: ZeroDivisionError", None),
        ("def f(n):\n    return f(n + 1)\nf(0)", "RecursionError", None),
        ("[0] * 10**9", "MemoryError", None),
        ("2 ** 10 ** 11", "MemoryError", None),
        ("while True:\n    print('x' * 1000)", "Error", None),
        ("(" * 5000, "SyntaxError", None),
    ],
)
async def test_failures_are_told_and_named(tool, code, told, missing):
    result = await run(tool, code)
    assert result.status in ("tool_error", "timeout")
    assert told in result.content
    assert result.layers == ["monty"]
    if result.data is not None:
        assert result.data.get("missing") == missing


@pytest.mark.parametrize(
    "code",
    [
        "open('/etc/passwd').read()",
        "import os\nos.environ['PATH']",
        "import os\nos.listdir('/')",
        "import pathlib\npathlib.Path('/etc/passwd').read_text()",
        "import socket\nsocket.socket()",
        "import subprocess\nsubprocess.run(['id'])",
        "import sys\nsys.modules",
        "().__class__.__base__.__subclasses__()",
    ],
)
async def test_nothing_outside_can_be_reached(tool, code):
    result = await run(tool, code)
    assert result.status == "tool_error"
    assert "root:" not in result.content


async def test_code_that_does_not_end_is_a_timeout():
    tool = python(seconds=1)
    result = await run(tool, "print('on')\nwhile True:\n    pass")
    assert result.status == "timeout"
    assert result.content == "on\nTimeoutError: the code ran longer than 1 s and was stopped"
    assert (await run(tool, "1")).content == "1"
    await tool.aclose()


@pytest.mark.parametrize("arguments", [{}, {"code": ""}, {"code": 3}, {"code": "1", "x": 2}])
async def test_bad_arguments(tool, arguments):
    result = await run_tool(tool, ToolCall("c1", "python", arguments))
    assert result.status == "bad_args"
    result = await run_tool(tool, ToolCall("c1", "python", {"code": "1" * 100_001}))
    assert result.status == "bad_args"


async def test_many_calls_at_once(tool):
    results = await asyncio.gather(*[run(tool, f"{n} * 2") for n in range(20)])
    assert [result.content for result in results] == [str(n * 2) for n in range(20)]


@needs_proc
async def test_cancelling_ends_the_worker_and_the_next_call_works():
    tool = python(seconds=30)
    assert (await run(tool, "1")).content == "1"
    before = children()
    idle = worked(before)
    task = asyncio.create_task(run(tool, "while True:\n    pass"))
    while worked(before) < idle + 3:  # it has the code
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await run(tool, "2")).content == "2"
    await gone(before)
    await tool.aclose()
    await gone()


@needs_proc
async def test_closing_leaves_no_process_and_may_be_repeated():
    tool = python()
    await tool.aclose()
    await run(tool, "1")
    assert children()
    await tool.aclose()
    await tool.aclose()
    await gone()
    assert (await run(tool, "1")).content == "1"
    await tool.aclose()


def test_it_serves_one_loop_after_another():
    tool = python()

    async def once():
        return (await run(tool, "1")).content

    assert asyncio.run(once()) == asyncio.run(once()) == "1"
    asyncio.run(tool.aclose())


async def test_a_worker_that_cannot_start_is_a_result(monkeypatch, tmp_path):
    monkeypatch.setenv("MONTY_BIN", str(tmp_path / "missing"))
    tool = python()
    result = await run(tool, "1")
    assert result.status == "sandbox_unavailable"
    await tool.aclose()


def test_importing_the_tools_does_not_load_monty():
    import subprocess
    import sys

    code = "import sys, longthought.tools; sys.exit('pydantic_monty' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
