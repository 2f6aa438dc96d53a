"""Typed answers from end to end: told, checked, mended, voted on, recorded and replayed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from langgraph.graph import END, START, StateGraph
from pydantic import BaseModel, Field

from benchmarks.protocol_server import protocol_server
from longthought import Budget, Context, Result, Store, Verdict, Workflow, answers, strategies
from longthought.errors import InvalidInput
from longthought.orchestrator import nodes
from longthought.orchestrator.definition import Retry
from longthought.orchestrator.models import OpenAIModel, toytokens
from longthought.orchestrator.models.scripted import ScriptedModel, call, rng, says
from longthought.orchestrator.traces import explain, run_tree
from longthought.tools import tool
from longthought.types import Candidate, Capabilities, JSONObject, JudgeContext
from longthought.verifiers.json_answers import JSONKind
from tests.executor.copies import copy_prefix
from tests.executor.workflows import turns_of

UNSTRUCTURED = Capabilities(top_up=True, seeds=True, structured_output=False)
SCHEMA: JSONObject = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name"],
}


class Person(BaseModel):
    name: str
    age: int = Field(ge=0)
    friends: list[Person] = []


def persons(request: Any) -> str:
    """Half of the samples are wrong at first; each says the same in another form."""
    seed = request["sampling"]["seed"]
    if seed % 2 and turns_of(request) == 0:
        return ['{"name": "Änn", "age": "?"}', "She is 33.", '{"name": "Änn", "age":'][
            seed // 2 % 3
        ]
    return [
        '{"name": "Änn", "age": 33}',
        'It is {"age": 33.0, "name": "\\u00c4nn", "friends": []} [1].',
        '```json\n{\n  "age": 33,\n  "name": "Änn"\n}\n```',
        '{"name": "Änn", "age": 34}',
    ][rng(request).randrange(4)]


def typed(store: Any, script: Any = persons, **changes: Any) -> Workflow:
    options: dict[str, Any] = {"output": Person, "strategy": strategies.sample(8)}
    options |= changes
    capabilities = options.pop("capabilities", Capabilities(top_up=True, seeds=True))
    options.setdefault("model", ScriptedModel(script, capabilities=capabilities))
    return Workflow("typed", store=store, **options)


async def asked(store: Store, run: str) -> list[JSONObject]:
    """The recorded requests of a run's model calls with their messages written out."""
    recording = await store.read(run)
    found = []
    for event in recording.events:
        if event.type == "effect_finished" and event.body["kind"] == "model":
            request = recording.get(event.body["request"])
            found.append({**request, "messages": recording.messages(request["conversation"])})
    return found


async def test_an_instance_comes_back_and_votes_are_counted_by_value(store: Store) -> None:
    workflow = typed(store)
    run = await workflow.run("Who is it?", seed=1)
    assert (run.status, run.stop_reason) == ("completed", "all_samples")
    assert run.output == Person(name="Änn", age=33)
    assert run.answer == '{"age":33,"friends":[],"name":"Änn"}'
    votes = run.support["votes"]
    assert sum(votes.values()) == 8
    assert set(votes) <= {run.answer, run.answer.replace("33", "34")}
    assert run.to_json()["output"] == {"name": "Änn", "age": 33, "friends": []}
    assert run.spent["model_calls"] == 12
    again = await workflow.replay(run.id)
    assert (again.output, again.answer, again.model_calls) == (run.output, run.answer, 0)
    assert again.to_json()["output"] == run.to_json()["output"]


async def test_a_reply_that_is_not_valid_is_told_so_once(sqlite_store: Store) -> None:
    run = await typed(sqlite_store, strategy=strategies.single()).run("Who?", seed=1)
    first, second = await asked(sqlite_store, run.id)
    assert first["output"] == second["output"]
    told = second["messages"][-1]
    assert [m["role"] for m in second["messages"]] == ["user", "assistant", "user"]
    assert told["content"].startswith("That is no valid answer: age: Input should be a valid int")
    [branch] = run_tree(await sqlite_store.read(run.id)).searches[0].branches
    assert [step.kind for step in branch.steps] == ["model", "verify", "model"]
    assert branch.steps[1].text.startswith("age: Input should be a valid integer")
    assert branch.outcome["passed"] is None  # a mended answer is as good as any
    assert explain(await sqlite_store.read(run.id)).verdict == {}


@pytest.mark.parametrize(("retries", "calls"), [(0, 1), (1, 2), (3, 4)])
async def test_who_stays_wrong_does_not_vote(sqlite_store: Store, retries: int, calls: int) -> None:
    def wrong_once(request: Any) -> str:
        seed = request["sampling"]["seed"]
        return '{"name": 7, "age": 7}' if seed == 0 else '{"name": "Bo", "age": 7}'

    workflow = typed(
        sqlite_store, wrong_once, strategy=strategies.sample(3), output_retries=retries
    )
    run = await workflow.run("Who?")
    assert run.output == Person(name="Bo", age=7)
    assert run.support["votes"] == {run.answer: 2}
    assert run.spent["model_calls"] == 2 + calls
    assert (await workflow.replay(run.id)).support == run.support

    alone = typed(sqlite_store, wrong_once, strategy=strategies.single(), output_retries=retries)
    run = await alone.run("Who?")
    assert (run.status, run.answer, run.output) == ("incomplete", None, None)
    assert run.error == "output: name: Input should be a valid string (got 7)"
    assert "output" not in run.to_json()
    assert (await alone.replay(run.id)).error == run.error


async def test_a_reply_that_was_cut_short_is_not_asked_for_again(sqlite_store: Store) -> None:
    workflow = typed(
        sqlite_store,
        lambda request: '{"name": "' + "x " * 200 + '", "age": 1}',
        strategy=strategies.single(),
        sampling={"max_tokens": 20},
    )
    run = await workflow.run("Who?")
    assert (run.status, run.output, run.spent["model_calls"]) == ("incomplete", None, 1)
    assert run.error == "output: the JSON cannot be read: it is not complete"


@pytest.mark.parametrize("continues", [True, False])
async def test_a_cut_reply_of_a_bound_decoder_is_asked_for_anew(
    sqlite_store: Store, continues: bool
) -> None:
    """Going on with half an object would begin it again."""
    name = " ".join(f"word{n}" for n in range(300))
    requests: list[Any] = []

    def script(request: Any) -> str:
        requests.append(request)
        one = request["sampling"]["seed"] == 1
        return json.dumps({"name": name if one else "Bo", "age": 1})

    capabilities = Capabilities(continues=continues, seeds=True)
    need = toytokens.count(name)
    workflow = typed(
        sqlite_store,
        script,
        capabilities=capabilities,
        budget=Budget(output_tokens=3 * need, final_answer=0),
        strategy=strategies.sample(4),
        retry=Retry(attempts=1),
        max_output_tokens=4 * need,
    )
    run = await workflow.run("Who?")
    assert sorted(run.support["votes"].values()) == [1, 3]
    assert any(name in answer for answer in run.support["votes"])
    first, anew, *_ = [r for r in requests if r["sampling"]["seed"] == 1]
    assert first == anew
    assert run.spent["output_tokens"] <= 3 * need
    assert (await workflow.replay(run.id)).support == run.support


@tool(effect="read")
async def lookup(name: str) -> int:
    """Look an age up."""
    return len(name)


async def test_tools_may_be_called_on_the_way(sqlite_store: Store) -> None:
    def script(request: Any) -> Any:
        if turns_of(request) == 0:
            return says("looking", call("lookup", name="Bo"))
        return '{"name": "Bo", "age": 2}' if turns_of(request) == 2 else "Bo is 2."

    workflow = typed(sqlite_store, script, tools=[lookup], strategy=strategies.single())
    run = await workflow.run("Who?")
    assert run.output == Person(name="Bo", age=2)
    assert (run.spent["model_calls"], run.spent["tool_calls"]) == (3, 1)


async def test_the_schema_is_told_to_a_model_that_keeps_to_none(sqlite_store: Store) -> None:
    workflow = typed(sqlite_store, capabilities=UNSTRUCTURED, system="Be brief.")
    run = await workflow.run("Who?")
    assert run.output == Person(name="Änn", age=33)
    for request in await asked(sqlite_store, run.id):
        assert "output" not in request
        system = request["messages"][0]
        assert system["role"] == "system"
        words, _, schema = system["content"].rpartition("\n")
        assert words.startswith("Be brief.\n\nGive your final answer as JSON alone")
        assert list(json.loads(schema)["properties"]) == [
            "name",
            "age",
            "friends",
        ]  # in their order
    assert (await workflow.replay(run.id)).output == run.output


async def test_each_model_is_told_in_its_own_way(sqlite_store: Store) -> None:
    bound = ScriptedModel(persons, name="bound")
    free = ScriptedModel(persons, name="free", capabilities=UNSTRUCTURED)
    parts = [{"type": "text", "text": "Be brief."}]
    question = [{"role": "system", "content": parts}, {"role": "user", "content": "Who?"}]
    workflow = typed(sqlite_store, model=[bound, free], strategy=strategies.sample(4, models="all"))
    run = await workflow.run(question)  # type: ignore[arg-type]
    assert run.output == Person(name="Änn", age=33)
    for request in await asked(sqlite_store, run.id):
        system = request["messages"][0]["content"]
        assert ("output" in request) == (request["model"] == "bound")
        assert len(system) == (1 if request["model"] == "bound" else 2)
        assert system[0] == parts[0]
    assert (await workflow.replay(run.id)).answer == run.answer


async def test_a_plain_schema_gives_parsed_json(sqlite_store: Store) -> None:
    workflow = typed(sqlite_store, output=SCHEMA)
    run = await workflow.run("Who?")
    assert run.output == {"name": "Änn", "age": 33} or run.output["friends"] == []
    assert json.loads(run.answer or "") == run.output
    assert (await asked(sqlite_store, run.id))[0]["output"] == SCHEMA
    assert (await workflow.replay(run.id)).output == run.output


async def test_an_answer_kind_of_ones_own_may_count_the_votes(sqlite_store: Store) -> None:
    def ages(request: Any) -> str:
        seed = request["sampling"]["seed"]
        age = '"?"' if seed == 3 else 40 + (seed == 0)
        return json.dumps({"name": f"N{seed}", "age": age})

    def age(text: str) -> str:
        return str(json.loads(text)["age"])

    workflow = typed(
        sqlite_store, ages, answer=answers.callable(age), strategy=strategies.sample(4)
    )
    run = await workflow.run("How old?")
    assert (run.answer, run.support["votes"]) == ("40", {"40": 2, "41": 1})
    assert run.output == Person(name="N1", age=40)
    assert (await workflow.replay(run.id)).output == run.output


async def test_the_kind_alone_reads_prose_and_asks_for_nothing(sqlite_store: Store) -> None:
    workflow = typed(sqlite_store, output=None, answer=answers.json(Person))
    run = await workflow.run("Who?", seed=1)
    assert run.output == Person(name="Änn", age=33)
    assert (run.spent["model_calls"], sum(run.support["votes"].values())) == (8, 4)
    assert all("output" not in request for request in await asked(sqlite_store, run.id))


class Counting:
    """A verifier that counts how often it was asked."""

    name = "counting"

    def __init__(self) -> None:
        self.judged: list[str | None] = []

    def spec(self) -> JSONObject:
        return {"kind": self.name}

    async def judge(self, candidate: Candidate, context: JudgeContext) -> Verdict:
        self.judged.append(candidate.answer)
        return Verdict(0.4, None)


async def test_what_is_not_valid_is_turned_down_without_asking_the_verifier(
    sqlite_store: Store,
) -> None:
    verifier = Counting()
    workflow = typed(
        sqlite_store, verifier=verifier, strategy=strategies.best_of(4), output_retries=0
    )
    run = await workflow.run("Who?")
    assert len(verifier.judged) == 2
    assert None not in verifier.judged
    assert isinstance(run.output, Person)
    outcomes = [b.outcome for b in run_tree(await sqlite_store.read(run.id)).searches[0].branches]
    assert [o["passed"] for o in outcomes if o["answer"] is None] == [False, False]


async def test_mending_stays_within_the_budget(sqlite_store: Store) -> None:
    def never(request: Any) -> str:
        return "I do not know, " * 10

    whole = await typed(sqlite_store, never, output_retries=12, max_turns=1).run("Who?")
    assert whole.spent["model_calls"] == 8 * 13
    for tokens in (300, 900, 4000):
        workflow = typed(sqlite_store, never, output_retries=12, budget=Budget(tokens=tokens))
        run = await workflow.run("Who?")
        assert run.status == "incomplete"
        assert run.stop_reason == "tokens"
        assert run.spent["tokens"] <= tokens
        assert (await workflow.replay(run.id)).model_calls == 0
    calls = await typed(sqlite_store, never, budget=Budget(model_calls=9)).run("Who?")
    assert calls.spent["model_calls"] == 9


async def test_the_last_answer_before_the_budget_ends_is_typed_too(sqlite_store: Store) -> None:
    def slow(request: Any) -> Any:
        if "final answer now" in str(request["messages"][-1]["content"]):
            return '{"name": "Bo", "age": 1}'
        return says("looking " * 20, call("lookup", name="Bo"))

    workflow = typed(
        sqlite_store,
        slow,
        tools=[lookup],
        strategy=strategies.single(),
        budget=Budget(output_tokens=1000),
    )
    run = await workflow.run("Who?")
    assert (run.status, run.output) == ("incomplete", Person(name="Bo", age=1))
    assert (await asked(sqlite_store, run.id))[-1]["output"]["title"] == "Person"


@pytest.mark.parametrize("retries", [1, 2])
async def test_cut_off_after_any_event_it_comes_to_the_same(
    sqlite_store: Store, retries: int
) -> None:
    def script(request: Any) -> str:
        return "no" if turns_of(request) < request["sampling"]["seed"] else '{"name":"B","age":1}'

    workflow = typed(sqlite_store, script, strategy=strategies.sample(3), output_retries=retries)
    whole = await workflow.run("Who?")
    assert whole.support["votes"] == {whole.answer: min(3, retries + 1)}
    recording = await sqlite_store.read(whole.id)
    for length in range(2, recording.length):
        copied = await copy_prefix(sqlite_store, recording, length)
        run = await workflow.resume(copied)
        assert (run.output, run.support) == (whole.output, whole.support), length
        assert (await workflow.replay(copied)).answer == whole.answer


async def test_a_replay_tells_what_was_told_whatever_the_library_says_now(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    workflow = typed(sqlite_store)
    run = await workflow.run("Who?")
    said: Callable[[JSONKind, str], str] = JSONKind.problem
    monkeypatch.setattr(JSONKind, "problem", lambda self, text: said(self, text) and "other words")
    again = await workflow.replay(run.id)
    assert (again.answer, again.model_calls) == (run.answer, 0)


async def test_steps_of_thought_end_in_a_typed_answer(sqlite_store: Store) -> None:
    """A decoder bound to the schema could not think first: it is told instead."""
    lines = ["3 * 4 = 12\n", "12 + 5 = 17\n", '{"name": "Bo", "age": "17"x}', '{"name": "Bo"}']

    def script(request: Any) -> str:
        if request["messages"][-1]["role"] == "user" and turns_of(request):
            return '{"name": "Bo", "age": 17}'
        return "".join(lines[:3])

    class Fine(Counting):
        async def judge(self, candidate: Candidate, context: JudgeContext) -> Verdict:
            return Verdict(1.0, True)

    workflow = typed(
        sqlite_store,
        model=ScriptedModel(script),
        verifier=Fine(),
        strategy=strategies.backtrack(width=2, stop="\n"),
    )
    run = await workflow.run("How old?")
    assert run.output == Person(name="Bo", age=17)
    assert run.support["steps"] == 3
    requests = await asked(sqlite_store, run.id)
    assert all("output" not in request for request in requests)
    assert all("JSON schema" in request["messages"][0]["content"] for request in requests)
    assert (await workflow.replay(run.id)).output == run.output


async def test_a_graph_of_ones_own_may_be_typed(sqlite_store: Store) -> None:
    class Own(nodes.Thought, total=False):
        answer: Any

    async def settle(state: Any) -> JSONObject:
        misfit = state.get("misfit")
        return {"answer": {"name": "Bo", "age": 3.0} if misfit else state["candidate"].answer}

    graph: Any = StateGraph(Own, context_schema=Context)
    graph.add_node("reason", nodes.reason)
    graph.add_node("judge", nodes.judge)
    graph.add_node("settle", settle)
    graph.add_edge(START, "reason")
    graph.add_edge("reason", "judge")
    graph.add_edge("judge", "settle")
    graph.add_edge("settle", END)
    for capabilities in (UNSTRUCTURED, Capabilities()):
        for said, expected in (("no", 3), ('{"name": "Bo", "age": 4}', 4)):
            model = ScriptedModel([said], capabilities=capabilities)
            workflow = typed(sqlite_store, model=model, graph=graph)
            run = await workflow.run("Who?")
            assert run.output == Person(name="Bo", age=expected)
            assert (await workflow.replay(run.id)).output == run.output
            [request] = await asked(sqlite_store, run.id)
            assert ("output" in request) == capabilities.structured_output


async def test_what_is_wrong_with_an_output_is_told_when_it_is_built() -> None:
    bad: Any = int
    with pytest.raises(InvalidInput, match="output: <class 'int'> is no schema"):
        Workflow("w", output=bad)
    with pytest.raises(InvalidInput, match="output: no JSON schema"):
        Workflow("w", output={"type": "none"})
    with pytest.raises(InvalidInput, match="output_retries: -1 is too few"):
        Workflow("w", output=Person, output_retries=-1)


def test_what_is_not_used_stands_in_no_manifest() -> None:
    plain = Workflow("w", model=ScriptedModel(["a"]), strategy=strategies.sample(2)).definition
    assert plain.fingerprint() == (
        "019e3bed0bb0cffd4e099b73fae74206da4f6056fc1627a91f720f5872064b2e"
    )
    assert "output_retries" not in plain.parts()
    assert "models" not in plain.parts()["strategy"]
    one = Workflow("w", model=ScriptedModel(["a"]), output=SCHEMA).definition
    two = Workflow("w", model=ScriptedModel(["a"]), output=SCHEMA, output_retries=2).definition
    assert one.parts()["output"] == SCHEMA
    assert one.parts()["answer"] == {"kind": "json", "schema": SCHEMA}
    assert "output_retries" not in one.parts()
    assert two.parts()["output_retries"] == 2


async def test_a_server_is_sent_the_schema_and_the_mistake(sqlite_store: Store) -> None:
    with protocol_server() as server:
        model = OpenAIModel("toy", base_url=server.address("t0"), api_key="x")
        workflow = typed(sqlite_store, model=model, strategy=strategies.single())
        run: Result = await workflow.run("Who?")
        await workflow.aclose()
        first, second = server.received
    assert run.error == "output: there is no JSON in it"
    form = first["response_format"]
    assert form == second["response_format"]
    assert (form["type"], form["json_schema"]["strict"]) == ("json_schema", True)
    assert form["json_schema"]["name"] == "Person"
    fields = form["json_schema"]["schema"]
    assert list(fields["properties"]) == fields["required"] == ["name", "age", "friends"]
    assert second["messages"][-1]["content"].startswith("That is no valid answer: there is no JSON")
