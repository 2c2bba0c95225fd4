"""The frozen ad side: the teacher embeds every ad once, and never runs online.

hlm train embed-ads RECIPE
"""

from export.onnx_graph import SPACE_NAME
from train.data import FEED_NAME, Inventory, read_inventory
from train.embeddings import embed_with_teacher, embeddings_key
from train.errors import TrainError
from train.runs import CheckpointManifest, EmbeddingsManifest, Run, load_finished


def embed_ads(run: Run) -> None:
    """Embed all ads of a recipe, unless the result is there already.

    Beside the embeddings lie the feed that they belong to line by line, and their space: what `hlm index build` takes
    with `--feed`, `--embeddings` and `--space`.

    Raises:
        HlmError: there is no teacher yet, or the ads cannot be read.
    """
    inventory = read_inventory(run.recipe.data)
    teacher = load_finished(run.teacher, CheckpointManifest, "teacher")
    embed_with_teacher(run, run.ads, inventory.texts, run.recipe.ad, _beside(inventory, teacher))


def current_ads(run: Run, inventory: Inventory) -> EmbeddingsManifest:
    """Manifest of the ads' embeddings, if they are the present teacher's of exactly these ads.

    Raises:
        TrainError: they are not, or not there yet.
    """
    teacher = load_finished(run.teacher, CheckpointManifest, "teacher")
    found = load_finished(run.ads, EmbeddingsManifest, "embed-ads")
    key = embeddings_key(teacher, inventory.texts, run.recipe.ad, _beside(inventory, teacher))
    if found.fingerprint != key:
        raise TrainError(
            f"{run.ads}: is of another teacher or other ads than the recipe has now; run `hlm train embed-ads` again"
        )
    return found


def _beside(inventory: Inventory, teacher: CheckpointManifest) -> dict[str, bytes]:
    """What lies beside the embeddings: their feed and their space."""
    return {
        FEED_NAME: b"".join(inventory.lines),
        SPACE_NAME: teacher.space.model_dump_json(indent=2).encode() + b"\n",
    }
