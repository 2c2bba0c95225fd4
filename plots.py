"""How plots look, whichever room draws them; needs matplotlib, which only the offline environments have."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

_STYLE = {
    "svg.hashsalt": "hlm",  # equal plots are equal files
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
}


@contextmanager
def plot(path: Path, *, width_in: float = 8, height_in: float = 5) -> Iterator[Figure]:
    """A figure to draw on in the block; written when it ends, as SVG or PNG by the name's ending."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(width_in, height_in), layout="constrained")
        yield figure
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
