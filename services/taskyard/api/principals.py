"""Who asks: bearer tokens over HTTP, names of subjects over NATS, and what each role sees."""

from collections.abc import Iterable, Sequence

from msgspec import Struct

from taskyard import settings
from taskyard.api.errors import forbidden, unauthorized
from taskyard.contracts.values import Role
from taskyard.contracts.verbs import may_command
from taskyard.http_server.tokens import bearer_of, token_in


class Caller(Struct, frozen=True, kw_only=True):
    """Somebody who was recognised."""

    name: str
    role: Role

    @property
    def sees_only(self) -> str | None:
        """The only principal whose tasks the caller may see; `None` for all.

        An operator works on tasks of their own. A viewer has none and watches the whole, an admin may do everything.
        """
        return self.name if self.role is Role.OPERATOR else None

    @property
    def reads_inputs_of(self) -> str | None:
        """The only principal whose tasks' inputs the caller may read; `None` for all."""
        return None if self.role is Role.ADMIN else self.name

    def require(self, verb: str) -> None:
        """Raise 403 where the role may not use the verb."""
        if not may_command(self.role, verb):
            raise forbidden(f"a {self.role} may not {verb}")

    def require_admin(self) -> None:
        """Raise 403 for everyone else."""
        if self.role is not Role.ADMIN:
            raise forbidden("only an admin may read this")


class Principals:
    """Everybody who may use the doors."""

    def __init__(self, principals: Iterable[settings.Principal]) -> None:
        self._principals = tuple(principals)
        self._by_name = {one.name: Caller(name=one.name, role=Role(one.role.value)) for one in self._principals}

    @property
    def names(self) -> Sequence[str]:
        """The names of all."""
        return list(self._by_name)

    def named(self, name: str) -> Caller:
        """The principal that NATS has already recognised. Raises 403 for an unknown one."""
        caller = self._by_name.get(name)
        if caller is None:
            raise forbidden("this principal is unknown here")
        return caller

    def bearing(self, authorization: str | None) -> Caller:
        """The principal of an `Authorization` header. Raises 401."""
        token = token_in(authorization)
        if token is None:
            raise unauthorized("a bearer token is needed")
        found = bearer_of(self._principals, token)
        if found is None:
            raise unauthorized("the token is not valid")
        return self._by_name[found.name]
