"""The frozen ad side: the teacher embeds every ad once, and never runs online.

hlm train embed-ads RECIPE
"""

import gzip

from export.onnx_graph import SPACE_NAME
from train.data import FEED_NAME, read_inventory
from train.embeddings import embed_with_teacher
from train.runs import CheckpointManifest, Run, load_finished


def embed_ads(run: Run) -> None:
    """Embed all ads of a recipe, unless the result is there already.

    Beside the embeddings lie the feed that they belong to line by line, and their space: what `hlm index build` takes
    with `--feed`, `--embeddings` and `--space`.

    Raises:
        HlmError: there is no teacher yet, or the ads cannot be read.
    """
    inventory = read_inventory(run.recipe.data)
    space = load_finished(run.teacher, CheckpointManifest, "teacher").space
    beside = {
        FEED_NAME: gzip.compress(b"".join(inventory.lines), mtime=0),
        SPACE_NAME: space.model_dump_json(indent=2).encode() + b"\n",
    }
    embed_with_teacher(run, run.ads, inventory.texts, run.recipe.ad, beside)
