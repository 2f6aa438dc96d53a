"""The numpy network: equal to torch, the same in a batch as alone, ragged rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from longthought.errors import ConfigurationError, InvalidInput, MissingExtra
from longthought.orchestrator.models.embedded import MODELS, EmbeddedModel, Network
from longthought.orchestrator.models.embedded.sampling import Draw, draw_tokens, random_stream
from longthought.orchestrator.models.embedded.training import network as torch_network

REFERENCES = Path(__file__).parent


@pytest.fixture(scope="module")
def large() -> Network:
    return MODELS["embedded/puzzle-large"][0].load()


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("embedded/puzzle-large", "reference-large.npz"),
        ("embedded/puzzle-small", "reference-small.npz"),
        ("embedded/words", "reference-words.npz"),
        ("embedded/letters", "reference-letters.npz"),
    ],
)
def test_logits_equal_those_of_torch(name: str, reference: str) -> None:
    network = MODELS[name][0].load()
    with np.load(REFERENCES / reference, allow_pickle=False) as saved:
        tokens, expected = saved["tokens"].astype(np.int64), saved["logits"]
    cache = network.new_cache(len(tokens))
    first = network.forward(tokens[:, :20], cache, every=True)
    steps = [network.forward(tokens[:, i : i + 1], cache, every=True) for i in range(20, 48)]
    got = np.concatenate([first, *steps], axis=1)
    assert np.abs(got - expected).max() < 1e-3
    assert (got.argmax(-1) == expected.argmax(-1)).all()


def test_every_weights_file_is_small() -> None:
    files = {weights.path for model in MODELS.values() for weights in model}
    assert len(files) == 4
    assert all(path.stat().st_size < 1_500_000 for path in files)


def test_a_batch_of_ragged_rows_equals_each_row_alone(large: Network) -> None:
    tokens = np.random.default_rng(1).integers(0, large.shape.vocabulary, (3, 30))
    lengths = [5, 17, 29]
    batch = large.new_cache(3)
    alone = []
    for row, length in enumerate(lengths):
        cache = large.new_cache(1)
        large.forward(tokens[row : row + 1, :length], cache)
        batch.keys[:, row], batch.values[:, row] = cache.keys[:, 0], cache.values[:, 0]
        batch.lengths[row] = length
        alone.append(large.forward(tokens[row : row + 1, length : length + 1], cache)[0])
    last = np.array([[tokens[row, length]] for row, length in enumerate(lengths)])
    assert np.abs(large.forward(last, batch) - np.array(alone)).max() < 1e-3
    assert batch.lengths.tolist() == [6, 18, 30]


def test_greedy_and_top_p_and_log_probabilities() -> None:
    logits = np.log(np.array([[0.1, 0.6, 0.3], [0.1, 0.6, 0.3], [0.2, 0.2, 0.6]], np.float32))
    draws = [Draw(0.0), Draw(1.0, 0.5, random_stream(1, 1)), Draw(0.01, 1.0, random_stream(2, 1))]
    tokens, logprobs = draw_tokens(logits, draws)
    assert tokens.tolist() == [1, 1, 2]
    assert np.exp(logprobs) == pytest.approx([0.6, 0.6, 0.6], abs=1e-6)


def test_draws_follow_the_distribution() -> None:
    share = np.array([0.1, 0.6, 0.3])
    logits = np.repeat(np.log(share)[None].astype(np.float32), 4000, axis=0)
    tokens, _ = draw_tokens(logits, [Draw(stream=random_stream(i, 0)) for i in range(4000)])
    assert np.bincount(tokens, minlength=3) / 4000 == pytest.approx(share, abs=0.03)
    half, _ = draw_tokens(logits, [Draw(0.5, 1.0, random_stream(i, 0)) for i in range(4000)])
    squared = share**2 / (share**2).sum()
    assert np.bincount(half, minlength=3) / 4000 == pytest.approx(squared, abs=0.03)
    cut, _ = draw_tokens(logits, [Draw(1.0, 0.8, random_stream(i, 0)) for i in range(4000)])
    assert np.bincount(cut, minlength=3) / 4000 == pytest.approx([0, 2 / 3, 1 / 3], abs=0.03)


def test_what_is_no_weights_file_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        Network.load(b"something else")
    whole = MODELS["embedded/puzzle-small"][0].path.read_bytes()
    for cut in (0, 100, len(whole) // 2):
        with pytest.raises(ConfigurationError):
            Network.load(whole[:cut])
    with pytest.raises(InvalidInput, match="puzzle-small"):
        EmbeddedModel("embedded/unknown")


def test_training_without_torch_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(torch_network.importlib, "import_module", absent)
    with pytest.raises(MissingExtra, match=r"longthought\[train\]"):
        torch_network.torch_module()
