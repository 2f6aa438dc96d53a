"""Writes the tiny model as a folder of Hugging Face: settings, tokenizer and safetensors."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from tests.engines.tiny_model import (
    CONTEXT,
    END,
    SHAPE,
    TEMPLATE,
    TOKENS,
    Shape,
    is_special,
    weights,
)

__all__ = ["write_hugging_face"]


def write_hugging_face(directory: Path, *, shape: Shape = SHAPE) -> None:
    """Write all that a server needs to load the model without any download."""
    directory.mkdir(parents=True, exist_ok=True)
    ends = {
        "bos_token_id": TOKENS.index("<|bos|>"),
        "eos_token_id": TOKENS.index(END),
        "pad_token_id": TOKENS.index("<|pad|>"),
    }
    settings = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.inner,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head,
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "vocab_size": len(TOKENS),
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "attention_bias": False,
        "mlp_bias": False,
        **ends,
    }
    tokenizer = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|bos|>",
        "eos_token": END,
        "pad_token": "<|pad|>",
        "model_max_length": CONTEXT,
        "chat_template": TEMPLATE,
        "clean_up_tokenization_spaces": False,
    }
    written = {
        "config.json": settings,
        "generation_config.json": ends,
        "tokenizer_config.json": tokenizer,
        "tokenizer.json": _tokenizer(),
    }
    for name, content in written.items():
        (directory / name).write_text(json.dumps(content), encoding="utf-8")
    _write_tensors(directory / "model.safetensors", shape)


def _tokenizer() -> dict[str, object]:
    byte_level = {"add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    added = [
        {
            "id": index,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": is_special(token),
        }
        for index, token in enumerate(TOKENS)
        if index >= 256
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", **byte_level},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", **byte_level},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: index for index, token in enumerate(TOKENS[:256])},
            "merges": [],
        },
    }


def _write_tensors(path: Path, shape: Shape) -> None:
    head: dict[str, object] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, tensor in weights(shape=shape).items():
        raw = tensor.astype("<f4").tobytes()
        place = [len(data), len(data) + len(raw)]
        head[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": place}
        data += raw
    said = json.dumps(head).encode()
    said = said.ljust(-(-len(said) // 8) * 8)
    path.write_bytes(struct.pack("<Q", len(said)) + said + data)
