"""Which ports the servers listen on."""

from taskyard.dev.errors import PortInUse
from taskyard.dev.layout import Ports
from taskyard.embedded import processes


def choose_ports(last: Ports, *, http: int, nats: int) -> Ports:
    """The ports asked for; where 0 is asked for the one of the last run if it is still free, else any free one.

    Raises:
        PortInUse: another program listens on a port that was asked for, or both were asked to be the same.
    """
    if http and http == nats:
        raise PortInUse(f"HTTP and NATS cannot both have port {http}; choose another one for one of them, or 0 for any")
    chosen_nats = _choose(nats, last.nats)
    chosen_http = _choose(http, last.http)
    while chosen_http == chosen_nats and not http:
        chosen_http = _choose(0, 0)
    while chosen_http == chosen_nats:
        chosen_nats = _choose(0, 0)
    return Ports(http=chosen_http, nats=chosen_nats)


def port_in_use(port: int) -> PortInUse:
    """What to tell whoever asked for a port that is taken."""
    who = processes.listener_of(port) or "another program"
    return PortInUse(f"port {port} is in use by {who}; end that, choose another port, or 0 for any")


def _choose(wanted: int, last: int) -> int:
    if wanted and not processes.is_port_free(wanted):
        raise port_in_use(wanted)
    if wanted or (last and processes.is_port_free(last)):
        return wanted or last
    return processes.free_port()
