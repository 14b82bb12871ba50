# pyright: reportMissingImports=false
# gguf and numpy live in the interop cache's own environment, not in the project's.
"""A language model of half a megabyte that a real inference server loads and streams.

It is an ordinary llama-architecture network with random weights, with one thing wired by hand: each word belongs to a
slot of a story, and a word of one slot is followed by a word of the next. Which word, that is left to chance. So a
reply reads like prose, always has the same number of words, and then ends by itself, although nothing was trained.

Run by `python -m tests.interop` as `python -m tests.interop.tiny_model model.gguf`.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from tests.interop.tiny_story import CHAT_TEMPLATE, CONTROL_TOKENS, END_OF_TURN, Vocabulary

SEED = 20
CONTEXT_LENGTH = 131_072
EMBEDDING = 64
HEADS = 4
LAYERS = 2
FEED_FORWARD = 128


def tensors(vocabulary: Vocabulary) -> Iterator[tuple[str, Any]]:
    """The weights. The first components of every vector carry the state; the layers colour only the others."""
    # RandomState is the generator whose stream numpy promises never to change.
    random = np.random.RandomState(SEED)

    def noise(*shape: int, scale: float) -> Any:
        return (random.standard_normal(shape) * scale).astype(np.float32)

    count, states = len(vocabulary.tokens), vocabulary.states
    ones = np.ones(EMBEDDING, dtype=np.float32)

    reading = noise(count, EMBEDDING, scale=0.5)
    reading[:, :states] = np.eye(states, dtype=np.float32)[vocabulary.follows] * 4
    yield "token_embd.weight", reading

    for layer in range(LAYERS):
        block = f"blk.{layer}"
        yield f"{block}.attn_norm.weight", ones
        for name in ("attn_q", "attn_k", "attn_v"):
            yield f"{block}.{name}.weight", noise(EMBEDDING, EMBEDDING, scale=0.15)
        yield f"{block}.attn_output.weight", without_state(noise(EMBEDDING, EMBEDDING, scale=0.15), states)
        yield f"{block}.ffn_norm.weight", ones
        yield f"{block}.ffn_gate.weight", noise(FEED_FORWARD, EMBEDDING, scale=0.15)
        yield f"{block}.ffn_up.weight", noise(FEED_FORWARD, EMBEDDING, scale=0.15)
        yield f"{block}.ffn_down.weight", without_state(noise(EMBEDDING, FEED_FORWARD, scale=0.1), states)

    yield "output_norm.weight", ones
    writing = noise(count, EMBEDDING, scale=0.12)
    writing[:, :states] = 0
    for token, state in enumerate(vocabulary.needs):
        if state is not None:
            writing[token, state] = 4
    yield "output.weight", writing


def without_state(weights: Any, states: int) -> Any:
    weights[:states] = 0
    return weights


def write_model(path: Path) -> None:
    vocabulary = Vocabulary()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("colloquy tiny")
    writer.add_context_length(CONTEXT_LENGTH)
    writer.add_embedding_length(EMBEDDING)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(EMBEDDING // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(vocabulary.tokens))
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("gpt2")
    # This pre-tokenizer takes a whole word where the vocabulary has it, so the merges may stay empty.
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types([kind_of(token) for token in vocabulary.tokens])
    # An empty list cannot be written, so one merge that never applies.
    writer.add_token_merges([f"{vocabulary.tokens[0]} {vocabulary.tokens[0]}"])
    writer.add_bos_token_id(vocabulary.id_of("<|endoftext|>"))
    writer.add_eos_token_id(vocabulary.id_of(END_OF_TURN))
    writer.add_pad_token_id(vocabulary.id_of("<|endoftext|>"))
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)
    for name, weights in tensors(vocabulary):
        writer.add_tensor(name, weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def kind_of(token: str) -> gguf.TokenType:
    return gguf.TokenType.CONTROL if token in CONTROL_TOKENS else gguf.TokenType.NORMAL


if __name__ == "__main__":
    write_model(Path(sys.argv[1]))
