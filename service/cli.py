"""The command `hlm serve`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from memory import ask_for_huge_pages


def serve(
    config: Annotated[Path | None, typer.Option(help="YAML file; see docs/configuration.md.")] = None,
    encoder: Annotated[Path | None, typer.Option(help="Encoder artifact (release.encoder).")] = None,
    index: Annotated[Path | None, typer.Option(help="Index artifact (release.index).")] = None,
    record: Annotated[Path | None, typer.Option(help="Record of the index's ads (release.record).")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the release (release.name).")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on (server.host).")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on, 0 for a free one (server.port).")] = None,
    admin_port: Annotated[
        int | None, typer.Option(help="Port of the admin listener, 0 for a free one (server.admin_port).")
    ] = None,
) -> None:
    """Serve a release over HTTP until SIGTERM or Ctrl-C.

    Options override HLM_SECTION__NAME environment variables, which override the file.

    Examples:
      hlm serve --config config/serve.yaml
      hlm serve --config config/serve.yaml --port 8090
      HLM_BATCHING__WORKERS=4 hlm serve --config config/serve.yaml

    Exit codes:
      0  ended by a signal, after every accepted request was answered
      1  refused to start, with one sentence that says why
      2  wrong usage
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's; batches already run side by side, one a core
    ask_for_huge_pages()
    from service.server import serve as run_server

    release = {"name": name, "encoder": encoder, "index": index, "record": record}
    listener = {"host": host, "port": port, "admin_port": admin_port}
    overrides = {
        "release": {key: value for key, value in release.items() if value is not None},
        "server": {key: value for key, value in listener.items() if value is not None},
    }
    run_server(config, {section: values for section, values in overrides.items() if values})
