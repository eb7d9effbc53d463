"""How much of what an agent reports may be read with care: a batch that cannot be read as a whole costs a hundred times as much.

Report by report, and with its texts mended, is how such a batch is read, so that one wrong report costs no other one. An agent
that stores nothing but garbage would so keep the others waiting: beyond its share its garbage is set aside at once.
"""

from taskyard.quotas import Quota

READ_WITH_CARE = Quota(at_once=512 * 1024, per_second=32 * 1024)
"""Bytes of one agent. At once: two batches of the greatest length, or very many as they are."""
