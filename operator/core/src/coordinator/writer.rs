//! When the status is written, and what follows when it is stored.
//!
//! One write at a time, at most one a second and 32 KiB a second (etcd keeps every revision for minutes), none when nothing
//! changed. What comes once in a run and is waited for does not wait for its second: the plan, before which no shard is granted,
//! a verdict that must be stored before work goes on, and the end. What a write contains is acknowledged to workers only when it is stored (P12): status may lag what is
//! published, never lead it.

use hyperflow_api::{ShardJobStatus, ids::ShardIndex};

use super::{Coordinator, Effect, Revision, SessionId, end::SWEEP_MILLIS};
use crate::{Now, status};

/// Least milliseconds between two writes.
const INTERVAL_MILLIS: u64 = 1000;

/// Most bytes a second.
const BYTES_PER_SECOND: u64 = 32 * 1024;

/// Least number of shards that a write reserves ahead: what is granted before the next write is below it.
const RESERVE: u32 = 4096;

#[derive(Clone, Debug)]
struct InFlight {
    revision: Revision,
    knowledge: u64,
    status: Box<ShardJobStatus>,
    reserved: ShardIndex,
    acknowledge: Vec<(SessionId, u64)>,
    ends: bool,
}

/// The state of writing.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    /// Rises with every change that status shows.
    knowledge: u64,
    /// The newest that is stored.
    stored: Option<u64>,
    in_flight: Option<InFlight>,
    last: Option<Box<ShardJobStatus>>,
    not_before: u64,
    revision: u64,
    reserved: ShardIndex,
    granted: u32,
    refusals: u32,
    end_stored: bool,
}

impl Writer {
    /// `reserved` is what the status that was read says.
    pub(super) fn new(reserved: ShardIndex) -> Self {
        Self {
            knowledge: 1,
            stored: None,
            in_flight: None,
            last: None,
            not_before: 0,
            revision: 0,
            reserved,
            granted: 0,
            refusals: 0,
            end_stored: false,
        }
    }

    /// Something changed that status shows.
    pub(super) fn touch(&mut self) {
        self.knowledge += 1;
    }

    /// The raised term is in the API server: grants may go out.
    pub(super) fn term_is_stored(&self) -> bool {
        self.stored.is_some()
    }

    pub(super) fn end_is_stored(&self) -> bool {
        self.end_stored
    }

    /// Shards below this may be granted: a successor knows that they may have been.
    pub(super) fn reserved(&self) -> ShardIndex {
        self.reserved
    }

    pub(super) fn granted(&mut self) {
        self.granted = self.granted.saturating_add(1);
    }

    /// Grants wait for a higher reservation: the next write raises it.
    pub(super) fn reserve_more(&mut self) {
        if self.in_flight.is_none() && self.stored == Some(self.knowledge) {
            self.touch();
        }
    }
}

impl Coordinator {
    /// The status as it stands in the API server, as far as we know.
    pub(crate) fn last_status(&self) -> &ShardJobStatus {
        self.writer.last.as_deref().unwrap_or(&self.seen.status)
    }

    /// Begins a write if one is due.
    pub(super) fn store_status(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.gives_way {
            // This desk closes: the next one begins from the status as it is.
            return;
        }
        if self.next_write(now).is_none_or(|due| now.millis < due) {
            return;
        }
        let reserved = self.reservation();
        let status = Box::new(status::snapshot(self, now, reserved));
        let received = |(&session, seat)| self.workers.get(seat).map(|worker| (session, worker.received));
        let all = self.sessions.iter().filter(|_| self.early.is_empty());
        let acknowledge = all.filter_map(received).filter(|(_, number)| *number > 0).collect();
        self.writer.revision += 1;
        let revision = Revision(self.writer.revision);
        let write = InFlight {
            revision,
            knowledge: self.writer.knowledge,
            reserved,
            acknowledge,
            ends: self.conclusion.is_some(),
            status: status.clone(),
        };
        let same = self.writer.last.as_ref() == Some(&status);
        self.writer.in_flight = Some(write);
        if same {
            return self.status_stored(now, revision, effects);
        }
        effects.push(Effect::StoreStatus { revision, status });
    }

    /// Somebody waits for what the next write says, and no other like it comes in this run. One that was refused waits as
    /// any other does.
    fn write_is_awaited(&self) -> bool {
        let plan = || self.plan.is_some() && self.last_status().plan.is_none();
        let awaited = match self.conclusion {
            Some(_) => !self.writer.end_stored,
            None => plan() || self.verdict_must_be_stored(),
        };
        awaited && self.writer.refusals == 0
    }

    /// When the next write is due, if there is anything to write.
    pub(super) fn next_write(&self, now: Now) -> Option<u64> {
        let writer = &self.writer;
        let clean = writer.stored == Some(writer.knowledge);
        if writer.in_flight.is_some() || clean {
            return None;
        }
        Some(if self.write_is_awaited() { now.millis } else { writer.not_before })
    }

    /// How far ahead shards are reserved: eight times what was granted since the last write, so that a job that goes fast
    /// soon waits for it no more.
    fn reservation(&self) -> ShardIndex {
        let ahead = self.writer.granted.saturating_mul(8).max(RESERVE);
        let through = self.shards.next().saturating_add(ahead).min(self.shards.total());
        through.max(self.writer.reserved)
    }

    pub(super) fn status_stored(&mut self, now: Now, revision: Revision, effects: &mut Vec<Effect>) {
        let Some(write) = self.writer.in_flight.take_if(|write| write.revision == revision) else { return };
        let InFlight { knowledge, status, reserved, acknowledge, ends, .. } = write;
        let size = serde_json::to_vec(&status).map_or(0, |bytes| bytes.len() as u64);
        let first = self.writer.stored.is_none();
        let awaited = self.verdict_must_be_stored();
        if self.writer.last.as_ref() != Some(&status) {
            self.writer.not_before = now.millis + INTERVAL_MILLIS.max(size * 1000 / BYTES_PER_SECOND);
        }
        self.writer.stored = Some(knowledge);
        self.writer.last = Some(status);
        self.writer.reserved = reserved;
        self.writer.granted = 0;
        self.writer.refusals = 0;
        for (session, number) in acknowledge {
            let worker = self.sessions.get(&session).and_then(|seat| self.workers.get_mut(seat));
            if let Some(worker) = worker.filter(|worker| worker.acked < number) {
                worker.acked = number;
                worker.orders.acked_through = Some(number);
            }
        }
        if awaited && !self.verdict_must_be_stored() {
            // Only now a worker may begin to sweep, however long that took.
            self.chore.sweep_by = Some(now.millis + SWEEP_MILLIS);
        }
        if ends && !self.writer.end_stored {
            self.writer.end_stored = true;
            self.announce_end();
            for worker in self.workers.values_mut() {
                worker.orders.leave = true;
            }
        }
        if first {
            self.welcome_known(now, effects);
        }
        if ends {
            effects.push(Effect::Release);
        }
        if first || ends {
            effects.push(Effect::LookAtPool);
        }
    }

    pub(super) fn status_refused(&mut self, now: Now, revision: Revision) {
        if self.writer.in_flight.take_if(|write| write.revision == revision).is_some() {
            self.writer.refusals += 1;
            let wait = 100_u64 << self.writer.refusals.min(5);
            self.writer.not_before = now.millis + wait;
        }
    }
}
