"""Signing key, checkpoints, Merkle proofs."""

from __future__ import annotations

import asyncio
import copy
import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longthought.errors import ConfigurationError, RunNotFound
from longthought.storage import Store, canonical, checkpoints
from longthought.storage.merkle import inclusion_path, merkle_root, root_from_path
from longthought.storage.signing import KEY_FILE, public_text, sign, signature_holds, signing_key


def plain_root(leaves: list[bytes]) -> bytes:
    """The definition of RFC 6962, section 2.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    halves = plain_root(leaves[:split]) + plain_root(leaves[split:])
    return hashlib.sha256(b"\x01" + halves).digest()


@given(st.lists(st.text(alphabet="ab", max_size=3), max_size=40))
def test_the_root_is_that_of_the_rfc(leaves):
    import base64

    expected = plain_root([leaf.encode() for leaf in leaves])
    assert base64.urlsafe_b64decode(merkle_root(leaves) + "=") == expected


@given(st.lists(st.text(max_size=3), min_size=1, max_size=40), st.data())
def test_every_leaf_can_be_proven_and_no_other(leaves, data):
    index = data.draw(st.integers(0, len(leaves) - 1))
    path, root = inclusion_path(leaves, index), merkle_root(leaves)
    assert root_from_path(leaves[index], index, len(leaves), path) == root
    assert root_from_path(leaves[index] + "x", index, len(leaves), path) != root
    assert len(path) <= len(leaves).bit_length()
    with pytest.raises(ValueError):
        root_from_path(leaves[index], index, len(leaves), [*path, root])
    with pytest.raises(ValueError):
        root_from_path(leaves[index], len(leaves), len(leaves), path)


def test_a_key_is_made_once_and_for_its_owner_alone(tmp_path):
    key = signing_key(tmp_path)
    assert public_text(signing_key(tmp_path)) == public_text(key)
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [KEY_FILE]
    signature = sign(key, "text")
    assert signature_holds(public_text(key), signature, "text")
    assert not signature_holds(public_text(key), signature, "test")
    for bad in ("", "A", signature[:-1], signature + "A", "ä", None):
        assert not signature_holds(public_text(key), bad, "text")
        assert not signature_holds(bad, signature, "text")


def test_of_many_that_make_a_key_at_once_all_use_one(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: public_text(signing_key(tmp_path)), range(24)))
    assert len(keys) == 1
    assert [path.name for path in tmp_path.iterdir()] == [KEY_FILE]


@pytest.mark.skipif(os.name != "posix", reason="file modes")
def test_a_key_that_others_may_read_is_refused(tmp_path):
    signing_key(tmp_path)
    (tmp_path / KEY_FILE).chmod(0o640)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        signing_key(tmp_path)


def test_a_file_that_is_no_key_is_refused(tmp_path):
    (tmp_path / KEY_FILE).write_text("no key")
    (tmp_path / KEY_FILE).chmod(0o600)
    with pytest.raises(ConfigurationError, match="cannot be used"):
        signing_key(tmp_path)
    with pytest.raises(ConfigurationError, match="cannot be used"):
        signing_key(tmp_path / "nowhere")


async def test_a_checkpoint_holds_the_heads_of_all_runs(store, kit):
    empty = await store.checkpoint()
    assert (empty["number"], empty["previous"], empty["runs"]) == (1, "", [])
    journals = [await kit.begin(store, f"run-{number}") for number in (2, 0, 1)]
    checkpoint = await store.checkpoint()
    assert checkpoint["runs"] == sorted([j.run_id, 2, j.head] for j in journals)
    assert checkpoint["number"] == 2
    assert checkpoints.problem_with(checkpoint) is None
    assert checkpoints.problem_with(checkpoint, checkpoint["public_key"]) is None
    assert await kit.rows(store, "SELECT body FROM checkpoints WHERE number = 2") == [
        (canonical(checkpoint),)
    ]
    through_a_file = json.loads(json.dumps(checkpoint, indent=2))
    assert checkpoints.problem_with(through_a_file) is None


async def test_checkpoints_made_at_once_follow_each_other(store, store_url, kit, tmp_path):
    await kit.begin(store)
    async with Store(store_url, directory=tmp_path) as other:
        made = await asyncio.gather(*(s.checkpoint() for s in (store, other) * 4))
    made.sort(key=lambda checkpoint: checkpoint["number"])
    assert [checkpoint["number"] for checkpoint in made] == list(range(1, 9))
    assert len({checkpoint["previous"] for checkpoint in made}) == 8


async def test_every_changed_field_shows(sqlite_store, kit):
    await kit.begin(sqlite_store, "run-1")
    checkpoint = await sqlite_store.checkpoint()
    changes = {
        "format": 2,
        "id": "x",
        "number": 2,
        "created_at": 1.5,
        "previous": "x",
        "runs": [["run-1", 3, checkpoint["runs"][0][2]]],
        "root": "x",
        "public_key": "A" * 43,
        "signature": checkpoint["signature"].swapcase(),
    }
    assert changes.keys() == checkpoint.keys()
    for name, value in changes.items():
        assert checkpoints.problem_with({**checkpoint, name: value}), name
        assert checkpoints.problem_with({**checkpoint, name: None}), name
        assert checkpoints.problem_with({k: v for k, v in checkpoint.items() if k != name}), name
    for runs in (None, [1], [["run-1", True, "x"]], [["a", 1, ""], ["a", 0, ""]]):
        assert checkpoints.problem_with({**checkpoint, "runs": runs})
    for nonsense in (None, [], "x", 1, {}):
        assert checkpoints.problem_with(nonsense)
    assert "another key" in str(checkpoints.problem_with(checkpoint, "B" * 43))


async def test_one_run_can_be_proven_without_showing_the_others(sqlite_store, kit):
    for number in range(7):
        await kit.begin(sqlite_store, f"run-{number}")
    checkpoint = await sqlite_store.checkpoint()
    for number in range(7):
        proof = checkpoints.inclusion_proof(checkpoint, f"run-{number}")
        assert checkpoints.proof_holds(proof, checkpoint["root"])
        other = copy.deepcopy(proof)
        other["run"][1] += 1
        assert not checkpoints.proof_holds(other, checkpoint["root"])
        assert not checkpoints.proof_holds({**proof, "index": 9}, checkpoint["root"])
        assert not checkpoints.proof_holds({}, checkpoint["root"])
    with pytest.raises(RunNotFound):
        checkpoints.inclusion_proof(checkpoint, "run-9")
