"""nginx in front of two replicas, with the configuration that deploy/ ships."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.errors import BenchmarkError
from benchmarks.replica import free_port

SHIPPED = Path(__file__).parent.parent / "deploy" / "nginx.conf"
_PATIENCE_S = 10.0

_MAIN = """\
# What Debian's nginx.conf sets around conf.d, with every path inside one scratch directory.
{user}
daemon off;
worker_processes 1;
pid nginx.pid;
error_log error.log warn;
events {{ worker_connections 4096; }}
http {{
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include hlm.conf;
}}
"""


class NginxMissingError(BenchmarkError):
    """There is no nginx here."""


def find_nginx(wanted: str | None) -> str:
    """The path of an nginx.

    Args:
        wanted: a path, or None to look where the shell and Debian's package have it.

    Raises:
        NginxMissingError: it is not there; says how to get it.
    """
    found = shutil.which(wanted or "nginx") or (None if wanted else shutil.which("/usr/sbin/nginx"))
    if found is None:
        raise NginxMissingError(
            f"{wanted or 'nginx'} was not found: `apt-get install nginx` as root, or without root rights `apt-get"
            " download nginx && dpkg -x nginx_*.deb var/nginx` and `--nginx var/nginx/usr/sbin/nginx`"
        )
    return found


def configure(shipped: str, port: int, replicas: tuple[int, int], flags: Path) -> str:
    """The shipped configuration with these ports of this machine and this directory of flags.

    Raises:
        BenchmarkError: what is to be replaced is not in it.
    """
    ours = ("listen 80;", "10.0.0.1:8080", "10.0.0.2:8080", "/run/hlm/")
    here = (f"listen 127.0.0.1:{port};", *(f"127.0.0.1:{replica}" for replica in replicas), f"{flags}/")
    for text, replacement in zip(ours, here, strict=True):
        if text not in shipped:
            raise BenchmarkError(f"{SHIPPED}: expected `{text}` in it, to put `{replacement}` there")
        shipped = shipped.replace(text, replacement)
    return shipped


class Nginx:
    """A running nginx in front of two replicas."""

    def __init__(self, port: int, flags: Path) -> None:
        self.port = port
        self._flags = flags

    def mark(self, replica: int, *, away: bool) -> None:
        """Say of replica 1 or 2 whether it is to have requests; in force from the next one on."""
        flag = self._flags / f"{replica}.away"
        if away:
            flag.touch()
        else:
            flag.unlink(missing_ok=True)


@contextmanager
def run_nginx(binary: str, directory: Path, replicas: tuple[int, int]) -> Iterator[Nginx]:
    """Run nginx in `directory`, in front of the replicas on these ports.

    Raises:
        BenchmarkError: it ended, or does not listen; with what it said.
    """
    port = free_port()
    user = "user root;" if os.geteuid() == 0 else ""  # else its workers could not enter the scratch directory
    configuration = configure(SHIPPED.read_text(encoding="utf-8"), port, replicas, directory)
    (directory / "nginx.conf").write_text(_MAIN.format(user=user))
    (directory / "hlm.conf").write_text(configuration, encoding="utf-8")
    # It would take a variable of its own name, which make passes on, for a list of sockets.
    environment = {name: value for name, value in os.environ.items() if name != "NGINX"}
    process = subprocess.Popen([binary, "-p", str(directory), "-c", "nginx.conf", "-e", "error.log"], env=environment)
    try:
        _wait_until_it_listens(process, directory, port)
        yield Nginx(port, directory)
    finally:
        process.terminate()
        process.wait()


def _wait_until_it_listens(process: "subprocess.Popen[bytes]", directory: Path, port: int) -> None:
    gives_up = time.monotonic() + _PATIENCE_S
    while time.monotonic() < gives_up and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    said = (directory / "error.log").read_text() if (directory / "error.log").exists() else ""
    raise BenchmarkError(f"nginx does not listen on port {port}: {said.strip() or 'it said nothing'}")
