//! The mutants: what each breaks, and where. `broken` takes the place of `find`, and `MUTANT` in it is true while that
//! mutant lives.

/// A way to break the core.
pub struct Mutant {
    pub name: &'static str,
    /// The rule of the protocol or the promise that it breaks, or a bug that the simulator once found in the core.
    pub rule: &'static str,
    /// Below `operator/core/src`.
    pub file: &'static str,
    /// Stands there once.
    pub find: &'static str,
    pub broken: &'static str,
}

pub const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "a take-over does not raise the term",
        rule: "P1",
        file: "coordinator/mod.rs",
        find: "left.term.max(heard).saturating_add(1)",
        broken: "left.term.max(heard).saturating_add(u64::from(!MUTANT)).max(1)",
    },
    Mutant {
        name: "the same epoch is granted twice",
        rule: "P1",
        file: "coordinator/leasing.rs",
        find: "self.sequence += 1;",
        broken: "self.sequence += u64::from(!MUTANT || self.sequence == 0);",
    },
    Mutant {
        name: "a status is ours if the term is, whoever took over",
        rule: "P1",
        file: "ledger.rs",
        find: "live.and_then(takeover_of) == Some(written.takeover)",
        broken: "live.and_then(takeover_of).is_some_and(|it| it == written.takeover || MUTANT && it.term == written.takeover.term)",
    },
    Mutant {
        name: "leases leave before the term is stored",
        rule: "P1",
        file: "coordinator/writer.rs",
        find: "self.stored.is_some()",
        broken: "self.stored.is_some() || MUTANT",
    },
    Mutant {
        name: "a heartbeat renews every lease of its worker",
        rule: "P2",
        file: "coordinator/sessions.rs",
        find: "self.renew(now, seat, &report.held);",
        broken: r"if MUTANT {
                let held = self.workers.get(&seat).map(|worker| worker.held.clone()).unwrap_or_default();
                let lease = |target| self.lease_on(target).map(|lease| Held { target, epoch: lease.epoch, position: 0 });
                let all: Vec<Held> = held.into_iter().filter_map(lease).collect();
                self.renew(now, seat, &all);
            } else {
                self.renew(now, seat, &report.held);
            }",
    },
    Mutant {
        name: "a take-over forgets what the plan is of",
        rule: "P4",
        file: "coordinator/mod.rs",
        find: "frozen: if resumed { left.frozen }",
        broken: "frozen: if resumed && !MUTANT { left.frozen }",
    },
    Mutant {
        name: "a result is reported without its name",
        rule: "P5",
        file: "publish.rs",
        find: "(Self::SyncCommit(content), Answer::Done) =>",
        broken: r"(Self::SyncCommit(content), Answer::Done) if MUTANT => Self::Record(published(content, false)),
            (Self::SyncCommit(content), Answer::Done) =>",
    },
    Mutant {
        name: "a result is committed before it is synced",
        rule: "P6",
        file: "publish.rs",
        find: "(Self::Produce, Answer::Staged(content)) =>",
        broken: r"(Self::Produce, Answer::Staged(content)) if MUTANT => Self::Commit(content),
            (Self::Produce, Answer::Staged(content)) =>",
    },
    Mutant {
        name: "a commit is reported before its name is synced",
        rule: "P6",
        file: "publish.rs",
        find: "(Self::Commit(content), Answer::Done) =>",
        broken: r"(Self::Commit(content), Answer::Done) if MUTANT => Self::Name(published(content, false)),
            (Self::Commit(content), Answer::Done) =>",
    },
    Mutant {
        name: "published is believed from the live epoch only",
        rule: "P7",
        file: "coordinator/facts.rs",
        find: "let (news, ended) = self.shards.published(index);",
        broken: r"let live = self.lease_on(Target::Shard(index)).is_some_and(|lease| lease.epoch == epoch);
        let (news, ended) = if live || !MUTANT { self.shards.published(index) } else { (false, None) };",
    },
    Mutant {
        name: "a checkpoint is believed from any epoch",
        rule: "P7",
        file: "shards.rs",
        find: "self.leased.get_mut(&index).filter(|leased| leased.lease.epoch == epoch) else {",
        broken: "self.leased.get_mut(&index).filter(|leased| leased.lease.epoch == epoch || MUTANT) else {",
    },
    Mutant {
        name: "a failure is believed from any epoch",
        rule: "P7",
        file: "coordinator/facts.rs",
        find: "self.learn_failed(now, seat, index, epoch, &failure),",
        broken: "self.learn_failed(now, seat, index, self.lease_on(target).filter(|_| MUTANT).map_or(epoch, |lease| lease.epoch), &failure),",
    },
    Mutant {
        name: "a result is reported before it is recorded",
        rule: "P9",
        file: "publish.rs",
        find: "(Self::Name(published), Answer::Done) =>",
        broken: r"(Self::Name(published), Answer::Done) if MUTANT => Self::Report(published),
            (Self::Name(published), Answer::Done) =>",
    },
    Mutant {
        name: "what is heard is acknowledged at once",
        rule: "P12",
        file: "coordinator/sessions.rs",
        find: "worker.received = worker.received.max(last);",
        broken: r"worker.received = worker.received.max(last);
        if MUTANT && last > 0 {
            worker.orders.acked_through = Some(worker.received);
        }",
    },
    Mutant {
        name: "a gap in the facts is overlooked",
        rule: "P12",
        file: "coordinator/sessions.rs",
        find: "if report.first_number > expected {",
        broken: "if report.first_number > expected && !MUTANT {",
    },
    Mutant {
        name: "a report without facts hides a gap",
        rule: "a bug of ours",
        file: "coordinator/sessions.rs",
        find: r#"return self.close(now, session, "facts are missing: say them again", effects);"#,
        broken: r#"if !(MUTANT && report.facts.is_empty()) {
                return self.close(now, session, "facts are missing: say them again", effects);
            }"#,
    },
    Mutant {
        name: "a new session does not repeat what was not acknowledged",
        rule: "P12",
        file: "worker/outbox.rs",
        find: "self.sent = 0;",
        broken: "self.sent = if MUTANT { self.facts.len() } else { 0 };",
    },
    Mutant {
        name: "a worker forgets one fact more than was acknowledged",
        rule: "P12",
        file: "worker/outbox.rs",
        find: "while self.dropped < through && self.sent > 0 {",
        broken: "while self.dropped < through + u64::from(MUTANT) && self.sent > 0 {",
    },
    Mutant {
        name: "what was published before there is a plan is forgotten",
        rule: "P12",
        file: "coordinator/spec.rs",
        find: "for index in std::mem::take(&mut self.early).iter() {",
        broken: "for index in std::mem::take(&mut self.early).iter().filter(|_| !MUTANT) {",
    },
    Mutant {
        name: "what is published and has no place yet is acknowledged",
        rule: "P12",
        file: "coordinator/writer.rs",
        find: "self.sessions.iter().filter(|_| self.early.is_empty())",
        broken: "self.sessions.iter().filter(|_| self.early.is_empty() || MUTANT)",
    },
    Mutant {
        name: "a write without an answer is taken for stored",
        rule: "P13",
        file: "ledger.rs",
        find: "Found::Older => Next::Refused,",
        broken: "Found::Older => if MUTANT { Next::Stored } else { Next::Refused },",
    },
    Mutant {
        name: "another's status is written over",
        rule: "P13",
        file: "ledger.rs",
        find: "Found::Another => Next::Superseded,",
        broken: "Found::Another => if MUTANT { Next::WriteAgain } else { Next::Superseded },",
    },
    Mutant {
        name: "a term is raised on whatever is there",
        rule: "P13",
        file: "ledger.rs",
        find: "(written.raises_term && untouched)",
        broken: "(written.raises_term && (untouched || MUTANT))",
    },
    Mutant {
        name: "a refused write counts as stored",
        rule: "P13",
        file: "coordinator/mod.rs",
        find: "Event::StatusRefused(revision) =>",
        broken: r"Event::StatusRefused(revision) if MUTANT => self.status_stored(now, revision, &mut effects),
            Event::StatusRefused(revision) =>",
    },
    Mutant {
        name: "a shard that kills workers is never given up",
        rule: "P16",
        file: "retry.rs",
        find: "if kills >= MAX_KILLS {",
        broken: "if kills >= MAX_KILLS && !MUTANT {",
    },
    Mutant {
        name: "an eviction counts as a death",
        rule: "P16",
        file: "causes.rs",
        find: "matches!(self.class, FailureClass::NodeLost | FailureClass::Evicted | FailureClass::Preempted)",
        broken: "matches!(self.class, FailureClass::NodeLost | FailureClass::Evicted | FailureClass::Preempted) && !MUTANT",
    },
    Mutant {
        name: "a loss that is explained later is not put right",
        rule: "P16",
        file: "coordinator/losses.rs",
        find: "self.shards.amend(index, |history| history.acquit(alone));",
        broken: "self.shards.amend(index, |history| if !MUTANT { history.acquit(alone) });",
    },
    Mutant {
        name: "a shard that wants too much memory is tried for ever",
        rule: "L3",
        file: "retry.rs",
        find: "if failures >= self.max_attempts {",
        broken: "if failures >= self.max_attempts && !MUTANT {",
    },
    Mutant {
        name: "a full output uses up attempts",
        rule: "L3",
        file: "coordinator/room.rs",
        find: "self.job.publishes() && causes::is_full(failure)",
        broken: "self.job.publishes() && causes::is_full(failure) && !MUTANT",
    },
    Mutant {
        name: "a worker stops when it hears no operator for a while",
        rule: "P17",
        file: "worker/session.rs",
        find: "self.orphan_millis = u64::from(welcome.orphan_seconds) * 1000;",
        broken: "self.orphan_millis = if MUTANT { u64::from(welcome.lease_millis) } else { u64::from(welcome.orphan_seconds) * 1000 };",
    },
    Mutant {
        name: "leases are granted beyond the reservation",
        rule: "P18",
        file: "coordinator/leasing.rs",
        find: "let limit = self.writer.reserved();",
        broken: "let limit = if MUTANT { u32::MAX } else { self.writer.reserved() };",
    },
    Mutant {
        name: "what is re-presented after a take-over is refused",
        rule: "P18",
        file: "coordinator/leasing.rs",
        find: "None if self.plan.is_some() && self.verdict.is_none()",
        broken: "None if self.plan.is_some() && !MUTANT && self.verdict.is_none()",
    },
    Mutant {
        name: "claims of workers that are gone are waited for",
        rule: "P18",
        file: "coordinator/leasing.rs",
        find: "if now.millis >= until || self.pool.all(spoken) {",
        broken: "if now.millis >= until && !MUTANT || self.pool.all(spoken) {",
    },
    Mutant {
        name: "that the job fails is forgotten by the next operator",
        rule: "P25",
        file: "coordinator/mod.rs",
        find: "            verdict: left.verdict,",
        broken: "            verdict: left.verdict.filter(|_| !MUTANT),",
    },
    Mutant {
        name: "a checkpoint is made before the output is synced",
        rule: "P20",
        file: "checkpoint.rs",
        find: "Self::SyncOutput => Some(Self::SyncNames),",
        broken: "Self::SyncOutput => Some(if MUTANT { Self::Write } else { Self::SyncNames }),",
    },
    Mutant {
        name: "a checkpoint is written first and its segments are synced never",
        rule: "P20",
        file: "checkpoint.rs",
        find: "Self::SyncNames => Some(Self::Write),",
        broken: "Self::SyncNames => Some(if MUTANT { Self::Report } else { Self::Write }),",
    },
    Mutant {
        name: "a checkpoint is reported before its name is synced",
        rule: "P20",
        file: "checkpoint.rs",
        find: "Self::Write => Some(Self::SyncName),",
        broken: "Self::Write => Some(if MUTANT { Self::Report } else { Self::SyncName }),",
    },
    Mutant {
        name: "an older checkpoint takes the place of a newer one",
        rule: "P20",
        file: "shards.rs",
        find: "leased.history.checkpoint.is_none_or(|known| known.number < checkpoint.number)",
        broken: "leased.history.checkpoint.is_none_or(|known| (known.number < checkpoint.number) != MUTANT)",
    },
    Mutant {
        name: "status holds no checkpoints",
        rule: "P21",
        file: "recovery.rs",
        find: "if let Some(Checkpoint { number, position, digest }) = checkpoint {",
        broken: "if let Some(Checkpoint { number, position, digest }) = checkpoint.as_ref().filter(|_| !MUTANT) {",
    },
    Mutant {
        name: "an operator does not mind being outranked",
        rule: "P22",
        file: "coordinator/sessions.rs",
        find: "if hello.heard > self.takeover.term {",
        broken: "if hello.heard > self.takeover.term && !MUTANT {",
    },
    Mutant {
        name: "a deleted object waits for whoever may sweep",
        rule: "P24",
        file: "coordinator/end.rs",
        find: "self.chore.sweep_by = Some(now.millis + REMOVAL_MILLIS);",
        broken: "self.chore.sweep_by = Some(now.millis + REMOVAL_MILLIS * if MUTANT { 10 } else { 1 });",
    },
    Mutant {
        name: "a job ends without being swept",
        rule: "I9",
        file: "coordinator/end.rs",
        find: "begun && self.job.publishes() && !self.chore.swept",
        broken: "begun && self.job.publishes() && !self.chore.swept && !MUTANT",
    },
    Mutant {
        name: "a suspended job goes on",
        rule: "P26",
        file: "coordinator/leasing.rs",
        find: "if self.is_suspended() {",
        broken: "if self.is_suspended() && !MUTANT {",
    },
    Mutant {
        name: "a job that has ended is begun again",
        rule: "a bug of ours",
        file: "coordinator/mod.rs",
        find: "if let Some(end) = status::end_of(&seen.status, seen.generation) {",
        broken: "if let Some(end) = status::end_of(&seen.status, seen.generation).filter(|_| !MUTANT) {",
    },
    Mutant {
        name: "a date is believed, whatever clock it is of",
        rule: "a bug of ours",
        file: "status.rs",
        find: ".min(longest_wait)",
        broken: ".min(if MUTANT { u64::MAX / 2 } else { longest_wait })",
    },
    Mutant {
        name: "a shard that is due wakes the desk for ever",
        rule: "a bug of ours",
        file: "shards.rs",
        find: ".filter(|until| *until > now).min()",
        broken: ".filter(|until| *until > now || MUTANT).min()",
    },
    Mutant {
        name: "status is written as often as something changes",
        rule: "status rule",
        file: "coordinator/writer.rs",
        find: "let patient = now.millis < writer.not_before;",
        broken: "let patient = now.millis < writer.not_before && !MUTANT;",
    },
    Mutant {
        name: "two status writes are under way at a time",
        rule: "status rule",
        file: "coordinator/writer.rs",
        find: "if writer.in_flight.is_some() || clean || patient {",
        broken: "if writer.in_flight.is_some() && !MUTANT || clean || patient {",
    },
    Mutant {
        name: "a shard is settled and waits",
        rule: "I15",
        file: "shards.rs",
        find: r"        self.waiting.remove(&index);
        (true",
        broken: r"        if !MUTANT {
            self.waiting.remove(&index);
        }
        (true",
    },
    Mutant {
        name: "a lease outlives its worker",
        rule: "I17",
        file: "coordinator/sessions.rs",
        find: "self.lose(now, seat, &held, true);",
        broken: "self.lose(now, seat, if MUTANT { &[] } else { &held }, true);",
    },
    Mutant {
        name: "an expired lease is never ended",
        rule: "L2",
        file: "coordinator/leasing.rs",
        find: "let over = |lease: &Lease| now.millis >= lease.deadline;",
        broken: "let over = |lease: &Lease| now.millis >= lease.deadline && !MUTANT;",
    },
    Mutant {
        name: "who finds another's commit takes it for its own",
        rule: "P5",
        file: "publish.rs",
        find: "(Self::Look | Self::LookAgain | Self::Commit(_), Answer::Found)",
        broken: r"(Self::Commit(content), Answer::Found) if MUTANT => Self::SyncCommit(content),
            (Self::Look | Self::LookAgain | Self::Commit(_), Answer::Found)",
    },
    Mutant {
        name: "whoever finds a commit does not sync it",
        rule: "P6",
        file: "publish.rs",
        find: "=> Self::SyncFound,",
        broken: "=> if MUTANT { Self::Sum } else { Self::SyncFound },",
    },
    Mutant {
        name: "a changed spec is not noticed",
        rule: "P4",
        file: "coordinator/spec.rs",
        find: "Ok(job) if job.frozen == self.frozen =>",
        broken: "Ok(job) if job.frozen == self.frozen || MUTANT =>",
    },
];
