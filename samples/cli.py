"""`hlm samples`: writes a feed of made-up ads."""

from pathlib import Path
from typing import Annotated

import typer


def samples(
    out: Annotated[Path, typer.Option(help="Feed to write: gzipped JSON lines.", dir_okay=False)],
    ads: Annotated[int, typer.Option(help="How many ads.", min=1, max=10_000_000)] = 10_000,
    seed: Annotated[int, typer.Option(help="Another seed, other ads; the same seed, the same bytes.")] = 1,
) -> None:
    """Write a feed of plausible, made-up ads in six markets and four languages, to try everything with.

    Does nothing where the file already holds just that.

    Examples:
      hlm samples --out var/samples.jsonl.gz
      hlm samples --out var/large.jsonl.gz --ads 100000 --seed 7

    Exit codes:
      0  written, or up to date
      1  failed, with one sentence that says why
      2  wrong usage
    """
    from artifacts.errors import HlmError
    from artifacts.store import write_atomic
    from samples.generate import feed_bytes

    feed = feed_bytes(ads, seed)
    if out.is_file() and out.read_bytes() == feed:
        typer.echo(f"{out}: up to date ({ads:,} ads)")
        return
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(out, feed)
    except OSError as error:
        raise HlmError(f"{out}: cannot be written ({error.strerror})") from error
    typer.echo(f"{out}: {ads:,} ads, {len(feed) / 1e6:.1f} MB")
