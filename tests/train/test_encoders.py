"""Checkpoints in training: heads, prompts, low-rank updates, and what is saved for the export."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize

from tests.train.checkpoints import HIDDEN, save_tiny
from train.encoders import cut_to, embed, embed_all, fit_head, load_encoder, put_head, save_encoder
from train.errors import TrainError
from train.lora import LowRank, add_low_rank, merge_low_rank
from train.recipe import Side

SIDE = Side(max_tokens=16)
QUERIES = ["cordless drill 18v", "sofa", "led light bulbs 60 watt dimmable", "1/2 inch pipe"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("checkpoints") / "tiny")


def test_a_saved_encoder_is_what_sentence_transformers_makes_of_it(tiny: Path, tmp_path: Path):
    encoder = load_encoder(str(tiny))
    put_head(encoder, fit_head(np.eye(HIDDEN, dtype=np.float32), np.eye(HIDDEN, 8, dtype=np.float32)))
    save_encoder(encoder, tmp_path / "saved")
    original = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    assert isinstance(original[-1], Normalize)
    ours = embed_all(encoder, QUERIES, SIDE, "Test")
    assert ours.shape == (4, 8)
    np.testing.assert_allclose(ours, original.encode(QUERIES), atol=0.02)  # bf16 where the CPU has tiles for it


def test_prompts_and_compatibility_forms_are_read_as_the_service_reads_them(tiny: Path):
    encoder = load_encoder(str(tiny)).eval()
    with torch.inference_mode():
        prompted = embed(encoder, ["ﬁle １８v"], Side(prompt="query: ", max_tokens=16))
        plain = embed(encoder, ["query: file 18v"], SIDE)
    assert torch.equal(prompted, plain)


def test_ridge_finds_the_linear_map_that_made_the_targets():
    chance = np.random.default_rng(1)
    inputs = chance.standard_normal((500, 12)).astype(np.float32)
    weights = chance.standard_normal((12, 5)).astype(np.float32)
    head = fit_head(inputs, inputs @ weights, ridge=1e-9)
    np.testing.assert_allclose(head.linear.weight.detach().numpy(), weights.T, atol=1e-4)


def test_a_cut_keeps_the_first_numbers_normalised(tiny: Path):
    encoder = load_encoder(str(tiny))
    whole = embed_all(encoder, QUERIES, SIDE, "Test")
    cut_to(encoder, 8)
    expected = whole[:, :8] / np.linalg.norm(whole[:, :8], axis=1, keepdims=True)
    np.testing.assert_allclose(embed_all(encoder, QUERIES, SIDE, "Test"), expected, atol=1e-5)
    with pytest.raises(TrainError, match="embeddings of 8 numbers"):
        cut_to(encoder, 16)


@pytest.mark.parametrize("family", ["bert", "qwen3"])
def test_low_rank_updates_change_nothing_at_first_and_are_merged_without_a_trace(tmp_path: Path, family: str):
    encoder = load_encoder(str(save_tiny(tmp_path / "tiny", family))).eval()
    before = embed(encoder, QUERIES, SIDE)
    add_low_rank(encoder[0], 4)
    torch.testing.assert_close(embed(encoder, QUERIES, SIDE), before)
    trained = [name for name, parameter in encoder.named_parameters() if parameter.requires_grad]
    assert trained
    assert all(".up." in name or ".down." in name for name in trained)
    for module in encoder.modules():
        if isinstance(module, LowRank):
            torch.nn.init.normal_(module.up.weight, std=0.05)
    changed = embed(encoder, QUERIES, SIDE)
    merge_low_rank(encoder[0])
    assert not any(isinstance(module, LowRank) for module in encoder.modules())
    torch.testing.assert_close(embed(encoder, QUERIES, SIDE), changed, atol=0.02, rtol=0)
    assert (changed - before).abs().max() > 0.03


def test_a_checkpoint_that_is_none_is_refused(tmp_path: Path):
    with pytest.raises(Exception, match="not a checkpoint"):
        load_encoder(str(tmp_path))
