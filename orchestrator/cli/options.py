"""From options to a workflow, and back from a recorded run to the workflow that made it.

``solve`` keeps its options in the manifest of the run. ``resume``, ``replay`` and ``audit`` build
the same workflow from them, so that nothing has to be typed again.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longthought.errors import InvalidInput, LongthoughtError
from longthought.orchestrator.cli.local import asked_server
from longthought.orchestrator.cli.settings import Settings
from longthought.types import JSONObject

if TYPE_CHECKING:
    from longthought import Workflow
    from longthought.budgets import Budget
    from longthought.orchestrator.models import BackendSettings
    from longthought.orchestrator.strategies import Policy, Stopper
    from longthought.storage import Store
    from longthought.tools import Tool
    from longthought.types import Model, Sampling, Verifier
    from longthought.verifiers import AnswerKind

__all__ = [
    "ANSWERS",
    "STRATEGIES",
    "VERIFIERS",
    "budget_from",
    "definition_options",
    "load_workflow",
    "parts_of",
    "schema_text",
    "workflow_from_options",
    "workflow_of",
]

STRATEGIES = ("single", "sample", "best-of", "majority", "backtrack")
VERIFIERS = ("puzzle", "equations", "number", "exact", "none")
ANSWERS = "number, exact, choice:A,B,C, puzzle or text"

_DEFAULT_SAMPLES = 16
_DEFAULT_ATTEMPTS = 16  # of a backtracking search, from the question on
_EMBEDDED = "embedded"
_USUAL: dict[str, JSONObject] = {
    "puzzles": {"strategy": "best-of", "answer": "puzzle", "verifier": "puzzle"},
    "words": {"strategy": "majority", "answer": "number", "verifier": "equations"},
    "letters": {"strategy": "single", "answer": "number"},
}
"""Task of the embedded model -> what is chosen for a question of it unless it is given."""
_FORMAT = 1


def definition_options(question: str, given: Mapping[str, Any], settings: Settings) -> JSONObject:
    """All that defines a workflow of the command line, with every default filled in.

    ``given`` holds what was typed (None for what was not). A puzzle put to the embedded model is
    answered as a puzzle: verified, best of 16.
    """
    defaults = settings.config.defaults

    def chosen(name: str) -> Any:
        value = given.get(name)
        return defaults.get(name) if value is None else value

    model, others = chosen("model") or _EMBEDDED, list(given.get("others") or ())
    _check_models([model, *others], given)
    server = asked_server(model, chosen("base_url"), settings)
    servers = {name: asked_server(name, chosen("base_url"), settings) for name in others}
    usual = _usual(model, server, question)
    default = usual.get("strategy", "single")
    strategy = chosen("strategy") or ("majority" if others and default == "single" else default)
    if strategy not in STRATEGIES:
        raise InvalidInput("strategy", f"there is no {strategy!r}", f"Use {', '.join(STRATEGIES)}")
    options: JSONObject = {
        "cli": _FORMAT,
        "model": model,
        "strategy": strategy,
        "answer": given.get("answer") or usual.get("answer", "text"),
        "verifier": given.get("verifier") or usual.get("verifier", "none"),
    }
    n = chosen("n")
    if n is None and strategy != "single":
        n = _DEFAULT_ATTEMPTS if strategy == "backtrack" else _DEFAULT_SAMPLES
        if others and not (chosen("strategy") or usual):
            n = 1 + len(others)  # each model once
    more = {
        "n": n,
        "wave": given.get("wave"),
        "stop": given.get("stop") or ("beta:0.95" if strategy == "sample" else None),
        "tools": _tool_names(given.get("tools")),
        "system": given.get("system"),
        "base_url": chosen("base_url"),
        "server": server,
        "others": others,
        "servers": {name: facts for name, facts in servers.items() if facts},
        "output": given.get("output"),
        "temperature": chosen("temperature"),
        "max_tokens": chosen("max_tokens"),
    }
    options.update({name: value for name, value in more.items() if value not in (None, [], {})})
    _check(options)
    return options


def workflow_from_options(
    options: JSONObject,
    settings: Settings,
    store: Store | None = None,
    *,
    model: Model | None = None,
) -> Workflow:
    """The workflow that these options describe; ``model`` is one that was made before.

    Raises:
        InvalidInput: an option has no such value; names it.
    """
    from longthought import Workflow

    if options.get("cli") != _FORMAT:
        raise InvalidInput("options", "are of a later version", "Upgrade longthought")
    return Workflow(
        options.get("name") or f"solve-{options['strategy']}",
        model=model or [options["model"], *options.get("others", ())],
        strategy=_strategy(options),
        answer=_answer(options["answer"]),
        verifier=_verifier(options["verifier"]),
        tools=[_tool(name) for name in options.get("tools", ())],
        system=options.get("system"),
        sampling=_sampling(options),
        output=_output(options),
        store=store,
        prices=settings.prices(),
        backends=_backends(options, settings),
    )


def schema_text(path: Path) -> str:
    """The JSON schema in a file, on one line.

    Raises:
        InvalidInput: it cannot be read, or is no JSON.
    """
    try:
        schema: Any = json.loads(path.expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        problem = f"{path} cannot be read: {error.strerror}"
        raise InvalidInput("schema", problem, "Give a file with a JSON schema") from error
    except (ValueError, RecursionError) as error:
        problem = f"{path} is no JSON: {error}"
        raise InvalidInput("schema", problem, "Give a file with a JSON schema") from error
    except RuntimeError as error:  # ~ of nobody
        problem = f"{path} cannot be read: {error}"
        raise InvalidInput("schema", problem, "Give a file with a JSON schema") from error
    return json.dumps(schema, ensure_ascii=False, separators=(",", ":"))


def parts_of(options: JSONObject) -> tuple[AnswerKind | None, Verifier | None, Sampling]:
    """Answer kind, verifier and sampling that these options describe.

    Raises:
        InvalidInput: an option has no such value; names it.
    """
    return _answer(options["answer"]), _verifier(options["verifier"]), _sampling(options)


def workflow_of(
    manifest: JSONObject, settings: Settings, store: Store, named: str | None = None
) -> Workflow:
    """The workflow of a recorded run: the one named, its options', or where it says it is found.

    Raises:
        InvalidInput: the run does not say where its workflow is, or it cannot be loaded.
    """
    if named:
        return load_workflow(named, store)
    if (manifest.get("options") or {}).get("cli"):
        return workflow_from_options(manifest["options"], settings, store)
    if manifest.get("source"):
        return load_workflow(manifest["source"], store)
    name = (manifest.get("workflow") or {}).get("name", "")
    raise InvalidInput(
        "workflow",
        f"the run does not say where its workflow {name!r} is found",
        "Give --workflow module:attribute (or Workflow(source=...) when it is defined)",
    )


def load_workflow(spec: str, store: Store | None = None) -> Workflow:
    """The workflow at ``module:attribute``; modules in the working directory are found too.

    Raises:
        InvalidInput: there is none.
    """
    from longthought import Workflow

    module, mark, attribute = spec.partition(":")
    if not module or not mark or not attribute:
        raise InvalidInput("workflow", f"{spec!r} is no module:attribute", "Write my_module:name")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except LongthoughtError:
        raise
    except (ImportError, AttributeError) as error:
        fix = "Run the command where the module is found"
        raise InvalidInput("workflow", f"{spec!r} cannot be loaded: {error}", fix) from error
    if not isinstance(found, Workflow):
        raise InvalidInput("workflow", f"{spec!r} is a {type(found).__name__}, not a Workflow")
    return found.recorded_in(store) if store is not None else found


def budget_from(given: Mapping[str, Any], before: Mapping[str, Any]) -> Budget:
    """The limits given over those before; None leaves a limit as it was.

    Raises:
        InvalidInput: a limit cannot be used.
    """
    from longthought.budgets import Budget

    limits = {name: value for name, value in given.items() if value is not None}
    return Budget.from_json({**before, **limits})


# -- details ----------------------------------------------------------------------------------


def _check_models(models: list[str], given: Mapping[str, Any]) -> None:
    twice = [name for name in models if models.count(name) > 1]
    if twice:
        raise InvalidInput("model", f"{twice[0]} is given twice", "Give each model once")
    embedded = next((name for name in models if _is_embedded(name)), None)
    if embedded and len(models) == 1 and given.get("base_url"):
        raise InvalidInput("base-url", f"{embedded} has no server", "Give --model openai/NAME too")
    for option, name in (("output", "schema"), ("images", "image")):
        if embedded and given.get(option):
            problem = f"{embedded} knows no {'JSON' if option == 'output' else 'pictures'}"
            raise InvalidInput(name, problem, "Give --model openai/NAME, for example")


def _backends(options: JSONObject, settings: Settings) -> dict[str, BackendSettings]:
    """The settings of every backend, and of the models that are asked."""
    url = options.get("base_url")
    found = settings.backends(options["model"], url, options.get("server"))
    for name in options.get("others", ()):
        found |= settings.backends(name, url, options.get("servers", {}).get(name))
    return found


def _output(options: JSONObject) -> JSONObject | None:
    """The schema of a typed answer. It is kept as text: the order of its fields counts."""
    if "output" not in options:
        return None
    schema: Any = json.loads(options["output"])
    if not isinstance(schema, dict):
        raise InvalidInput("schema", "is no JSON object", "Write a JSON schema")
    return schema


def _is_embedded(model: str) -> bool:
    return model.partition("/")[0] == _EMBEDDED


def _usual(model: str, server: JSONObject, question: str) -> JSONObject:
    """How a question of the embedded model, here or served, is answered unless told otherwise."""
    if server.get("serves") == _EMBEDDED:
        model = model.partition("/")[2]
    if not _is_embedded(model):
        return {}
    from longthought.orchestrator.models.embedded import MODELS, task_of

    return _USUAL.get(task_of(model, question) or "", {}) if model in MODELS else {}


def _check(options: JSONObject) -> None:
    """Build every part once, so that a bad option is told before anything begins."""
    from longthought.verifiers.json_answers import JSONKind

    for name in ("n", "max_tokens"):
        if options.get(name, 1) < 1:
            raise InvalidInput(
                name.replace("_", "-"), f"{options[name]} is too few", "Use 1 or more"
            )
    _strategy(options)
    _answer(options["answer"])
    _verifier(options["verifier"])
    _sampling(options)
    schema = _output(options)
    if schema is not None:
        try:
            JSONKind(schema)
        except InvalidInput as error:
            fix = error.fix or "Mend the file, see json-schema.org"
            raise InvalidInput("schema", error.problem, fix) from None
    for name in options.get("tools", ()):
        _tool(name)


def _strategy(options: JSONObject) -> Policy:
    from longthought.orchestrator import strategies
    from longthought.orchestrator.models.steps import step_stop

    n, wave = options.get("n", 1), options.get("wave")
    stop = _stopper(options.get("stop"))
    models = "all" if options.get("others") else None
    match options["strategy"]:
        case "single":
            if models:
                fix = "Use majority, sample, best-of or backtrack"
                raise InvalidInput("strategy", "single asks one model of several", fix)
            return strategies.single()
        case "best-of":
            first = stop or strategies.first_pass()
            best = strategies.best()
            return strategies.sample(n, wave=wave, stop=first, select=best, models=models)
        case "sample" | "majority":
            vote = strategies.majority()
            return strategies.sample(n, wave=wave, stop=stop, select=vote, models=models)
        case _:
            if options["verifier"] == "none":
                raise InvalidInput(
                    "verifier", "backtrack has none to tell it a dead end", "Give --verifier"
                )
            serves = options.get("server", {}).get("serves")
            kind = serves or options["model"].partition("/")[0]
            stops = step_stop(kind, options["verifier"])
            again = max(0, n - 1)
            return strategies.backtrack(width=2, restarts=again, stop=stops, models=models)


def _stopper(text: str | None) -> Stopper | None:
    from longthought.orchestrator import strategies

    if text is None:
        return None
    kind, mark, value = text.partition(":")
    match kind:
        case "never" if not mark:
            return strategies.never()
        case "first-pass" if not mark:
            return strategies.first_pass()
        case "beta":
            try:
                return strategies.beta(float(value)) if mark else strategies.beta()
            except ValueError:
                pass
    raise InvalidInput("stop", f"{text!r} is no rule", "Use beta:0.95, first-pass or never")


def _answer(text: str) -> AnswerKind | None:
    from longthought.verifiers import answers

    kind, _, labels = text.partition(":")
    match kind:
        case "text":
            return None
        case "number":
            return answers.number()
        case "exact":
            return answers.exact()
        case "puzzle":
            return answers.puzzle()
        case "choice" if labels:
            return answers.choice(labels.split(","))
    raise InvalidInput("answer", f"there is no kind {text!r}", f"Use {ANSWERS}")


def _verifier(name: str) -> Verifier | None:
    from longthought import verifiers

    match name:
        case "none":
            return None
        case "puzzle":
            return verifiers.puzzle(integers=True)
        case "equations":
            return verifiers.equations()
        case "number":
            return verifiers.number()
        case "exact":
            return verifiers.exact()
    raise InvalidInput("verifier", f"there is no {name!r}", f"Use {', '.join(VERIFIERS)}")


def _tool_names(text: str | None) -> list[str]:
    names = [name.strip() for name in (text or "").split(",") if name.strip()]
    # a search tool is resumed from wherever the program is started then
    return [
        f"search:{Path(name.removeprefix('search:')).expanduser().resolve()}"
        if name.startswith("search:")
        else name
        for name in names
    ]


def _tool(name: str) -> Tool:
    from longthought import tools

    kind, _, folder = name.partition(":")
    match kind:
        case "calculator" if not folder:
            return tools.calculator()
        case "python" if not folder:
            return tools.python()
        case "search" if folder:
            return tools.search(folder)
    raise InvalidInput("tools", f"there is no {name!r}", "Use calculator, python, search:FOLDER")


def _sampling(options: JSONObject) -> Sampling:
    sampling: Sampling = {}
    if "temperature" in options:
        temperature = float(options["temperature"])
        if not (math.isfinite(temperature) and temperature >= 0):
            raise InvalidInput("temperature", f"{temperature} is none", "Use 0 or more")
        sampling["temperature"] = temperature
    if "max_tokens" in options:
        sampling["max_tokens"] = int(options["max_tokens"])
    if "reasoning_effort" in options:
        sampling["reasoning_effort"] = str(options["reasoning_effort"])
    return sampling
