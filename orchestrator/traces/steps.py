"""One effect of a trace as a step a person can read: what was asked, what came, what it took."""

from __future__ import annotations

from dataclasses import dataclass, field

from longthought.errors import TraceError
from longthought.storage import Event, Recording, canonical
from longthought.types import JSON, JSONObject, Message, text_of

__all__ = ["Step", "steps_of"]

_SHOWN = ("name", "arguments", "text", "reasoning", "calls", "finish_reason", "clock", "early")
_DELETED: Message = {"role": "assistant", "content": "[deleted]"}


@dataclass(slots=True)
class Step:
    """One effect.

    ``text`` is what came back in words: what a model wrote, a tool returned, a verifier said.
    ``status`` is ``ok``, or what went wrong; ``open`` for an effect without a known end.
    ``clock`` is queued, started, ended in seconds since the epoch, empty where none is kept.
    ``inner`` are the calls that a verifier made for its verdict.
    """

    key: str
    kind: str
    status: str = "open"
    name: str = ""
    arguments: JSON = None
    text: str = ""
    reasoning: str = ""
    calls: list[JSONObject] = field(default_factory=list)
    score: float | None = None
    passed: bool | None = None
    tokens: int = 0
    output_tokens: int = 0
    clock: list[float] = field(default_factory=list)
    finish_reason: str = ""
    tries: int = 1
    early: JSONObject = field(default_factory=dict)
    """Of a tool that began before the reply that asks for it had ended: by how many seconds, and
    pieces (``tokens``) of it."""
    inner: list[Step] = field(default_factory=list)

    @property
    def seconds(self) -> float | None:
        """From start to end, None where no clock was kept."""
        return self.clock[2] - self.clock[1] if self.clock else None

    @property
    def queued(self) -> float | None:
        """Seconds it waited before it began."""
        return self.clock[1] - self.clock[0] if self.clock else None

    def to_json(self) -> JSONObject:
        """All fields that say something."""
        value: JSONObject = {"key": self.key, "kind": self.kind, "status": self.status}
        for name in _SHOWN:
            if getattr(self, name) not in (None, "", [], {}):
                value[name] = getattr(self, name)
        if self.kind == "verify":
            value |= {"score": self.score, "passed": self.passed}
        if self.tokens:
            value |= {"tokens": self.tokens, "output_tokens": self.output_tokens}
        if self.tries > 1:
            value["tries"] = self.tries
        if self.inner:
            value["inner"] = [step.to_json() for step in self.inner]
        return value


def steps_of(recording: Recording) -> dict[str, Step]:
    """Every effect of a recording by its key, in the order in which they began."""
    steps: dict[str, Step] = {}
    for event in recording.events:
        if event.type == "effect_started":
            step = steps.setdefault(event.key, Step(event.key, event.body["kind"]))
            step.tries = event.body.get("attempt", 1)
            _read(lambda e=event, s=step: _ask(recording, e, s))
        elif event.type == "effect_finished":
            step = steps.setdefault(event.key, Step(event.key, event.body["kind"]))
            _finish(recording, event, step)
    return _nested(steps)


def _finish(recording: Recording, event: Event, step: Step) -> None:
    body = event.body
    step.status = body["status"]
    step.clock, step.early = list(body.get("clock", ())), dict(body.get("early", {}))
    step.tokens = body.get("charged", {}).get("tokens", 0)
    step.output_tokens = body.get("charged", {}).get("output_tokens", 0)
    _read(lambda: _ask(recording, event, step))
    if not recording.has(body["result"]):
        step.text = "[deleted]"
        return
    _read(lambda: _answer(recording, recording.get(body["result"]), step))


def _read(work: JSON) -> None:
    """Deleted payloads leave a gap; what is left is shown all the same."""
    try:
        work()
    except TraceError:
        return


def _ask(recording: Recording, event: Event, step: Step) -> None:
    request = recording.get(event.body["request"])
    match step.kind:
        case "model":
            step.name = request["model"]
        case "tool":
            step.name, step.arguments = request["tool"], request["arguments"]
        case "verify":
            step.name = str(request["verifier"].get("kind") or request["verifier"].get("name", ""))
        case "signal":
            step.name, step.arguments = request["signal"], request["ask"]
        case "patch":
            step.name = request["patch"]
        case "sleep":
            step.name = f"{request['seconds']:g} s"


def _answer(recording: Recording, result: JSON, step: Step) -> None:
    if step.kind == "model":
        _model_answer(recording, result, step)
    elif step.kind == "verify":
        step.score, step.passed, step.text = result["score"], result["passed"], result["reason"]
    elif step.kind == "tool":
        step.text = str(result.get("content") or "")
    elif step.kind == "signal":
        step.text = (
            "no signal came in time" if "value" not in result else canonical(result["value"])
        )
    else:
        step.text = canonical(result)


def _model_answer(recording: Recording, result: JSONObject, step: Step) -> None:
    if "conversation" not in result:
        step.text = str(result.get("error") or result.get("problem") or result.get("kind") or "")
        return
    step.finish_reason = result["finish_reason"]
    message = recording.messages(result["conversation"], _DELETED)[-1]
    step.text = text_of(message)
    step.reasoning = "".join(item.get("text", "") for item in message.get("reasoning", ()))
    step.calls = [dict(call) for call in message.get("tool_calls", ())]


def _nested(steps: dict[str, Step]) -> dict[str, Step]:
    """Put what a verifier called under its verdict: its keys go on from the verdict's own."""
    verdicts = {key.replace("#", "/", 1): step for key, step in steps.items() if "verify" in key}
    outer: dict[str, Step] = {}
    for key, step in steps.items():
        holder = next((v for place, v in verdicts.items() if key.startswith(f"{place}#")), None)
        if holder is None or holder is step:
            outer[key] = step
        else:
            holder.inner.append(step)
    return outer
