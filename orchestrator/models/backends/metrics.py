"""What servers say of their memory and load on ``/metrics``, in the text format of Prometheus."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from longthought.orchestrator.models.backends.facts import ServerLoad

__all__ = ["Metrics", "Sample"]

_LINE = re.compile(r"([A-Za-z_:][\w:]*)(?:\{(.*)\})?[ \t]+(\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_MOST = 2**48


class Sample(NamedTuple):
    """One line: what was measured, of what, and how much."""

    name: str
    labels: Mapping[str, str]
    value: float


class Metrics:
    """A page of metrics. A line that makes no sense says nothing."""

    def __init__(self, text: str) -> None:
        self._samples: dict[str, list[Sample]] = {}
        for sample in _samples(text):
            self._samples.setdefault(sample.name, []).append(sample)

    def of_vllm(self) -> tuple[int | None, ServerLoad]:
        """Capacity in tokens and load of vLLM; several engines of one server are taken together.

        The capacity is None also where nothing is kept from one request to the next. It is
        ``kv_cache_size_tokens`` where a version says that: blocks of models with layers of several
        kinds hold fewer or more tokens than their size says.
        """
        load = ServerLoad(
            memory_used=self._mean("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
            running=self._count("vllm:num_requests_running"),
            waiting=self._count("vllm:num_requests_waiting"),
            prefix_hits=self._share(
                self._first("vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total"),
                self._first(
                    "vllm:prefix_cache_queries_total", "vllm:gpu_prefix_cache_queries_total"
                ),
            ),
        )
        engines = {
            sample.labels.get("engine", ""): sample.labels
            for sample in self._samples.get("vllm:cache_config_info", ())
        }
        return _sum_known(map(_tokens_of, engines.values())), load

    def of_sglang(self) -> tuple[int | None, ServerLoad]:
        """Capacity in tokens and load of SGLang, which has them if started so."""
        load = ServerLoad(
            memory_used=self._mean("sglang:token_usage"),
            running=self._count("sglang:num_running_reqs"),
            waiting=self._count("sglang:num_queue_reqs"),
            prefix_hits=self._mean("sglang:cache_hit_rate"),
        )
        sizes = self._first("sglang:max_total_num_tokens")
        return (_whole(max(sizes)) if sizes else None), load

    def _first(self, *names: str) -> list[float]:
        """The values of the first of these names that is there."""
        found = next((self._samples[name] for name in names if name in self._samples), ())
        return [sample.value for sample in found]

    def _mean(self, *names: str) -> float | None:
        values = self._first(*names)
        mean = sum(values) / len(values) if values else -1.0
        return mean if 0 <= mean <= 1 else None

    def _count(self, name: str) -> int | None:
        values = self._first(name)
        total = sum(values) if values else -1.0
        return int(total) if 0 <= total <= _MOST else None

    def _share(self, part: list[float], whole: list[float]) -> float | None:
        total = sum(whole)
        share = sum(part) / total if part and total > 0 else -1.0
        return share if 0 <= share <= 1 else None


def _samples(text: str) -> Iterator[Sample]:
    for line in text.splitlines():
        found = _LINE.match(line)
        if found is None:
            continue
        name, labels, written = found.groups()
        try:
            value = float(written)
        except ValueError:
            continue
        if math.isfinite(value):
            yield Sample(name, dict(_LABEL.findall(labels or "")), value)


def _tokens_of(labels: Mapping[str, str]) -> int | None:
    """The context memory of one engine of vLLM; None if it keeps nothing, or does not say."""
    if labels.get("enable_prefix_caching") == "False":
        return None
    told = _number(labels.get("kv_cache_size_tokens"))
    blocks, size = _number(labels.get("num_gpu_blocks")), _number(labels.get("block_size"))
    return told or (_whole(blocks * size) if blocks and size else None)


def _sum_known(values: Iterable[int | None]) -> int | None:
    total = 0
    for value in values:
        if value is None:
            return None
        total += value
    return _whole(total)


def _number(text: str | None) -> int | None:
    known = text is not None and len(text) < 16 and text.isascii() and text.isdigit()
    return _whole(int(text)) if known and text else None


def _whole(value: float) -> int | None:
    return int(value) if 0 < value < _MOST else None
