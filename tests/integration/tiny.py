"""A Llama that is small enough to be made, calibrated and compressed in a test, with a tokenizer and data for it."""

from __future__ import annotations

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

# More threads than these models need would only wait for one another.
torch.set_num_threads(1)

VOCABULARY = 256
LAYERS = 3
SAMPLES = 8
LENGTH = 16


def llama(folder, *, layers=LAYERS):
    """A random model, and its configuration in a folder, where `oneshot` looks for it. The same one at every call."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config).eval()
    model.save_pretrained(folder)
    model.config.name_or_path = str(folder)
    return model


def tokenizer():
    """A tokenizer with a word for each token."""
    words = {"<unk>": 0, "<pad>": 1, "<s>": 2, "</s>": 3}
    words.update({f"w{number}": number for number in range(4, VOCABULARY)})
    made = Tokenizer(models.WordLevel(words, unk_token="<unk>"))  # noqa: S106 # a word, not a password
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"unk_token": "<unk>", "pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=made, **special)


def dataset(samples=SAMPLES):
    """Rows of token ids."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(4, VOCABULARY, (samples, LENGTH), generator=generator).tolist()
    return Dataset.from_dict({"input_ids": ids, "attention_mask": [[1] * LENGTH] * samples})
