import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from export.options import DEFAULT_CORPUS, DEFAULT_QUERIES, ExportOptions, export_fingerprint
from export.source import ExportError, resolve
from export.texts import read_texts
from tests.export.checkpoints import save_transformer
from tests.export.conftest import hlm

# Published for model.safetensors at huggingface.co/sentence-transformers/all-MiniLM-L6-v2.
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_transformer(tmp_path_factory.mktemp("checkpoints") / "tiny-bert")


def test_the_demo_model_has_the_published_weights():
    source = resolve("demo")
    assert (source.name, source.revision) == ("all-MiniLM-L6-v2", f"sha256:{MINILM_SHA256}")


def test_a_directory_is_named_after_itself_and_pinned_by_its_weights(checkpoint: Path):
    source = resolve(str(checkpoint))
    assert source.name == "tiny-bert"
    assert source.revision == f"sha256:{source.files['model.safetensors']}"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        pytest.param("./nowhere", "no such directory", id="missing directory"),
        pytest.param("/nowhere/at/all", "no such directory", id="missing absolute path"),
        pytest.param("a/b/c", "no such directory", id="too deep for a hub id"),
        pytest.param("not an id", "valid hub id", id="impossible hub id"),
    ],
)
def test_what_is_no_checkpoint_is_refused_by_name(model: str, message: str):
    with pytest.raises(ExportError, match=message) as caught:
        resolve(model)
    assert model in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_directory_without_weights_is_refused(checkpoint: Path, tmp_path: Path):
    shutil.copy(checkpoint / "config.json", tmp_path)
    with pytest.raises(ExportError, match=r"expected .* weights .* found \['config.json'\]"):
        resolve(str(tmp_path))


def test_a_damaged_list_of_modules_is_refused(checkpoint: Path, tmp_path: Path):
    directory = shutil.copytree(checkpoint, tmp_path / "copy")
    (directory / "modules.json").write_text('{"idx": 0')
    with pytest.raises(ExportError, match=r"modules\.json: not a list of modules"):
        resolve(str(directory))


def test_a_directory_has_no_revision(checkpoint: Path):
    with pytest.raises(ExportError, match="only a hub id has a revision"):
        resolve(str(checkpoint), "main")


def test_a_hub_id_without_a_hub_is_one_sentence_that_says_what_to_do(tmp_path: Path):
    result = hlm("export", "someone/some-model", "--out", tmp_path / "out", HF_HOME=str(tmp_path / "cache"))
    assert result.returncode == 1
    assert result.stdout == ""
    assert "someone/some-model" in result.stderr
    assert "hub cannot be reached" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_cached_hub_id_needs_no_hub(checkpoint: Path, tmp_path: Path, queries: Path, titles: Path):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "models--someone--some-model"
    shutil.copytree(checkpoint, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    arguments = ("export", "someone/some-model", "--out", tmp_path / "out", "--queries", queries, "--corpus", titles)
    result = hlm(*arguments, HF_HOME=str(tmp_path))
    assert result.returncode == 0, result.stderr
    manifest = (tmp_path / "out" / "manifest.json").read_text()
    assert f'"revision": "{commit}"' in manifest
    assert '"model_version": "some-model-int8-' in manifest


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"precision": "fp16"}, id="precision"),
        pytest.param({"max_query_tokens": 32}, id="query length"),
        pytest.param({"max_ad_tokens": 128}, id="ad length"),
        pytest.param({"min_overlap": 0.5}, id="bound"),
        pytest.param({"queries": DEFAULT_QUERIES}, id="queries"),
        pytest.param({"corpus": DEFAULT_CORPUS}, id="corpus"),
    ],
)
def test_every_option_is_in_the_fingerprint(checkpoint: Path, options: ExportOptions, change: dict):
    source = resolve(str(checkpoint))
    assert export_fingerprint(source, options) == export_fingerprint(resolve(str(checkpoint)), replace(options))
    assert export_fingerprint(source, options) != export_fingerprint(source, replace(options, **change))


def test_the_fingerprint_follows_what_is_loaded_and_not_what_lies_beside_it(
    checkpoint: Path, options: ExportOptions, tmp_path: Path
):
    directory = shutil.copytree(checkpoint, tmp_path / "copy")
    before = export_fingerprint(resolve(str(directory)), options)
    (directory / "checkpoint-500").mkdir()
    (directory / "checkpoint-500" / "model.safetensors").write_bytes(b"older weights")
    assert export_fingerprint(resolve(str(directory)), options) == before
    (directory / "tokenizer_config.json").write_text("{}")
    assert export_fingerprint(resolve(str(directory)), options) != before


def test_the_shipped_texts_are_as_many_as_parity_uses_and_small():
    texts = read_texts(DEFAULT_QUERIES, DEFAULT_CORPUS)
    assert (len(set(texts.queries)), len(set(texts.ads))) == (1_000, 2_500)
    assert DEFAULT_QUERIES.stat().st_size + DEFAULT_CORPUS.stat().st_size < 150_000
