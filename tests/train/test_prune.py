"""Which layers and units are kept, and that the cut model computes what is left of the whole."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.train.checkpoints import save_tiny
from train.encoders import embed_all, load_encoder, save_encoder
from train.errors import TrainError
from train.prune import Importance, choose_layers, keep_layers, keep_units, layers_of, measure_importance
from train.recipe import Side

SIDE = Side(max_tokens=16)
QUERIES = ["cordless drill 18v", "sofa", "led light bulbs 60 watt dimmable", "1/2 inch pipe"]
FAMILIES = ["bert", "mpnet", "qwen3"]


def importance(norm_ratio: list[float], influence: list[float] | None = None) -> Importance:
    return Importance(np.array(norm_ratio), np.array(influence or norm_ratio), [])


@pytest.mark.parametrize(
    ("count", "kept"),
    [(1, [11]), (2, [0, 11]), (3, [0, 1, 11]), (4, [0, 1, 10, 11]), (12, list(range(12)))],
)
def test_keep_ends_keeps_the_first_and_the_last(count: int, kept: list[int]):
    assert choose_layers("keep_ends", count, importance([1.0] * 12)) == kept


def test_the_other_rules_keep_what_scores_highest_in_its_order():
    scores = importance([1.0, 3.0, 2.0, 0.5], [0.4, 0.1, 0.2, 0.3])
    assert choose_layers("norm_ratio", 2, scores) == [1, 2]
    assert choose_layers("block_influence", 2, scores) == [0, 3]
    with pytest.raises(TrainError, match="the start has 4 layers"):
        choose_layers("norm_ratio", 5, scores)


@pytest.mark.parametrize("family", FAMILIES)
def test_importance_is_what_the_hidden_states_say(tmp_path: Path, family: str):
    """Against the hidden states that transformers itself gives, one text at a time, so without padding."""
    encoder = load_encoder(str(save_tiny(tmp_path / "tiny", family, layers=3)))
    found = measure_importance(encoder, [QUERIES[:2], QUERIES[2:]], SIDE)
    ratios, influences = [], []
    transformer = encoder[0].auto_model.eval()
    captured: list[torch.Tensor] = []
    layers_of(encoder)[-1].register_forward_hook(
        lambda _, __, output: captured.append(output[0] if isinstance(output, tuple) else output)
    )
    for query in QUERIES:
        features = encoder.tokenizer([query], return_tensors="pt")
        with torch.inference_mode():
            hidden = transformer(**features, output_hidden_states=True).hidden_states
        states = [*hidden[:3], captured.pop()]  # the last of Qwen3's hidden states is normalised beyond the layer
        states = [state[0].reshape(-1, state.shape[-1]) for state in states]
        pairs = list(itertools.pairwise(states))
        ratios.append(torch.stack([after.norm(dim=1) / before.norm(dim=1) for before, after in pairs]))
        influences.append(torch.stack([1 - torch.cosine_similarity(*pair, dim=1) for pair in pairs]))
    np.testing.assert_allclose(found.norm_ratio, torch.cat(ratios, dim=1).mean(dim=1), rtol=2e-2)
    np.testing.assert_allclose(found.block_influence, torch.cat(influences, dim=1).mean(dim=1), atol=2e-2)


@pytest.mark.parametrize("family", FAMILIES)
def test_units_that_pass_nothing_on_can_go_without_a_trace(tmp_path: Path, family: str):
    encoder = load_encoder(str(save_tiny(tmp_path / "tiny", family)))
    gone = torch.arange(0, 64, 3)
    with torch.no_grad():
        for layer in layers_of(encoder):
            wide = layer.mlp.up_proj if family == "qwen3" else layer.intermediate.dense
            wide.weight[gone] = 0
            if wide.bias is not None:
                wide.bias[gone] = 0
    before = embed_all(encoder, QUERIES, SIDE, "Test")
    found = measure_importance(encoder, [QUERIES], SIDE)
    keep_units(encoder, 64 - len(gone), found, [0, 1])
    np.testing.assert_allclose(embed_all(encoder, QUERIES, SIDE, "Test"), before, atol=2e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cut_model_is_saved_and_loaded_as_it_is(tmp_path: Path, family: str):
    encoder = load_encoder(str(save_tiny(tmp_path / "tiny", family, layers=4)))
    found = measure_importance(encoder, [QUERIES], SIDE)
    whole = [parameter.clone() for parameter in layers_of(encoder)[3].parameters()]
    keep_layers(encoder, [0, 3])
    for parameter, wanted in zip(layers_of(encoder)[1].parameters(), whole, strict=True):
        assert torch.equal(parameter, wanted)
    keep_units(encoder, 24, found, [0, 3])
    save_encoder(encoder, tmp_path / "cut")
    again = load_encoder(str(tmp_path / "cut"))
    assert len(layers_of(again)) == 2
    assert again[0].auto_model.config.intermediate_size == 24
    np.testing.assert_array_equal(embed_all(again, QUERIES, SIDE, "Test"), embed_all(encoder, QUERIES, SIDE, "Test"))
