"""Several tasks behind one model: who answers, what is refused, and text that comes late."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longthought.errors import ConfigurationError, InvalidInput, QuestionRefused
from longthought.orchestrator.models.allowance import Allowance
from longthought.orchestrator.models.embedded import MODELS, EmbeddedModel, Network
from longthought.orchestrator.models.embedded.catalogue import Weights
from longthought.orchestrator.models.embedded.conversation import Conversation, read
from longthought.orchestrator.models.embedded.engine import Engine
from longthought.orchestrator.models.embedded.network import Shape
from longthought.orchestrator.models.embedded.puzzles import PuzzleTask
from longthought.orchestrator.models.embedded.questions import understand
from longthought.orchestrator.models.embedded.reply import Reply
from longthought.orchestrator.models.embedded.tasks import Task
from longthought.types import Message, ModelRequest
from tests.embedded import sums
from tests.embedded.sums import CALL, END, EQUALS, PLUS, RETURN, SEMICOLON, SumTask, encode

Ask = Callable[..., ModelRequest]

CALCULATOR = {"name": "calculator", "description": "", "parameters": {"type": "object"}}
BOTH: list[Task] = [PuzzleTask(), SumTask()]
STEP = [2, 1, PLUS, 7, EQUALS, 9, 1, SEMICOLON]  # 12 + 7 = 19;


def conversation(*written: Message, **more: object) -> Conversation:
    messages = [Message(role="user", content="sum 12 7"), *written]
    request = ModelRequest(model="embedded", messages=messages, **more)  # type: ignore[typeddict-item]
    return read(request, BOTH)


def continuing(text: str) -> Conversation:
    return conversation(Message(role="assistant", content=text), continue_last=True)


def written(reply: Reply, tokens: list[int]) -> list[str]:
    """The text after each token, and what is left at the end."""
    pieces = []
    for token in tokens:
        reply.accept(token)
        pieces.append(reply.take())
    return [*pieces, reply.rest()]


def test_a_number_is_shown_when_it_is_complete() -> None:
    reply = Reply(conversation(), [])
    assert written(reply, STEP) == ["", "", "12 +", "", " 7 =", "", "", " 19;", ""]
    assert not reply.finish


def test_an_unfinished_number_is_not_shown_and_written_anew() -> None:
    cut = Reply(conversation(), [])
    assert "".join(written(cut, STEP[:6])) == "12 + 7 ="
    again = continuing("12 + 7 =")
    assert again.trace == STEP[:5]
    assert "".join(written(Reply(again, []), [9, 1, SEMICOLON])) == " 19;"


@given(st.lists(st.integers(0, CALL - 1), max_size=20), st.integers(0, 20))
def test_text_and_tokens_survive_any_cut(tokens: list[int], cut: int) -> None:
    tokens.append(SEMICOLON)
    whole = "".join(written(Reply(conversation(), []), tokens))
    assert encode(whole) == tokens
    first = "".join(written(Reply(conversation(), []), tokens[:cut]))
    begun = continuing(first)
    assert begun.trace == tokens[: len(begun.trace)]
    assert not any(token >= 10 for token in tokens[len(begun.trace) : cut])
    rest = "".join(written(Reply(begun, []), tokens[len(begun.trace) :]))
    assert first + rest == whole


def test_a_stop_string_behind_a_number_and_the_way_on() -> None:
    reply = Reply(conversation(), [";"])
    assert "".join(written(reply, STEP)) == "12 + 7 = 19"
    assert (reply.finish, reply.worth_keeping()) == ("stop", True)
    begun = continuing("12 + 7 = 19")
    assert begun.trace == STEP[:-1]
    assert "".join(written(Reply(begun, []), [SEMICOLON])) == ";"  # and not "19;" once more
    assert "".join(written(Reply(begun, []), [4, PLUS])) == " 4 +"
    after = continuing("12 + 7 = 19; ")
    assert "".join(written(Reply(after, []), [4, PLUS])) == "4 +"


def test_a_stop_string_inside_what_comes_late() -> None:
    reply = Reply(conversation(), ["19"])
    assert "".join(written(reply, STEP)) == "12 + 7 = "
    assert reply.finish == "stop"
    held = Reply(conversation(), ["9; END"])
    assert "".join(written(held, [*STEP, PLUS, END])) == "12 + 7 = 19; + END"


def test_the_number_before_a_call_is_shown_and_the_call_is_not() -> None:
    asked = conversation(tools=[CALCULATOR])
    assert (asked.mode, asked.prompt[-1]) == ("tool", sums.TOOL)
    reply = Reply(asked, [])
    assert "".join(written(reply, [2, 1, PLUS, 7, CALL])) == "12 + 7"
    assert (reply.finish, reply.expression) == ("tool_calls", "12 + 7")
    call = {"id": "call_0", "name": "calculator", "arguments": '{"expression": "12 + 7"}'}
    said = Message(role="assistant", content="12 + 7", tool_calls=[call])
    silent = Message(role="assistant", content=None, tool_calls=[call])
    result = Message(role="tool", content="19")
    for message in (said, silent):
        resumed = conversation(message, result, tools=[CALCULATOR])
        assert resumed.trace == [2, 1, PLUS, 7, CALL, 9, 1, RETURN]
        assert resumed.calls == 1
    assert conversation(said, Message(role="tool", content=" 1.5 ")).unusable == "1.5"


def test_modes_are_those_that_the_task_offers() -> None:
    assert conversation().mode == "chain"
    assert conversation(sampling={"reasoning_effort": "none"}).mode == "chain"
    assert conversation(tools=[{**CALCULATOR, "name": "search"}]).mode == "chain"
    messages = [Message(role="user", content="can 4 6 make 24?")]
    request = ModelRequest(model="embedded", messages=messages, tools=[CALCULATOR])
    assert read(request, BOTH).mode == "value"


def test_a_task_without_calls_takes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SumTask, "call", -1)
    call = {"id": "call_0", "name": "calculator", "arguments": '{"expression": "12 + 7"}'}
    with pytest.raises(QuestionRefused, match="without a tool call"):
        conversation(Message(role="assistant", content=None, tool_calls=[call]))


# -- refusals -----------------------------------------------------------------------------------


def test_the_first_task_that_understands_answers() -> None:
    assert understand("4 7 8 8 -> 24", BOTH).task.name == "puzzles"
    assert understand("sum 1 2", BOTH).task.name == "sums"


def test_what_no_task_understands_is_told_what_all_can_do() -> None:
    with pytest.raises(QuestionRefused) as caught:
        understand("What is\nthe capital of France?" + "!" * 100, BOTH)
    assert caught.value.problem.startswith("'What is the capital of France?!!!")
    assert len(caught.value.problem) < 120
    for said in ("4 7 8 8 -> 24", "sum 12 7", "--model openai/NAME", "1234", "8000", "8080"):
        assert said in caught.value.fix
    with pytest.raises(QuestionRefused) as caught:
        understand("sum 1 2", BOTH[:1])
    assert "4 7 8 8 -> 24" in caught.value.fix
    assert "sum 12 7" not in caught.value.fix


def test_a_question_out_of_range_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(QuestionRefused, match="at most 3 digits") as caught:
        understand("sum 1 2345", BOTH)
    assert "sum 12 7" in caught.value.fix
    assert "4 7 8 8 -> 24" not in caught.value.fix
    with pytest.raises(QuestionRefused, match="numbers run from 1 to 13"):
        understand("4 7 8 99 -> 24", BOTH)
    monkeypatch.setattr(PuzzleTask, "ask", SumTask.ask)  # now two claim it: neither has it right
    with pytest.raises(QuestionRefused, match="no question that this model was made for"):
        understand("sum 1 2345", BOTH)


# -- one model with several tasks ---------------------------------------------------------------


@pytest.fixture
def two_tasks(monkeypatch: pytest.MonkeyPatch) -> Network:
    """Gives ``embedded`` a second task; returned is its network, which has learnt nothing."""
    network = Network.random(Shape(sums.SIZE, 40, 16, 1, 2), seed=3)
    weights = Weights(SumTask(), Path("unused.npz"), network)
    monkeypatch.setitem(MODELS, "embedded", (*MODELS["embedded/puzzle-large"], weights))
    monkeypatch.setitem(MODELS, "embedded/sums", (weights,))
    return network


async def test_the_question_decides_which_weights_answer(two_tasks: Network, ask: Ask) -> None:
    model = EmbeddedModel()
    assert model.tasks == ("puzzles", "sums")
    assert model.capabilities.context_window == 128
    assert model.counters.positions == 0
    puzzle = await model.generate(ask(), Allowance())
    before = model.counters
    total = await model.generate(ask("sum 12 7", seed=0), Allowance())
    assert puzzle["fingerprint"] == MODELS["embedded/puzzle-large"][0].digest()[:16]
    assert total["fingerprint"] == two_tasks.digest[:16]
    assert total["model"] == puzzle["model"] == "embedded"
    assert model.count_prompt(ask("sum 12 7")) == 5
    usage = total["usage"]
    assert usage["prompt_tokens"] + usage.get("completion_tokens", 0) <= 40
    assert model.counters.positions > before.positions
    assert model.counters.positions == sum(
        model.engine_of(task).counters.positions for task in model.tasks
    )
    await model.aclose()
    with pytest.raises(QuestionRefused, match="no question"):
        await EmbeddedModel("sums").generate(ask(), Allowance())


async def test_weights_are_loaded_when_their_first_question_comes(
    two_tasks: Network, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    load = Weights.load

    def noted(weights: Weights) -> Network:
        loaded.append(weights.task.name)
        return load(weights)

    monkeypatch.setattr(Weights, "load", noted)
    model = EmbeddedModel()
    assert model.fingerprint()["parameters"] > 0
    assert model.count_prompt(ask()) == 7
    assert loaded == []
    await asyncio.gather(*(model.generate(ask("sum 12 7"), Allowance()) for _ in range(3)))
    assert loaded == ["sums"]
    await model.aclose()


def test_several_threads_that_ask_at_once_get_one_engine(two_tasks: Network) -> None:
    model = EmbeddedModel()
    together = threading.Barrier(8)

    def get(_: int) -> Engine:
        together.wait()
        return model.engine_of("puzzles")

    with ThreadPoolExecutor(8) as threads:
        engines = list(threads.map(get, range(8)))
    assert len({id(engine) for engine in engines}) == 1
    with pytest.raises(InvalidInput, match="has no 'letters'"):
        model.engine_of("letters")


def test_the_fingerprint_of_several_tasks_covers_each(two_tasks: Network) -> None:
    both, one = EmbeddedModel().fingerprint(), EmbeddedModel("puzzle-large").fingerprint()
    digest = MODELS["embedded/puzzle-large"][0].digest()
    assert one["weights"] == f"sha256:{digest}"
    lines = f"puzzles {digest}\nsums {two_tasks.digest}\n"
    assert both["weights"] == "sha256:" + hashlib.sha256(lines.encode()).hexdigest()
    assert both["parameters"] == one["parameters"] + two_tasks.parameter_count
    assert (both["kind"], both["name"]) == ("embedded", "embedded")


def test_weights_are_replaced_one_task_at_a_time(two_tasks: Network) -> None:
    assert EmbeddedModel("sums", network=two_tasks).capabilities.context_window == 40
    with pytest.raises(InvalidInput, match="several tasks") as caught:
        EmbeddedModel(network=two_tasks)
    assert "embedded/puzzle-large" in caught.value.fix
    with pytest.raises(InvalidInput, match="no embedded model 'embedded/mine'"):
        EmbeddedModel("mine", network=two_tasks)


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 cut short"])
def test_a_damaged_installation_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "sums.npz"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setitem(MODELS, "embedded/sums", (Weights(SumTask(), path),))
    with pytest.raises(ConfigurationError, match=r"sums\.npz is no weights file"):
        EmbeddedModel("sums")


@pytest.mark.parametrize("name", MODELS)
def test_what_is_said_of_weights_is_what_they_are(name: str) -> None:
    for weights in MODELS[name]:
        network = weights.load()
        assert weights.shape() == network.shape
        assert weights.parameter_count() == network.parameter_count
        assert weights.digest() == network.digest
