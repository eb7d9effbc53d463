"""The settings of all services in one file, for the one process that runs them."""

import msgspec

from taskyard.settings import Settings


class ServiceUsers(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """As whom one service connects to nats-server."""

    control_user: str
    control_password: str
    fleet_user: str
    fleet_password: str


class Together(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all services share, and as whom each of them connects: whatever users are named for all are nobody's."""

    users: dict[str, ServiceUsers]

    def of(self, service: str) -> Settings:
        """The settings of one service."""
        shared = {name: getattr(self, name) for name in Settings.__struct_fields__}
        return Settings(**shared | msgspec.structs.asdict(self.users[service]))
