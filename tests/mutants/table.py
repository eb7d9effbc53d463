"""The mutants: each breaks one rule of the agent or of the edges, and names the tests that must find it."""

from planter import Mutant

LIFECYCLE = "contracts/taskyard/contracts/lifecycle/dispatcher.py"
ADMISSION = "services/taskyard/scheduler/admission.py"
SLOTS = "services/taskyard/agent/slots.py"
AGENT = "services/taskyard/agent/app.py"
OUTBOX = "services/taskyard/agent/outbox.py"
JOURNAL = "services/taskyard/agent/journal.py"
ATTEMPT = "services/taskyard/agent/attempt.py"
DISK = "services/taskyard/agent/disk.py"
SUPERVISOR = "services/taskyard/agent/supervisor/app.py"
KEEPER = "services/taskyard/agent/supervisor/keeper.py"
SPOOL = "services/taskyard/agent/supervisor/spool.py"
PROGRESS = "services/taskyard/agent/progress.py"
DELIVERY = "services/taskyard/dispatcher/delivery.py"
DISPATCHER_STATE = "services/taskyard/dispatcher/state.py"
LIVENESS = "services/taskyard/slot_allocator/liveness.py"
DISPATCHING = "services/taskyard/dispatcher/decide.py"
REFUSALS = "services/taskyard/scheduler/refusals.py"
DOORS = "services/taskyard/api/doors.py"
LEADERS = "services/taskyard/api/leaders.py"
DECIDING, INPUTS = "libs/taskyard/machine/deciding.py", "libs/taskyard/machine/inputs.py"
KEEPERS, SPOOLED = "services/taskyard/agent/supervisor/keepers.py", "tests/agent/test_spool.py"
KEPT = "tests/agent/test_supervisor_keeps.py"
TAKEOVER, SUPERVISED = "tests/agent/test_agent_takeover.py", "tests/agent/test_supervisor.py"
SENT_REPORTS, DOORS_TESTED = "tests/agent/test_agent_outbox.py", "tests/api/test_doors.py"
ALLOCATING, DELIVERING = "tests/machines/test_slot_allocator.py", "tests/machines/test_dispatcher.py"
ONE_ITEM = "tests/conformance/loop/test_one_item.py"
CORE, ONE_OF_MANY = "tests/conformance/loop/test_core.py", "tests/machines/test_one_item.py"
ASIDE = "libs/taskyard/machine/aside.py"
PROJECTION = "services/taskyard/state_projector/projection.py"
PROJECTED = "tests/state_projector/test_projection.py"
PLACING, UNWILLING = "services/taskyard/slot_allocator/decide.py", "services/taskyard/slot_allocator/unwilling.py"

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
        old="state.workspaces.holder(name)) in (None, locking)",
        new="state.workspaces.holder(name)) in (None, locking, *self._taken)",
        killers=("tests/machines/test_workspace_of_what_stops.py",),
    ),
    Mutant(
        name="another-incarnations-heartbeat-keeps-the-one-that-is-there-alive",
        file="services/taskyard/slot_allocator/liveness.py",
        old="worker is None or heartbeat.incarnation != worker.incarnation or worker.is_lost:",
        new="worker is None or worker.is_lost:",
        killers=("tests/machines/test_slot_allocator.py",),
    ),
    Mutant(
        name="silence-counts-while-an-allocator-stands-still",
        file="services/taskyard/slot_allocator/liveness.py",
        old="seconds(min(seen.at - self._answered_at, LISTENED_SECONDS_MAX))",
        new="seconds(seen.at - self._answered_at)",
        killers=("tests/machines/test_slot_allocator.py",),
    ),
    # -- which run of a worker counts ----------------------------------------------------------------------------------
    Mutant(
        name="who-was-lost-before-another-took-its-name-is-not-told-to-go",
        file=DISPATCHER_STATE,
        old="        self.gone[worker.name] = worker\n        if",
        new="        if",
        killers=("tests/machines/test_dispatcher.py",),
    ),
    Mutant(
        name="a-worker-that-is-replaced-is-told-to-go-after-it-has-joined-again",
        file="contracts/taskyard/contracts/fleet.py",
        old="    replaced.pop(event.incarnation, None)\n",
        new="",
        killers=("tests/machines/test_dispatcher.py",),
    ),
    Mutant(
        name="what-waits-to-be-tried-again-runs-on-where-it-was-lost",
        file=DISPATCHING,
        old="return record.holds_slot or record.id in self._state.closing",
        new="return True",
        killers=("tests/machines/test_dispatcher.py",),
    ),
    Mutant(
        name="a-journal-that-was-put-back-goes-on",
        file="services/taskyard/agent/mark.py",
        old="return found.isdigit() and int(found) <= commits",
        new="return found is not None",
        killers=("tests/agent/test_agent_outbox.py",),
    ),
    Mutant(
        name="who-is-lost-is-replaced-by-nobody-and-told-to-go",
        file=DISPATCHING,
        old="if is_replaced and not worker.is_lost:",
        new="if is_replaced:",
        killers=(f"{DELIVERING}::test_nobody_is_told_to_go_for_one_that_is_lost_itself",),
    ),
    Mutant(
        name="a-standby-tells-who-was-replaced-to-go",
        file=DELIVERY,
        old="        if self._is_open:\n            self._retired[",
        new="        if self._retired is not None:\n            self._retired[",
        killers=(f"{DELIVERING}::test_a_standby_tells_nobody_to_go",),
    ),
    Mutant(
        name="who-was-replaced-is-told-to-go-for-ever",
        file=DELIVERY,
        old="        self._retired.clear()\n",
        new="",
        killers=(f"{DELIVERING}::test_who_was_replaced_is_told_to_go_once_for_each_time_that_it_speaks",),
    ),
    Mutant(
        name="what-another-worker-was-given-runs-on",
        file=DISPATCHING,
        old="if record is None or record.worker != agent or record.assigned",
        new="if record is None or record.assigned",
        killers=(f"{DELIVERING}::test_what_the_log_has_given_otherwise_is_stopped",),
    ),
    Mutant(
        name="what-was-given-anew-runs-on-as-it-was",
        file=DISPATCHING,
        old=" or record.assigned != live.position:",
        new=":",
        killers=(f"{DELIVERING}::test_what_the_log_has_given_otherwise_is_stopped",),
    ),
    Mutant(
        name="a-run-that-is-gone-answers-for-the-one-after-it",
        file=DISPATCHING,
        old="if request.incarnation == record.incarnation:",
        new="if request.incarnation:",
        killers=(f"{DELIVERING}::test_what_a_run_accepted_that_is_gone_is_asked_of_the_one_after_it",),
    ),
    Mutant(
        name="a-run-goes-because-the-one-before-it-left",
        file=LIVENESS,
        old="if self._leaving.get(name) == incarnation:",
        new="if name in self._leaving:",
        killers=(f"{ALLOCATING}::test_a_run_that_comes_after_one_that_left_stays",),
    ),
    Mutant(
        name="the-time-without-a-connection-is-silence",
        file=LIVENESS,
        old="        self._since = self._listened\n        self._answered_at = None",
        new="        self._since = self._listened",
        killers=(f"{ALLOCATING}::test_nothing_of_the_time_before_it_was_connected_again_is_silence",),
    ),
    Mutant(
        name="who-joins-has-been-silent-for-ever",
        file=LIVENESS,
        old="        self._heard[seen.agent] = self._listened\n        joined[seen.agent]",
        new="        joined[seen.agent]",
        killers=(ALLOCATING,),
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
        old="            self._remember(slot, assignment, outcome=DECLINED, reason=reason, has_plan=assignment.apply)\n",
        new="",
        killers=("tests/agent/test_slot_memory.py",),
    ),
    Mutant(
        name="what-an-earlier-run-accepted-begins-as-often-as-it-is-assigned",
        file=SLOTS,
        old="            self._unbegun.discard(assignment.position)\n            decision.begin",
        new="            decision.begin",
        killers=("tests/agent/test_slot_memory.py",),
    ),
    Mutant(
        name="what-the-log-has-seen-to-start-begins-again",
        file=SLOTS,
        old="if assignment.seen == SEEN_STARTED or self._misfit",
        new="if self._misfit",
        killers=("tests/agent/test_slot_memory.py",),
    ),
    Mutant(
        name="what-has-a-process-on-disk-counts-as-not-begun",
        file=SLOTS,
        old="return not self.started and self.process is None",
        new="return not self.started",
        killers=("tests/agent/test_slot_memory.py",),
    ),
    Mutant(
        name="what-was-not-begun-is-lost-with-the-agent",
        file="services/taskyard/agent/earlier_run.py",
        old="if one.is_unbegun and not marked",
        new="if not one.is_unbegun and not marked",
        killers=(
            "tests/agent/test_agent_takeover.py::test_what_agents_that_were_killed_had_accepted_and_not_begun_begins_once",
        ),
    ),
    Mutant(
        name="a-cancel-of-what-was-never-seen-leaves-no-trace",
        file=SLOTS,
        old="        self._remember(cancel.slot, cancel, outcome=ACCEPTED, end=end)\n",
        new="",
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
    Mutant(
        name="a-journal-that-was-put-back-begins-again-what-the-log-has-seen",
        file=SLOTS,
        old="if assignment.seen != SEEN_NEW and",
        new="if assignment.seen is None and",
        killers=("tests/agent/test_slot_memory.py",),
    ),
    # -- reports -------------------------------------------------------------------------------------------------------
    Mutant(
        name="a-batch-that-is-sent-again-has-another-id",
        file=OUTBOX,
        old=' = {"Nats-Msg-Id": blake2b(payload, digest_size=ID_BYTES).hexdigest()}',
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
    Mutant(
        name="what-comes-while-a-commit-is-written-counts-as-written",
        file=JOURNAL,
        old="            self._durable = announced\n",
        new="            self._durable = self._announced\n",
        killers=(f"{SENT_REPORTS}::test_what_comes_while_a_commit_is_written_waits_for_the_next_one",),
    ),
    Mutant(
        name="every-run-before-is-remembered",
        file=JOURNAL,
        old="WHERE run <= (SELECT max(run) FROM lineage) - ?",
        new="WHERE run <= 0 AND ? > 0",
        killers=(f"{SENT_REPORTS}::test_of_the_runs_before_only_so_many_are_remembered",),
    ),
    Mutant(
        name="a-journal-that-was-put-back-answers-for-the-runs-before",
        file=JOURNAL,
        old=', "DELETE FROM lineage")',
        new=")",
        killers=(SENT_REPORTS,),
    ),
    Mutant(
        name="batches-of-reports-are-unbounded-in-number",
        file=OUTBOX,
        old="len(chunks[-1]) == REPORT_BATCH_MAX or ",
        new="",
        killers=(f"{SENT_REPORTS}::test_reports_go_in_order_in_bounded_batches",),
    ),
    # -- programs and their supervisor ---------------------------------------------------------------------------------
    Mutant(
        name="a-program-begins-before-its-pid-is-on-disk",
        file=ATTEMPT,
        old="        await host.journal.sync()\n        host.supervised.go(program)",
        new="        host.supervised.go(program)\n        await host.journal.sync()",
        killers=(f"{TAKEOVER}::test_a_program_begins_only_after_its_pid_is_on_disk",),
    ),
    Mutant(
        name="a-program-runs-before-it-is-told-to-go",
        file=SUPERVISOR,
        old="                program.pid, program.start_ticks = pid, start_ticks\n",
        new="                program.pid, program.start_ticks = pid, start_ticks\n"
        "                self._go(program.attempt, program.step)\n",
        killers=(f"{SUPERVISED}::test_a_program_waits_until_it_is_told_to_go",),
    ),
    Mutant(
        name="a-step-that-is-started-again-runs-twice",
        file=SUPERVISOR,
        old="        if asked.step in attempt.programs:\n            return\n",
        new="",
        killers=(f"{SUPERVISED}::test_a_step_that_is_started_again_is_the_one_that_runs",),
    ),
    Mutant(
        name="a-later-stop-takes-the-place-of-the-first",
        file=SUPERVISOR,
        old="is not None and attempt.stopped is None:\n                    attempt.stopped = reason",
        new="is not None:\n                    attempt.stopped = reason",
        killers=(f"{SUPERVISED}::test_the_first_stop_counts_with_its_reason_and_its_grace",),
    ),
    Mutant(
        name="an-agent-answers-for-another-of-its-name",
        file=AGENT,
        old="            return  # another of this name may be meant",
        new="            pass  # another of this name may be meant",
        killers=(
            "tests/agent/test_agent_work.py::test_what_is_meant_for_another_incarnation_is_not_answered_since_that_one_has_to",
        ),
    ),
    Mutant(
        name="who-was-replaced-lets-run-what-it-has",
        file=AGENT,
        old="        self._attempts.stop_where(lambda _: True, lambda _: replaced(reason))\n",
        new="",
        killers=(
            "tests/agent/test_agent_restarts.py::test_an_agent_whose_name_another_has_stops_its_work_tells_its_ends_and_goes_with_a_status_of_its_own",
        ),
    ),
    Mutant(
        name="a-clean-stop-ends-an-apply-as-soon-as-anything-else",
        file=AGENT,
        old="self._attempts.force_where(lambda one: not one.apply, leaving)",
        new="self._attempts.force_where(lambda _: True, leaving)",
        killers=(
            "tests/agent/test_agent_terraform.py::test_a_clean_stop_waits_longer_for_an_apply_than_for_anything_else",
        ),
    ),
    Mutant(
        name="a-full-disk-takes-new-work",
        file=AGENT,
        old="is_disk_full=self._disk.is_full",
        new="is_disk_full=False",
        killers=(
            "tests/agent/test_agent_disk.py::test_a_command_that_fills_the_disk_harms_nothing_that_runs_and_all_heals_when_there_is_room",
        ),
    ),
    Mutant(
        name="no-deadline-holds-while-no-agent-lives",
        file=SUPERVISOR,
        old="if attempt.ends_at <= now and not attempt.timed_out:",
        new="if attempt.timed_out and attempt.ends_at <= now:",
        killers=(f"{SUPERVISED}::test_a_deadline_holds_also_while_no_agent_lives",),
    ),
    Mutant(
        name="what-leaves-the-group-outlives-its-program",
        file=KEEPER,
        old="    become_subreaper()\n",
        new="",
        killers=(f"{SUPERVISED}::test_what_leaves_the_group_ends_with_its_program",),
    ),
    Mutant(
        name="output-can-be-read-by-others",
        file="libs/taskyard/private_files.py",
        old="FILE_MODE = 0o600",
        new="FILE_MODE = 0o644",
        killers=(f"{SUPERVISED}::test_of_much_output_the_beginning_and_the_end_are_kept_in_private_files",),
    ),
    Mutant(
        name="of-much-output-the-end-is-lost",
        file=SPOOL,
        old="    in_ring = (offset - room.head) % room.tail\n",
        new="    in_ring = min(offset - room.head, room.tail - 1)\n",
        killers=(f"{SUPERVISED}::test_of_much_output_the_beginning_and_the_end_are_kept_in_private_files",),
    ),
    Mutant(
        name="a-full-disk-takes-the-last-words-too",
        file=SPOOL,
        old="            del self._last[:-LAST_BYTES]",
        new="            del self._last[:]",
        killers=(f"{SUPERVISED}::test_a_squeezed_spool_gives_its_ring_back_and_keeps_the_last_words",),
    ),
    Mutant(
        name="the-reserve-is-not-given-back",
        file=DISK,
        old="            self._reserve.unlink(missing_ok=True)",
        new="            del self._lock",
        killers=(
            "tests/agent/test_agent_disk.py::test_a_reserve_is_kept_and_given_back_when_the_journal_finds_the_disk_full",
        ),
    ),
    Mutant(
        name="the-last-progress-is-dropped",
        file=PROGRESS,
        old="            waiting, self._waiting = self._waiting, None\n            self._send(*waiting)",
        new="            self._waiting = None",
        killers=("tests/agent/test_progress_told.py",),
    ),
    # -- the edges -----------------------------------------------------------------------------------------------------
    Mutant(
        name="of-a-stream-that-was-closed-a-full-disk-takes-the-end",
        file=SPOOL,
        old="        if self._total:\n",
        new="        if self._file is not None:\n",
        killers=(SPOOLED,),
    ),
    Mutant(
        name="a-disk-that-fills-in-the-middle-of-a-write-counts-bytes-twice",
        file=SPOOL,
        old="                data = data[len(data) - self._missing :]\n",
        new="",
        killers=(SPOOLED,),
    ),
    Mutant(
        name="a-deadline-signals-a-second-time-what-is-stopped-already",
        file=KEEPER,
        old="        if self._kill_at is None:\n            self._signal_tree(number)",
        new="        if True:\n            self._signal_tree(number)",
        killers=(f"{KEPT}::test_a_deadline_that_passes_while_a_program_is_stopped_signals_it_no_second_time",),
    ),
    Mutant(
        name="a-program-whose-keeper-is-killed-before-it-was-made-is-waited-for",
        file=KEEPERS,
        old="    if not killed.program:",
        new="    if False:",
        killers=(f"{KEPT}::test_a_program_whose_keeper_is_killed_before_it_was_made_is_told_as_not_started",),
    ),
    Mutant(
        name="a-keeper-that-its-program-has-stopped-stands-still-until-it-is-killed",
        file=KEEPERS,
        old="                os.kill(self.pid, signal.SIGCONT)\n",
        new="",
        killers=(f"{KEPT}::test_a_program_that_has_stopped_its_keeper_gets_its_signal_at_once",),
    ),
    Mutant(
        name="rows-that-fell-behind-are-taken-to-be-as-far-as-was-heard",
        file="services/taskyard/api/position_feed.py",
        old="        if generation != self.generation or sequence < before:",
        new="        if generation != self.generation:",
        killers=("tests/api/test_position_feed.py",),
    ),
    Mutant(
        name="one-input-that-raises-stops-the-loop",
        file=DECIDING,
        old="            decided = self._on_fewer(one, offered, error)",
        new="            raise error",
        killers=(ONE_ITEM,),
    ),
    Mutant(
        name="a-commit-that-is-too-large-is-appended",
        file=DECIDING,
        old="if append is None or len(append.data) <= COMMIT_BYTES_AIM or decision.taken <= 1:",
        new="if append is None or append.data:",
        killers=(f"{ONE_ITEM}::test_a_commit_that_is_too_large_is_decided_again_with_half_the_inputs",),
    ),
    Mutant(
        name="what-waits-is-offered-twice",
        file=INPUTS,
        old="max(self.taken.get(offered.stream, 0), self._waiting.get(offered.stream, 0))",
        new="self.taken.get(offered.stream, 0)",
        killers=("tests/conformance/loop/test_core.py",),
    ),
    Mutant(
        name="an-input-that-cannot-be-refused-stops-the-loop",
        file=DECIDING,
        old="            return Decision(events=[], taken=1, faults=(fault,)), None",
        new="            raise again",
        killers=(ONE_ITEM,),
    ),
    Mutant(
        name="requests-to-agents-are-unbounded-in-bytes",
        file=DELIVERY,
        old=" or size + own > REQUEST_BYTES_MAX",
        new="",
        killers=("tests/machines/test_request_sizes.py",),
    ),
    Mutant(
        name="a-discard-takes-a-task-without-a-plan-out-of-its-place",
        file=ADMISSION,
        old="_ENDING = TaskStopRequested | ForceStopped\n",
        new="_ENDING = TaskStopRequested | ForceStopped | ApplyDiscarded\n",
        killers=("tests/machines/test_scheduler_holds.py",),
    ),
    Mutant(
        name="a-workspace-is-one-lock-in-each-pool-only",
        file=ADMISSION,
        old="        if name in self._locked or state.settings.locks_of(name):",
        new="        if state.settings.locks_of(name) is None:",
        killers=("tests/machines/test_scheduler_holds.py",),
    ),
    Mutant(
        name="a-confirmed-apply-begins-though-its-queue-is-paused",
        file=ADMISSION,
        old="                if self._may_apply(self._state.queue(pool, record.queue), id):",
        new="                if self._state.queue(pool, record.queue):",
        killers=("tests/machines/test_scheduler_holds.py",),
    ),
    Mutant(
        name="a-command-of-any-size-is-stored",
        file=DOORS,
        old="        if len(data) > COMMAND_BYTES_MAX:\n            raise too_large(COMMAND_BYTES_MAX)\n",
        new="",
        killers=(f"{DOORS_TESTED}::test_a_command_that_is_too_large_is_refused_and_not_stored",),
    ),
    Mutant(
        name="the-parts-of-a-batch-for-several-pools-have-one-id",
        file=DOORS,
        old="submission.command if number == 0 else derive_uuid7(submission.command, pool)",
        new="submission.command",
        killers=(f"{DOORS_TESTED}::test_parts_of_a_batch_for_several_pools_have_ids_of_their_own",),
    ),
    Mutant(
        name="refusals-are-as-long-as-they-like",
        file=REFUSALS,
        old="WORDINGS_MAX = 5",
        new="WORDINGS_MAX = 1 << 20",
        killers=("tests/machines",),
    ),
    Mutant(
        name="a-service-that-restarts-for-ever-is-healthy",
        file=LEADERS,
        old="            seen.lacking_since = now if seen.lacking_since is None else seen.lacking_since",
        new="            seen.lacking_since = now",
        killers=("tests/api/test_leaders.py",),
    ),
    Mutant(
        name="nobody-leads-and-all-is-healthy",
        file=LEADERS,
        old="        if seen.leader is None and lacking >",
        new="        if seen.leader is not None and lacking >",
        killers=("tests/api/test_leaders.py",),
    ),
    Mutant(
        name="what-leads-for-a-while-and-dies-again-and-again-is-healthy",
        file=LEADERS,
        old="(begun := self.beginnings(writer, now)) > BEGINNINGS_MAX:",
        new="(begun := self.beginnings(writer, now)) > BEGINNINGS_KEPT_MAX:",
        killers=("tests/api/test_leaders.py",),
    ),
    # -- what a leader remembers, and who is given a slot --------------------------------------------------------------
    Mutant(
        name="a-clock-that-was-set-back-swallows-what-is-observed-later",
        file=INPUTS,
        old="is not None)\n        self._newest.clear()\n",
        new="is not None)\n",
        killers=(f"{CORE}::test_what_is_observed_after_the_logs_clock_was_set_back_is_decided_on",),
    ),
    Mutant(
        name="how-far-inputs-were-read-outlives-a-leadership",
        file=INPUTS,
        old="        self._newest.clear()\n        self._read = None\n\n    def forget",
        new="        self._newest.clear()\n\n    def forget",
        killers=(f"{CORE}::test_who_leads_again_waits_for_its_inputs_to_be_read_again",),
    ),
    Mutant(
        name="a-later-answer-of-how-far-inputs-were-read-puts-deadlines-off",
        file=INPUTS,
        old="        if self._read is None:  # a later",
        new="        if True:  # a later",
        killers=(f"{CORE}::test_a_later_answer_of_how_far_inputs_were_read_does_not_put_an_earlier_one_off",),
    ),
    Mutant(
        name="what-stands-aside-is-looked-at-when-something-else-happens",
        file=ASIDE,
        old="return min(self._until.values(), default=None)",
        new="return None",
        killers=(f"{ONE_OF_MANY}::test_a_kind_that_stands_aside_is_looked_at_again_though_nothing_else_happens",),
    ),
    Mutant(
        name="a-slot-is-given-while-its-worker-is-suspected",
        file=PLACING,
        old="WorkerJoined | WorkerLost | WorkerSuspected)",
        new="WorkerJoined | WorkerLost)",
        killers=(f"{ALLOCATING}::test_no_slot_is_given_in_the_decision_that_suspects_its_worker",),
    ),
    Mutant(
        name="an-apply-is-given-before-it-is-due",
        file=PLACING,
        old="            if record.due <= now:\n                events",
        new="            if True:\n                events",
        killers=(f"{ALLOCATING}::test_an_apply_that_a_clock_ahead_has_scheduled_is_not_given_before_it_is_due",),
    ),
    Mutant(
        name="a-slot-that-was-looked-at-when-placing-raised-is-never-given",
        file=PLACING,
        old="                state.offer_again(pool)  # what was looked at when it raised may be off the list\n",
        new="",
        killers=(f"{ONE_OF_MANY}::test_a_slot_that_was_looked_at_when_placing_raised_is_given_to_what_is_behind_it",),
    ),
    Mutant(
        name="one-that-leaves-joins",
        file=LIVENESS,
        old="heartbeat.leaving or is_taken",
        new="is_taken",
        killers=(f"{ALLOCATING}::test_a_worker_that_leaves_does_not_join",),
    ),
    Mutant(
        name="who-joins-again-is-suspected-for-what-it-did-not-hear-before",
        file=LIVENESS,
        old="        self._unreachable.pop(seen.agent, None)  # that was before\n",
        new="",
        killers=(f"{ALLOCATING}::test_nor_is_one_that_has_held_a_slot_all_the_while",),
    ),
    Mutant(
        name="another-host-keeps-the-one-that-joins-alive",
        file=LIVENESS,
        old="            if joined[seen.agent] == heartbeat.incarnation:",
        new="            if True:",
        killers=(f"{ALLOCATING}::test_nor_does_it_where_both_are_heard_in_the_decision_in_which_one_joins",),
    ),
    Mutant(
        name="after-a-recovery-a-new-reason-goes-untold",
        file=UNWILLING,
        old="            and worker.is_suspect\n",
        new="",
        killers=("tests/machines/test_unwilling_workers.py",),
    ),
    # -- what the dispatcher stops, and what rows show -------------------------------------------------------------------
    Mutant(
        name="an-attempt-whose-end-is-decided-on-is-stopped-for-its-deadline",
        file=DISPATCHING,
        old="            if (record.id, record.attempt) not in self._over:\n                self.events.append(\n",
        new="            if True:\n                self.events.append(\n",
        killers=(f"{DELIVERING}::test_an_end_that_is_decided_on_together_with_its_deadline_is_not_followed_by_a_stop",),
    ),
    Mutant(
        name="what-is-declined-while-its-stop-is-owed-is-lost",
        file=DISPATCHING,
        old="            case Phase.STOPPING:\n                pass  # the stop will be answered\n",
        new="",
        killers=(f"{DELIVERING}::test_an_assignment_that_is_declined_while_its_stop_is_owed_ends_nothing",),
    ),
    Mutant(
        name="all-that-was-ended-by-force-is-remembered",
        file=DISPATCHER_STATE,
        old="        while len(self.closing) > CLOSING_MAX:\n            self._closed(next(iter(self.closing)))\n",
        new="",
        killers=(f"{DELIVERING}::test_of_tasks_that_were_ended_by_force_only_so_many_are_remembered",),
    ),
    Mutant(
        name="what-is-to-be-stopped-beside-the-log-waits-for-another-deadline",
        file=DELIVERY,
        old="        if self._strays or self._retired:\n            return Instant(0)\n",
        new="",
        killers=(f"{DELIVERING}::test_what_is_to_be_stopped_beside_the_log_is_due_at_once_until_it_is_sent",),
    ),
    Mutant(
        name="an-event-that-fails-halfway-is-twice-in-the-history",
        file=PROJECTION,
        old="if task and (not self._history or self._history[-1][1] != position):",
        new="if task:",
        killers=(f"{PROJECTED}::test_an_event_that_fails_when_it_is_in_the_history_already_is_there_once",),
    ),
    Mutant(
        name="a-row-that-was-made-late-is-made-again",
        file=PROJECTION,
        old="                self._rowless.discard(task)\n",
        new="",
        killers=(f"{PROJECTED}::test_a_row_that_was_made_late_is_changed_from_then_on",),
    ),
    Mutant(
        name="what-succeeded-all-the-same-shows-as-stopped",
        file=PROJECTION,
        old=" and record.phase is not Phase.COMPLETED",
        new="",
        killers=(f"{PROJECTED}::test_an_attempt_that_succeeded_though_it_was_stopped_tells_that_it_succeeded",),
    ),
    # -- one item ------------------------------------------------------------------------------------------------------
    Mutant(
        name="one-row-that-is-refused-takes-all-others-of-its-table-along",
        file="services/taskyard/state_projector/store.py",
        old="            if len(rows) > 1:\n                half",
        new="            if len(rows) < 1:\n                half",
        killers=(
            "tests/state_projector/test_rows_aside.py::test_a_task_that_postgresql_cannot_keep_stands_aside_and_all_others_go_on",
        ),
    ),
    Mutant(
        name="that-a-kind-stands-aside-no-more-is-not-told",
        file=PLACING,
        old="if (pool, what) not in aside)",
        new="if (pool, what) in ())",
        killers=(f"{ONE_OF_MANY}::test_that_it_is_over_is_told_though_nothing_waits_any_more",),
    ),
    Mutant(
        name="a-plan-whose-apply-was-declined-stays-when-its-slot-goes-on",
        file=SLOTS,
        old="reason=reason, has_plan=assignment.apply)",
        new="reason=reason)",
        killers=("tests/agent/test_slot_memory.py",),
    ),
    Mutant(
        name="what-was-not-begun-is-given-up-before-the-server-was-there",
        file=AGENT,
        old="        await self._contact.begun.wait()\n",
        new="",
        killers=(
            "tests/agent/test_one_item_of_an_agent.py::test_what_was_not_begun_is_not_given_up_while_the_server_was_never_there",
        ),
    ),
    Mutant(
        name="one-attempt-that-cannot-be-stopped-keeps-the-others-running-without-contact",
        file="services/taskyard/agent/attempts.py",
        old='            with standing_aside("a stop", **_of(attempt.assignment)):\n',
        new="            if True:\n",
        killers=(
            "tests/agent/test_one_item_of_an_agent.py::test_what_stops_one_attempt_without_contact_stops_those_beside_it_though_it_raises",
        ),
    ),
)
