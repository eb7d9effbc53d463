"""The mutants: each breaks one rule of the agent or of the edges, and names the tests that must find it."""

from planting import Mutant

LIFECYCLE = "contracts/taskyard/contracts/lifecycle/dispatcher.py"
ADMISSION = "services/taskyard/scheduler/admission.py"
SLOTS = "services/taskyard/agent/slots.py"
OUTBOX = "services/taskyard/agent/outbox.py"

MUTANTS = (
    # -- five that once survived ---------------------------------------------------------------------------------------
    Mutant(
        name="a-service-starts-without-the-check-of-the-version",
        file="libs/taskyard/service.py",
        old="        await read_version(log)",
        new="        del read_version",
        killers=("tests/service/test_version_first.py",),
    ),
    Mutant(
        name="a-late-success-changes-a-task-that-is-pending",
        file=LIFECYCLE,
        old="""record.phase not in ATTEMPT_OPEN:
        return Verdict.VOID
    record.result = event.result.copy()
    record.progress = 100""",
        new="""record.phase not in ATTEMPT_OPEN | {Phase.PENDING}:
        return Verdict.VOID
    record.result = event.result.copy()
    record.progress = 100""",
        killers=("tests/contracts/test_late_reports.py",),
    ),
    Mutant(
        name="the-workspace-of-what-this-decision-stops-counts-as-free",
        file=ADMISSION,
        old="queue.holder) not in (None, exclusive)",
        new="queue.holder) not in (None, exclusive, *self._taken)",
        killers=("tests/machines/test_workspace_of_what_stops.py",),
    ),
    # -- the memory of slots -------------------------------------------------------------------------------------------
    Mutant(
        name="an-older-position-begins",
        file=SLOTS,
        old="if known is not None and position < known.position:",
        new="if known is None and position < 0:",
        killers=("tests/agent/test_slot_memory.py",),
    ),
    Mutant(
        name="what-was-declined-may-begin-later",
        file=SLOTS,
        old="            self._remember(slot, assignment, outcome=DECLINED, reason=reason)\n",
        new="",
        killers=("tests/agent/test_slot_memory.py",),
    ),
    Mutant(
        name="a-cancel-of-what-was-never-seen-leaves-no-trace",
        file=SLOTS,
        old="        self._remember(cancel.slot, cancel, outcome=ACCEPTED, end=end)\n        older",
        new="        older",
        killers=("tests/agent/test_slot_memory.py",),
    ),
    Mutant(
        name="an-end-is-not-reported-again",
        file=SLOTS,
        old="        if known.end is not None:\n            decision.reports.append(known.end)",
        new="        if known.end is not None:\n            pass",
        killers=("tests/agent/test_slot_memory.py",),
    ),
    Mutant(
        name="the-end-of-an-older-attempt-overwrites-the-newer-in-its-slot",
        file=SLOTS,
        old="if remembered is not None and remembered.position == position:\n            self._remember(slot, live",
        new="if remembered is not None:\n            self._remember(slot, live",
        killers=("tests/agent/test_slot_memory.py",),
    ),
    Mutant(
        name="a-slot-whose-process-lives-takes-another",
        file=SLOTS,
        old='            return f"attempt {live.attempt} of {live.task} still lives in the slot{process}"',
        new="            del process",
        killers=("tests/agent/test_slot_memory.py",),
    ),
    # -- reports -------------------------------------------------------------------------------------------------------
    Mutant(
        name="a-batch-that-is-sent-again-has-another-id",
        file=OUTBOX,
        old=' = {"Nats-Msg-Id": f"{self._agent}-{incarnation}-{number}"}',
        new=' = type("", (dict,), {"__getitem__": lambda s, _: str(s.setdefault("n", []).append(1) or len(s.get("n")))})()',
        killers=("tests/agent/test_agent_outbox.py",),
    ),
    Mutant(
        name="batches-of-reports-are-unbounded-in-bytes",
        file=OUTBOX,
        old=" or size + len(report) > REPORT_BYTES_MAX",
        new="",
        killers=("tests/agent/test_agent_outbox.py::test_batches_are_bounded_in_bytes",),
    ),
    Mutant(
        name="a-batch-is-forgotten-before-it-is-stored",
        file=OUTBOX,
        old="""                await self._send(batch)
                self._sealed.popleft()
                self._waiting -= count
                self._store.delete_batch(batch[0], batch[1])""",
        new="""                self._store.delete_batch(batch[0], batch[1])
                await self._store.sync()
                await self._send(batch)
                self._sealed.popleft()
                self._waiting -= count""",
        killers=("tests/agent/test_agent_outbox.py",),
    ),
    Mutant(
        name="ends-are-left-out-of-a-full-outbox",
        file=OUTBOX,
        old="if isinstance(report, Progressed) and self.full:",
        new="if self.full:",
        killers=("tests/agent/test_agent_outbox.py",),
    ),
)
