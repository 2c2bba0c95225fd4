"""Whole exports of small checkpoints, judged by what the serving side makes of the artifact."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from onnxruntime.transformers.onnx_model import OnnxModel
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize
from transformers import AutoModel, AutoTokenizer

from artifacts.manifest import EncoderManifest, Precision
from artifacts.space import EmbeddingSpace
from artifacts.store import ArtifactError, load_manifest
from export.onnx_graph import load_checkpoint
from export.optimize import halve
from export.options import ExportOptions
from export.parity import measure
from export.publish import export_encoder
from export.source import ExportError, resolve
from export.texts import read_texts
from service.encoder import Encoder
from tests.export.checkpoints import FAMILIES, HIDDEN, save_sentence_transformer, save_transformer
from tests.train.checkpoints import save_tiny

QUERIES = ["cordless drill 18v", "sofa", "led light bulbs 60 watt dimmable", "1/2 inch pipe"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_transformer(tmp_path_factory.mktemp("checkpoints") / "tiny")


@pytest.fixture
def artifact(tiny: Path, tmp_path: Path, options: ExportOptions) -> Path:
    export_encoder(resolve(str(tiny)), options, tmp_path / "artifact")
    return tmp_path / "artifact"


def encode(artifact: Path, queries: list[str]) -> np.ndarray:
    encoder, _ = Encoder.load(artifact)
    return encoder.encode([encoder.tokenize(query) for query in queries])


def original(checkpoint: Path) -> SentenceTransformer:
    model = SentenceTransformer(str(checkpoint), device="cpu")
    model.append(Normalize())
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_embeds_as_its_original_does(family: str, tmp_path: Path, options: ExportOptions):
    checkpoint = save_transformer(tmp_path / family, family)
    manifest = export_encoder(resolve(str(checkpoint)), options, tmp_path / "artifact")
    embeddings = encode(tmp_path / "artifact", QUERIES)
    np.testing.assert_allclose(embeddings, original(checkpoint).encode(QUERIES), atol=1e-5)
    assert manifest.space.pooling == "mean"
    assert manifest.parity.overlap_at_100 > 0.999


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_stays_close_in_smaller_precisions(
    family: str, precision: Precision, tmp_path: Path, options: ExportOptions
):
    checkpoint = save_transformer(tmp_path / family, family)
    export_encoder(resolve(str(checkpoint)), replace(options, precision=precision), tmp_path / "artifact")
    cosines = (encode(tmp_path / "artifact", QUERIES) * original(checkpoint).encode(QUERIES)).sum(axis=1)
    assert cosines.min() > 0.99


@pytest.mark.parametrize(("precision", "bytes_a_weight"), [("fp32", 4), ("fp16", 2), ("int8", 1)])
def test_every_precision_has_the_same_interface_and_its_own_size(
    precision: Precision, bytes_a_weight: int, tiny: Path, tmp_path: Path, options: ExportOptions
):
    manifest = export_encoder(resolve(str(tiny)), replace(options, precision=precision), tmp_path / "artifact")
    embeddings = encode(tmp_path / "artifact", QUERIES)
    assert (embeddings.dtype, embeddings.shape) == (np.float32, (len(QUERIES), HIDDEN))
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-3)
    graph = onnx.load(tmp_path / "artifact" / "model.onnx").graph
    assert {entry.name: entry.type.tensor_type.elem_type for entry in graph.input} == {
        "input_ids": onnx.TensorProto.INT64,
        "attention_mask": onnx.TensorProto.INT64,
    }
    assert [entry.name for entry in graph.output] == ["embedding"]
    assert manifest.precision == precision
    weight_count = sum(parameter.numel() for parameter in SentenceTransformer(str(tiny), device="cpu").parameters())
    assert manifest.files["model.onnx"].bytes == pytest.approx(bytes_a_weight * weight_count, rel=0.15)


def node_kinds(artifact: Path) -> list[str]:
    return [node.op_type for node in onnx.load(artifact / "model.onnx").graph.node]


@pytest.mark.parametrize("family", FAMILIES)
def test_for_a_gpu_layer_norms_are_fused_and_attention_where_the_family_is_known(
    family: str, tmp_path: Path, options: ExportOptions
):
    checkpoint = save_transformer(tmp_path / family, family)
    export_encoder(resolve(str(checkpoint)), replace(options, precision="fp16"), tmp_path / "artifact")
    kinds = [node.op_type for node in onnx.load(tmp_path / "artifact" / "model.onnx").graph.node]
    known = family in {"bert", "roberta"}
    assert (kinds.count("Attention"), kinds.count("Softmax")) == ((2, 0) if known else (0, 2))  # one a layer
    assert kinds.count("SkipLayerNormalization") >= 4
    assert kinds.count("BiasGelu") == 2


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_for_tensorrt_no_node_is_onnxruntimes_own(
    precision: Precision, tiny: Path, tmp_path: Path, options: ExportOptions
):
    wanted = replace(options, precision=precision, for_tensorrt=True)
    export_encoder(resolve(str(tiny)), wanted, tmp_path / "artifact")
    graph = onnx.load(tmp_path / "artifact" / "model.onnx").graph
    assert {node.domain for node in graph.node} <= {"", "ai.onnx"}
    cosines = (encode(tmp_path / "artifact", QUERIES) * original(tiny).encode(QUERIES)).sum(axis=1)
    assert cosines.min() > 0.999
    made_by = {name: node.op_type for node in graph.node for name in node.output}
    norms = [made_by[node.input[0]] for node in graph.node if node.op_type == "LayerNormalization"]
    assert norms == ["Cast" if precision == "fp16" else "Add"] * 5  # they stay in fp32


@pytest.mark.parametrize("for_tensorrt", [False, True])
def test_squares_of_large_hidden_states_do_not_overflow_in_fp16(
    for_tensorrt: bool, tmp_path: Path, options: ExportOptions
):
    """Those of large decoders reach thousands. onnxruntime, which has no fp16 on a CPU, would hide it."""
    checkpoint = save_tiny(tmp_path / "qwen3", "qwen3")
    model = AutoModel.from_pretrained(checkpoint)
    with torch.no_grad():
        model.embed_tokens.weight.mul_(3000)
    model.save_pretrained(checkpoint)
    wanted = replace(options, precision="fp16", for_tensorrt=for_tensorrt)
    export_encoder(resolve(str(checkpoint)), wanted, tmp_path / "artifact")
    graph = ReferenceEvaluator(str(tmp_path / "artifact" / "model.onnx"))
    tokens = AutoTokenizer.from_pretrained(checkpoint)(QUERIES[0], return_tensors="np")
    [[embedding]] = graph.run(None, {name: tokens[name].astype(np.int64) for name in ("input_ids", "attention_mask")})
    assert embedding @ original(checkpoint).encode(QUERIES[0]) > 0.999


def test_a_power_whose_mean_nobody_takes_is_fp16_as_all_else():
    x, cube = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in ("x", "cube"))
    three = helper.make_tensor("three", TensorProto.FLOAT, [], [3.0])
    nodes = [
        helper.make_node("Pow", ["x", "three"], ["powered"], "pow"),
        helper.make_node("Neg", ["powered"], ["cube"]),
    ]
    graph = OnnxModel(helper.make_model(helper.make_graph(nodes, "g", [x], [cube], [three])))
    halve(graph)
    [power] = graph.get_nodes_by_op_type("Pow")
    assert graph.get_initializer(power.input[1]).data_type == TensorProto.FLOAT16


def test_pooling_and_dense_head_are_part_of_the_graph(tmp_path: Path, options: ExportOptions):
    checkpoint = save_sentence_transformer(tmp_path, pooling="cls", dense=16)
    manifest = export_encoder(resolve(str(checkpoint)), options, tmp_path / "artifact")
    assert (manifest.space.dim, manifest.space.pooling, manifest.space.normalized) == (16, "cls", True)
    expected = SentenceTransformer(str(checkpoint), device="cpu").encode(QUERIES)
    np.testing.assert_allclose(encode(tmp_path / "artifact", QUERIES), expected, atol=1e-5)


def test_prompts_of_the_checkpoint_become_part_of_the_space(tmp_path: Path, options: ExportOptions):
    checkpoint = save_sentence_transformer(tmp_path, prompts={"query": "query: ", "passage": "ad: "})
    manifest = export_encoder(resolve(str(checkpoint)), options, tmp_path / "artifact")
    assert (manifest.space.query_prompt, manifest.space.ad_prompt) == ("query: ", "ad: ")
    expected = original(checkpoint).encode_query(QUERIES)
    np.testing.assert_allclose(encode(tmp_path / "artifact", QUERIES), expected, atol=1e-5)


def test_lengths_that_the_checkpoint_says_it_can_be_cut_to_become_part_of_the_space(
    tiny: Path, tmp_path: Path, options: ExportOptions
):
    checkpoint = shutil.copytree(tiny, tmp_path / "nested")
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"matryoshka_dimensions": [HIDDEN, 16, 8]}))
    manifest = export_encoder(resolve(str(checkpoint)), options, tmp_path / "artifact")
    assert manifest.space.matryoshka_dims == (8, 16)


def test_a_student_keeps_the_space_of_its_teacher(tiny: Path, tmp_path: Path, options: ExportOptions):
    space = EmbeddingSpace(teacher="big", revision="sha256:0", dim=HIDDEN, pooling="mean", normalized=True)
    student = shutil.copytree(tiny, tmp_path / "student")
    (student / "embedding_space.json").write_text(space.model_dump_json())
    manifest = export_encoder(resolve(str(student)), options, tmp_path / "artifact")
    assert manifest.space.space_id == space.space_id


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param({"dim": 999}, f"says 999 dimensions, but the checkpoint makes embeddings of {HIDDEN}", id="dim"),
        pytest.param({"teacher": None}, "not a valid embedding space: teacher", id="field"),
    ],
)
def test_a_space_that_does_not_fit_is_refused(
    tiny: Path, tmp_path: Path, options: ExportOptions, content: dict, message: str
):
    fields = {"teacher": "big", "revision": "sha256:0", "dim": HIDDEN, "pooling": "mean", "normalized": True}
    student = shutil.copytree(tiny, tmp_path / "student")
    (student / "embedding_space.json").write_text(json.dumps(fields | content))
    with pytest.raises(ExportError, match=message):
        export_encoder(resolve(str(student)), options, tmp_path / "artifact")


def test_a_missed_bound_publishes_nothing_and_keeps_what_was_there(
    artifact: Path, tiny: Path, options: ExportOptions, capsys: pytest.CaptureFixture[str]
):
    before = load_manifest(artifact, EncoderManifest)
    capsys.readouterr()
    strict = replace(options, precision="int8", min_overlap=1.0)
    with pytest.raises(ExportError, match=r"overlaps .* by 0\.\d+ where at least 1\.0000"):
        export_encoder(resolve(str(tiny)), strict, artifact)
    assert "overlap of exact top 100" in capsys.readouterr().err
    assert load_manifest(artifact, EncoderManifest) == before
    assert [path.name for path in artifact.parent.iterdir()] == [artifact.name]


def test_a_folder_that_is_no_artifact_is_never_replaced(tiny: Path, tmp_path: Path, options: ExportOptions):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ArtifactError, match="exists and is not an artifact"):
        export_encoder(resolve(str(tiny)), options, tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_damaged_weights_are_one_sentence(tiny: Path, tmp_path: Path, options: ExportOptions):
    broken = shutil.copytree(tiny, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"not weights at all")
    with pytest.raises(ExportError, match="sentence-transformers cannot load it") as caught:
        export_encoder(resolve(str(broken)), options, tmp_path / "artifact")
    assert "\n" not in str(caught.value)


def test_another_tokenizer_than_the_originals_fails_parity(artifact: Path, tiny: Path, options: ExportOptions):
    path = artifact / "tokenizer.json"
    description = json.loads(path.read_text())
    description["normalizer"]["lowercase"] = False
    path.write_text(json.dumps(description))
    model, space = load_checkpoint(resolve(str(tiny)))
    rules = load_manifest(artifact, EncoderManifest).text
    texts = replace(read_texts(options.queries, options.corpus), queries=["Cordless Drill"])
    with pytest.raises(ExportError, match=r"tokenizer\.json makes .* of 'Cordless Drill'"):
        measure(model, Encoder(artifact, space, rules), texts, rules)


def test_lengths_never_exceed_what_the_checkpoint_was_made_for(tiny: Path, tmp_path: Path, options: ExportOptions):
    wanted = replace(options, max_query_tokens=64, max_ad_tokens=100_000)
    manifest = export_encoder(resolve(str(tiny)), wanted, tmp_path / "artifact")
    assert (manifest.text.max_query_tokens, manifest.text.max_ad_tokens) == (64, 512)
