"""Which releases a running service has, and changing them, through its admin listener."""

import json

from client.admin import AdminConnection
from client.errors import ClientError

LOADING_TIMEOUT_S = 1_800.0
"""A release is loaded and verified before the answer comes: seconds, or many minutes for an index of ten gigabytes."""
ROLES = ("stable", "canary", "shadow", "previous")

Release = dict[str, object]
"""What the service says of one release; `name`, `encoder` and `index` at least."""


class Releases:
    """The answer of the admin listener: what is served, and what else there is."""

    def __init__(self, body: bytes) -> None:
        """Raises: ClientError where the body is not such an answer."""
        try:
            document = json.loads(body)
        except ValueError as error:
            raise ClientError(f"The admin listener answered with something else than JSON: {error}") from error
        if not isinstance(document, dict):
            raise ClientError(f"The admin listener answered with {type(document).__name__}; expected an object")
        self.body = body
        self.by_role: dict[str, Release] = {
            role: document[role] for role in ROLES if isinstance(document.get(role), dict)
        }
        self.further = {name: value for name, value in document.items() if name not in ROLES and value is not None}

    def places(
        self, name: str, encoder: str | None, index: str | None, record: str | None
    ) -> tuple[str, str, str | None]:
        """Where a release is to be loaded from: encoder, index and record.

        Args:
            name: the release; without a directory, one that the service has.
            encoder: directory, or None for that of the release that is served.
            index: likewise.
            record: file, or None for the one that the index has there, if any; an index that is new has none.

        Raises:
            ClientError: the service does not say.
        """
        if encoder is None and index is None:
            release = self._named(name)
        elif (stable := self.by_role.get("stable")) is not None:
            release = stable
        else:
            raise ClientError(
                "The service serves no release whose other directory could be kept; give both directories"
            )
        if index is None and record is None and release.get("record") is not None:
            record = _text(release, "record")
        return encoder or _text(release, "encoder"), index or _text(release, "index"), record

    def _named(self, name: str) -> Release:
        for release in self.by_role.values():
            if release.get("name") == name:
                return release
        known = ", ".join(str(release.get("name")) for release in self.by_role.values()) or "none"
        raise ClientError(
            f"The service has no release called {name!r}, only {known}; a new one needs --encoder, --index or both"
        )


class ReleaseClient(AdminConnection):
    """What one service's admin listener does about releases."""

    read_timeout_s = LOADING_TIMEOUT_S

    def status(self) -> Releases:
        """Which releases there are.

        Raises:
            ClientError: there was no answer, or not one of an admin listener.
        """
        return Releases(self.send("GET", "/releases").content)

    def use(self, name: str, encoder: str, index: str, record: str | None = None) -> Releases:
        """Serve another release; gives what there is once it is served.

        Args:
            name: of the release.
            encoder: directory on the machine that serves.
            index: likewise.
            record: file there, by which its ads can be changed.

        Raises:
            AnswerError: it was rejected.
            ClientError: there was no answer, or not one of an admin listener.
        """
        wanted = {"name": name, "encoder": encoder, "index": index} | ({"record": record} if record else {})
        return Releases(self.send("POST", "/releases/use", json.dumps(wanted).encode()).content)

    def rollback(self) -> Releases:
        """Serve the previous release again; gives what there is then.

        Raises:
            AnswerError: there is none.
            ClientError: there was no answer, or not one of an admin listener.
        """
        return Releases(self.send("POST", "/releases/rollback").content)


def _text(release: Release, name: str) -> str:
    value = release.get(name)
    if not isinstance(value, str):
        raise ClientError(f"The service does not say the {name} directory of {release.get('name')!r}; give --{name}")
    return value
