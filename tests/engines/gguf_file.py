"""Writes the tiny model as a GGUF file, the format of llama.cpp."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

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

__all__ = ["write_gguf"]

_MAGIC, _VERSION, _ALIGNMENT, _F32 = b"GGUF", 3, 32, 0
_TOKEN_KINDS = {"byte": 1, "special": 3, "mark": 4}  # normal, control, user defined

_TENSORS = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_IN_LAYER = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}

Value = int | float | bool | str | Sequence[str] | Sequence[int]


def write_gguf(path: Path, *, name: str = "tiny", shape: Shape = SHAPE) -> None:
    """Write the model with its vocabulary and its template.

    Heads are not put in llama.cpp's order: with random weights any order is as good.
    """
    fields = _fields(name, shape)
    tensors = {_tensor_name(key): value for key, value in weights(shape=shape).items()}
    head = _MAGIC + struct.pack("<IQQ", _VERSION, len(tensors), len(fields))
    for key, value in fields.items():
        head += _text(key) + _typed(value)
    offset, places = 0, []
    for key, tensor in tensors.items():
        sizes = tensor.shape[::-1]
        head += _text(key) + struct.pack(f"<I{len(sizes)}Q", len(sizes), *sizes)
        head += struct.pack("<IQ", _F32, offset)
        places.append(offset)
        offset += _padded(tensor.nbytes)
    with path.open("wb") as file:
        file.write(head.ljust(_padded(len(head)), b"\0"))
        for tensor in tensors.values():
            data = np.ascontiguousarray(tensor, "<f4").tobytes()
            file.write(data.ljust(_padded(len(data)), b"\0"))


def _fields(name: str, shape: Shape) -> dict[str, Value]:
    kinds = [
        "byte" if index < 256 else "special" if is_special(token) else "mark"
        for index, token in enumerate(TOKENS)
    ]
    return {
        "general.architecture": "llama",
        "general.name": name,
        "general.file_type": 0,
        "llama.context_length": CONTEXT,
        "llama.embedding_length": shape.hidden,
        "llama.block_count": shape.layers,
        "llama.feed_forward_length": shape.inner,
        "llama.attention.head_count": shape.heads,
        "llama.attention.head_count_kv": shape.kv_heads,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": shape.head,
        "llama.rope.freq_base": 10000.0,
        "llama.vocab_size": len(TOKENS),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.token_type": [_TOKEN_KINDS[kind] for kind in kinds],
        "tokenizer.ggml.merges": [],
        "tokenizer.ggml.bos_token_id": TOKENS.index("<|bos|>"),
        "tokenizer.ggml.eos_token_id": TOKENS.index(END),
        "tokenizer.ggml.padding_token_id": TOKENS.index("<|pad|>"),
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": TEMPLATE,
    }


def _tensor_name(key: str) -> str:
    if key in _TENSORS:
        return _TENSORS[key]
    _, _, layer, rest = key.split(".", 3)
    return f"blk.{layer}.{_IN_LAYER[rest.removesuffix('.weight')]}.weight"


def _typed(value: Value) -> bytes:
    match value:
        case bool():
            return struct.pack("<I?", 7, value)
        case int():
            return struct.pack("<II", 4, value)
        case float():
            return struct.pack("<If", 6, value)
        case str():
            return struct.pack("<I", 8) + _text(value)
    texts = [_text(item) for item in value if isinstance(item, str)]
    if texts or not value:
        return struct.pack("<IIQ", 9, 8, len(texts)) + b"".join(texts)
    return struct.pack(f"<IIQ{len(value)}i", 9, 5, len(value), *value)


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def _padded(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
