"""A Llama of a few hundred thousand random weights that writes words, made on the spot.

One byte is one token, so that every count of tokens can be checked by hand. The weights are random
apart from one direction of the hidden state, which is constant and carries how frequent each token
is: the text is letters and spaces, ends by itself now and then, and depends on all that stands
before it. The same weights are written as GGUF and as a folder of Hugging Face.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CONTEXT",
    "END",
    "SHAPE",
    "TEMPLATE",
    "TOKENS",
    "Shape",
    "Weights",
    "is_special",
    "weights",
]

Weights = dict[str, NDArray[np.float32]]

CONTEXT = 8192
"""Positions that the model claims to know, in tokens."""

END = "<|im_end|>"


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the network."""

    hidden: int = 128
    heads: int = 4
    kv_heads: int = 2
    inner: int = 256
    layers: int = 2

    @property
    def head(self) -> int:
        """Dimensions of one head; vLLM knows none under 32."""
        return self.hidden // self.heads


SHAPE = Shape()

_SPECIAL = ("<|pad|>", "<|im_start|>", END, "<|bos|>")
_MARKS = ("<tool_call>", "</tool_call>", "<think>", "</think>")

# How often a token is drawn, beside the others, where nothing else speaks for it.
_FREQUENT = {
    **dict(zip("etaoinshrdlucm", range(14, 0, -1), strict=True)),
    " ": 18,
    ".": 2,
    '"': 2,
    "1": 1,
    "4": 1,
    "7": 1,
}
_END_SHARE = 2.0
_RARE, _NEVER = 0.02, 1e-9
_CONSTANT = 8.0  # the direction of the hidden state that never changes
_SPREAD = 0.17

TEMPLATE = """\
{%- if tools %}{{- '<|im_start|>system\\n# Tools\\n<tools>\\n' }}
{%- for tool in tools %}{{- tool | tojson }}{{- '\\n' }}{%- endfor %}
{{- '</tools>\\n<tool_call>{"name": NAME, "arguments": OBJECT}</tool_call><|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.reasoning_content %}
{{- '<think>\\n' + message.reasoning_content + '\\n</think>\\n' }}
{%- endif %}
{%- if message.content %}{{- message.content }}{%- endif %}
{%- if message.tool_calls %}{%- for call in message.tool_calls %}
{{- '<tool_call>{"name": "' + call.function.name + '", "arguments": ' }}
{%- if call.function.arguments is string %}{{- call.function.arguments }}
{%- else %}{{- call.function.arguments | tojson }}{%- endif %}
{{- '}</tool_call>' }}
{%- endfor %}{%- endif %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking %}{{- '<think>\\n' }}{%- endif %}
{%- endif %}"""
"""Conversations in ChatML, tools as Hermes has them, thoughts only where they are asked for."""


def _byte_characters() -> list[str]:
    """The character that byte-level tokenizers write for each byte, as GPT-2 laid down."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    other = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(other)) for byte in range(256)]


TOKENS: tuple[str, ...] = (*_byte_characters(), *_SPECIAL, *_MARKS)
"""The vocabulary: 256 bytes as byte-level tokenizers write them, then the marks of the template."""


def is_special(token: str) -> bool:
    """Whether it never shows in a text, unlike the marks around thoughts and tool calls."""
    return token in _SPECIAL


def weights(seed: int = 7, shape: Shape = SHAPE) -> Weights:
    """All tensors under the names that Hugging Face has for them, each as (outputs, inputs)."""
    random = np.random.default_rng(seed)

    def normal(outputs: int, inputs: int, scale: float) -> NDArray[np.float32]:
        drawn: NDArray[np.float32] = random.standard_normal((outputs, inputs), np.float32)
        return drawn * np.float32(scale)

    hidden, size = shape.hidden, len(TOKENS)
    ones = np.ones(hidden, np.float32)
    embedded, output = normal(size, hidden, 1.0), normal(size, hidden, _SPREAD)
    embedded[:, 0] = _CONSTANT
    mean_square = (_CONSTANT**2 + hidden - 1) / hidden
    output[:, 0] = np.log(_shares()) * np.sqrt(mean_square) / _CONSTANT
    made = {
        "model.embed_tokens.weight": embedded,
        "model.norm.weight": ones,
        "lm_head.weight": output,
    }
    narrow = 1 / np.sqrt(hidden)
    for layer in range(shape.layers):
        into = {
            "self_attn.q_proj": normal(hidden, hidden, 2 * narrow),
            "self_attn.k_proj": normal(shape.kv_heads * shape.head, hidden, 2 * narrow),
            "self_attn.v_proj": normal(shape.kv_heads * shape.head, hidden, narrow),
            "self_attn.o_proj": normal(hidden, hidden, narrow),
            "mlp.gate_proj": normal(shape.inner, hidden, narrow),
            "mlp.up_proj": normal(shape.inner, hidden, narrow),
            "mlp.down_proj": normal(hidden, shape.inner, narrow),
        }
        for name in ("self_attn.o_proj", "mlp.down_proj"):
            into[name][0] = 0  # what is constant stays so
        for name, tensor in into.items():
            made[f"model.layers.{layer}.{name}.weight"] = tensor
        made[f"model.layers.{layer}.input_layernorm.weight"] = ones
        made[f"model.layers.{layer}.post_attention_layernorm.weight"] = ones
    return made


def _shares() -> NDArray[np.float64]:
    shares = np.full(len(TOKENS), _NEVER)
    shares[32:127] = _RARE
    for character, share in _FREQUENT.items():
        shares[ord(character)] = share
    shares[TOKENS.index(END)] = _END_SHARE
    return shares
