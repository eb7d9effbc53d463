"""Why an agent begins nothing new. Pure."""

REASON_FULL = "the disk of the worker is full"


def why_nothing_new(*, is_leaving: bool, is_disk_full: bool, is_outbox_full: bool, is_cut_off: bool) -> str | None:
    """The reason that is told with an assignment that is declined, None if it may begin."""
    reasons = {
        "draining": is_leaving,
        REASON_FULL: is_disk_full,
        "reports cannot be stored": is_outbox_full,
        # What waited here while we stood still may have been given to another meanwhile.
        "the worker had no contact": is_cut_off,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)
