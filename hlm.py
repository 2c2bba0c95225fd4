"""The front door: the `hlm` command, which mounts each room's `cli.py`.

Those modules import nothing heavy until a command runs, so `hlm --help` answers at once and `hlm serve` never loads
what only the offline commands need.
"""

import sys

import typer
from rich.markup import escape

import client.ads_cli
import client.cli
import export.cli
import index.cli
import loadtest.cli
import samples.cli
import service.cli
import train.cli
from artifacts.errors import HlmError
from terminal import console

app = typer.Typer(
    help="Sponsored-search retrieval at low latency: train and export an encoder, build an index, serve, ask.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("export")(export.cli.export)
app.add_typer(index.cli.app, name="index")
app.command("serve")(service.cli.serve)
app.command("query")(client.cli.query)
app.command("evaluate")(client.cli.evaluate)
app.add_typer(client.cli.release, name="release")
app.add_typer(client.ads_cli.app, name="ads")
app.add_typer(loadtest.cli.app, name="loadtest")
app.command("samples")(samples.cli.samples)
app.add_typer(train.cli.app, name="train")


def main() -> None:
    """Run a command. Exit codes: 0 done, 1 failed with one sentence that says why, 2 wrong usage."""
    try:
        app()
    except HlmError as error:
        console.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
