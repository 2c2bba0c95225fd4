"""Who is to be served as what, and what came of it."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Literal, Self

from service.settings import CanarySettings, ReleaseSettings, Settings, ShadowSettings

Role = Literal["stable", "canary", "shadow"]
ROLES: tuple[Role, ...] = ("stable", "canary", "shadow")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be served."""

    stable: ReleaseSettings
    canary: CanarySettings | None
    shadow: ShadowSettings | None

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """What the settings say."""
        return cls(settings.release, settings.canary, settings.shadow)

    def section(self, role: Role) -> ReleaseSettings | None:
        """All that is said of a role."""
        section: ReleaseSettings | None = getattr(self, role)
        return section

    def pair(self, role: Role) -> ReleaseSettings | None:
        """Name and artifacts of a role, by which releases are told apart."""
        section = self.section(role)
        return section and ReleaseSettings(
            name=section.name, encoder=section.encoder, index=section.index, record=section.record
        )

    def taking(self, roles: Iterable[Role], other: "Wanted") -> "Wanted":
        """This, with what the other says of some roles."""
        taken = set(roles)
        return Wanted(
            other.stable if "stable" in taken else self.stable,
            other.canary if "canary" in taken else self.canary,
            other.shadow if "shadow" in taken else self.shadow,
        )


@dataclass(frozen=True, slots=True)
class Swap:
    """What came of the wish for a release."""

    result: str
    """One of `service.release_metrics.SWAP_RESULTS`."""
    release: str | None
    """None where not even its name could be read."""
    role: Role | None
    reason: str | None = None
    seconds: float = 0.0
    at: datetime = field(default_factory=lambda: datetime.now(UTC))

    def describe(self) -> dict[str, object]:
        """As `/info` and the admin interface show it."""
        return asdict(self) | {"seconds": round(self.seconds, 3), "at": self.at.isoformat(timespec="seconds")}
