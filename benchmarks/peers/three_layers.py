"""A checkpoint of three of the demo's six layers, for its speed alone: it was not trained after the cut.

A student that was trained so short costs the same and finds more; what an encoder finds has no bearing on how fast it
is. It says that it embeds into its original's space, so that it is served with the same index.
"""

import sys
from pathlib import Path

from export.onnx_graph import SPACE_NAME, load_checkpoint
from export.source import DEMO, resolve
from train.prune import keep_layers

KEPT = [0, 1, 5]
"""As the rule `keep_ends` of recipes chooses."""


def main(out: Path) -> None:
    """Write the checkpoint into a directory."""
    model, space = load_checkpoint(resolve(DEMO))
    keep_layers(model, KEPT)
    model.save(str(out))
    (out / SPACE_NAME).write_text(space.model_dump_json())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
