"""A process that changes ads without end, and says after each answer what it was: to be killed.

`python -m tests.index.killed_writer RECORD SEED`
"""

import random
import sys
from pathlib import Path

from index.changes import AdPatch, Delete, PatchAd, State
from index.record import Record
from index.writer import AdWriter
from tests.index.records import upsert

AD_COUNT = 40


class Nowhere:
    """Makes nothing true."""

    def apply(self, states: list[State]) -> None:
        """Do nothing."""


def main() -> None:
    path, chance = Path(sys.argv[1]), random.Random(int(sys.argv[2]))
    writer = AdWriter(Record(path), Nowhere())
    say("open")
    number = 0
    while True:
        number += 1
        # Each value is told apart from all others, so that what is found afterwards can be dated.
        bid = float(f"{sys.argv[2]}.{number:06d}")
        submitted = []
        for ad_id in chance.sample(range(AD_COUNT), chance.randint(1, 8)):
            kind = chance.choice("uuupd")
            changes = {
                "u": upsert(str(ad_id), number % 64, bid=bid, description="x" * chance.randint(0, 4000)),
                "p": PatchAd(str(ad_id), AdPatch(bid=bid)),
                "d": Delete(str(ad_id)),
            }
            say("submitted", kind, ad_id, bid)
            submitted.append((kind, ad_id, writer.submit([changes[kind]])))
        for kind, ad_id, future in submitted:
            say("done" if future.result().applied else "unknown", kind, ad_id, bid)


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
