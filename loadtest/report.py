"""A result as one HTML page that needs nothing else, and its figures as PNGs."""

import io
from pathlib import Path

import matplotlib as mpl
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from loadtest.charts import charts
from loadtest.result import Result
from loadtest.screen import flat, milliseconds

DPI = 150
TITLES = {
    "latency-against-rate": "Latency against rate",
    "over-time": "Over time",
    "histogram": "Histogram of latencies",
    "stages": "Where the server spends its time",
}


def write_report(result: Result, path: Path) -> list[Path]:
    """Write the page, and beside it a PNG a figure; the paths of all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figures, written = {}, [path]
    with mpl.rc_context({"font.size": 9, "svg.fonttype": "none", "svg.hashsalt": "report"}):
        for name, figure in charts(result).items():
            drawn = io.StringIO()
            figure.savefig(drawn, format="svg", metadata={"Date": None}, transparent=True)
            svg = drawn.getvalue()
            figures[TITLES[name]] = Markup(svg[svg.index("<svg") :])  # noqa: S704 - matplotlib escaped what it drew
            # A picture that travels alone has to say what it shows; on the page a heading does.
            title = f"{result.title}: {TITLES[name][0].lower()}{TITLES[name][1:]}"
            figure.suptitle(title.replace("$", r"\$"), x=0.01, ha="left", fontsize=11, fontweight="bold")
            picture = path.with_name(f"{path.stem}-{name}.png")
            figure.savefig(picture, dpi=DPI)
            written.append(picture)
    path.write_text(_page(result, figures), encoding="utf-8")
    return written


def _page(result: Result, figures: dict[str, Markup]) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"ms": milliseconds, "flat": flat}
    return environment.get_template("report.html").render(result=result, figures=figures)
