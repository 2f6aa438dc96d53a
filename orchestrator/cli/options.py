"""From options to a workflow, and back from a recorded run to the workflow that made it.

``solve`` keeps its options in the manifest of the run. ``resume``, ``replay`` and ``audit`` build
the same workflow from them, so that nothing has to be typed again.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longthought.errors import InvalidInput, LongthoughtError
from longthought.orchestrator.cli.settings import Settings
from longthought.types import JSONObject

if TYPE_CHECKING:
    from longthought import Workflow
    from longthought.budgets import Budget
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
    "workflow_from_options",
    "workflow_of",
]

STRATEGIES = ("single", "sample", "best-of", "majority", "backtrack")
VERIFIERS = ("puzzle", "number", "exact", "none")
ANSWERS = "number, exact, choice:A,B,C, puzzle or text"

_DEFAULT_SAMPLES = 16
_DEFAULT_ATTEMPTS = 16  # of a backtracking search, from the question on
_EMBEDDED = "embedded"
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

    model = chosen("model") or _EMBEDDED
    puzzle = _is_embedded(model) and _is_puzzle(question)
    if _is_embedded(model) and given.get("base_url"):
        raise InvalidInput("base-url", f"{model} has no server", "Give --model openai/NAME too")
    strategy = chosen("strategy") or ("best-of" if puzzle else "single")
    if strategy not in STRATEGIES:
        raise InvalidInput("strategy", f"there is no {strategy!r}", f"Use {', '.join(STRATEGIES)}")
    options: JSONObject = {
        "cli": _FORMAT,
        "model": model,
        "strategy": strategy,
        "answer": given.get("answer") or ("puzzle" if puzzle else "text"),
        "verifier": given.get("verifier") or ("puzzle" if puzzle else "none"),
    }
    n = chosen("n")
    if n is None and strategy != "single":
        n = _DEFAULT_ATTEMPTS if strategy == "backtrack" else _DEFAULT_SAMPLES
    more = {
        "n": n,
        "wave": given.get("wave"),
        "stop": given.get("stop") or ("beta:0.95" if strategy == "sample" else None),
        "tools": _tool_names(given.get("tools")),
        "system": given.get("system"),
        "base_url": chosen("base_url"),
        "temperature": chosen("temperature"),
        "max_tokens": chosen("max_tokens"),
    }
    options.update({name: value for name, value in more.items() if value not in (None, [])})
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
        model=model or options["model"],
        strategy=_strategy(options),
        answer=_answer(options["answer"]),
        verifier=_verifier(options["verifier"]),
        tools=[_tool(name) for name in options.get("tools", ())],
        system=options.get("system"),
        sampling=_sampling(options),
        store=store,
        prices=settings.prices(),
        backend=settings.backend(options["model"], options.get("base_url")),
    )


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


def _is_embedded(model: str) -> bool:
    return model.partition("/")[0] == _EMBEDDED


def _is_puzzle(question: str) -> bool:
    from longthought.verifiers.puzzles import parse_puzzle

    return parse_puzzle(question) is not None


def _check(options: JSONObject) -> None:
    """Build every part once, so that a bad option is told before anything begins."""
    for name in ("n", "max_tokens"):
        if options.get(name, 1) < 1:
            raise InvalidInput(
                name.replace("_", "-"), f"{options[name]} is too few", "Use 1 or more"
            )
    _strategy(options)
    _answer(options["answer"])
    _verifier(options["verifier"])
    for name in options.get("tools", ()):
        _tool(name)


def _strategy(options: JSONObject) -> Policy:
    from longthought.orchestrator import strategies

    n, wave = options.get("n", 1), options.get("wave")
    stop = _stopper(options.get("stop"))
    match options["strategy"]:
        case "single":
            return strategies.single()
        case "best-of":
            first = stop or strategies.first_pass()
            return strategies.sample(n, wave=wave, stop=first, select=strategies.best())
        case "sample" | "majority":
            return strategies.sample(n, wave=wave, stop=stop, select=strategies.majority())
        case _:
            if options["verifier"] == "none":
                raise InvalidInput(
                    "verifier", "backtrack has none to tell it a dead end", "Give --verifier"
                )
            # the embedded model writes BACK where it gives up: then the search goes back for it
            stops = (";", "BACK") if _is_embedded(options["model"]) else ("\n",)
            return strategies.backtrack(width=2, restarts=max(0, n - 1), stop=stops)


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
        sampling["temperature"] = float(options["temperature"])
    if "max_tokens" in options:
        sampling["max_tokens"] = int(options["max_tokens"])
    return sampling
