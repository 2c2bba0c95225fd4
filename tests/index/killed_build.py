"""A build in a process of its own that kills itself, as `kill -9` would, at a chosen change to the file system.

`python -m tests.index.killed_build FEED OUT [CHANGE]`; without CHANGE, or where there are fewer, it runs to its end and
prints, as JSON, how many changes there were and how many texts were embedded.
"""

import json
import os
import signal
import sys
from pathlib import Path

from index.build import BuildOptions, build_index
from tests.index.support import WordEmbedder, inputs

CHANGES = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate"}


def kill_at(change: int, below: Path) -> list[str]:
    """Die right before the given change below a directory; the list grows by one with each change before it."""
    seen: list[str] = []

    def audit(event: str, arguments: tuple) -> None:
        if event in CHANGES and str(arguments[0]).startswith(str(below)):
            if len(seen) == change:
                os.kill(os.getpid(), signal.SIGKILL)
            seen.append(event)

    sys.addaudithook(audit)
    return seen


def main() -> None:
    feed, out = Path(sys.argv[1]), Path(sys.argv[2])
    seen = kill_at(int(sys.argv[3]) if len(sys.argv) > 3 else -1, out.parent)
    embedder = WordEmbedder()
    build_index(inputs(feed, embedder), out, BuildOptions(k=10, target_recall=0.5))
    sys.stdout.write(json.dumps({"changes": len(seen), "encoded": embedder.encoded}))


if __name__ == "__main__":
    main()
