"""Sockets that a service listens on."""

import socket

from service.errors import StartupError

BACKLOG = 2_048
"""Connections that may wait to be accepted; a burst must not meet a refusal by the kernel."""


def bind(host: str, port: int, setting: str) -> socket.socket:
    """A listening socket.

    Args:
        host: address, IPv4 or IPv6.
        port: 0 takes a free one.
        setting: names of the settings that say so, for the message.

    Raises:
        StartupError: the address is taken or not ours.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise StartupError(f"cannot listen on {host} port {port} ({setting}): {error.strerror}") from error


def url_of(listener: socket.socket) -> str:
    """Where a socket of `bind` can be asked."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
