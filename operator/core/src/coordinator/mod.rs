//! The operator's end: what happens to one ShardJob, decided.
//!
//! The desk, a task of the operator, feeds events in through [`Coordinator::handle`] and carries the effects out. All that
//! is known is in here; the status is a snapshot of it, stored at most once a second unless it is waited for, and what a
//! worker is told is committed is never ahead of what is stored (P12).
//!
//! | concern | file |
//! | --- | --- |
//! | sessions of workers: who may speak, heartbeats, acknowledgements | `sessions.rs` |
//! | news from workers: what each fact changes | `facts.rs` |
//! | what comes in and what goes out | `events.rs` |
//! | who gets which shard next, and when leases end | `leasing.rs` |
//! | what the resource asks for: planning, changes, suspending | `spec.rs` |
//! | workers that were lost, and who pays | `losses.rs` |
//! | nodes that take no leases | `nodes.rs` |
//! | what a failure costs, by the rules of the spec | `ruling.rs` |
//! | an output that is full | `room.rs` |
//! | who is too slow for what is left; what gets a second attempt | `speed.rs`, `stragglers.rs` |
//! | work for one worker before and after all shards | `chore.rs` |
//! | copies of the input on nodes' disks: who is told what, which shard is near | `blocks.rs` |
//! | names and results that belong to another job | `claims.rs` |
//! | how and when the job ends | `end.rs`, its last command `finishing.rs`, its time `deadline.rs` |
//! | which run this is, and how the next begins | `runs.rs` |
//! | how many pods, and which must go | `pool.rs`, `outdated.rs` |
//! | when the status is written, and what follows when it is stored | `writer.rs` |

mod blocks;
mod chore;
mod claims;
mod deadline;
mod end;
mod events;
mod facts;
mod finishing;
mod leasing;
mod losses;
mod nodes;
mod outdated;
mod pool;
mod room;
mod ruling;
mod runs;
mod sessions;
mod spec;
mod speed;
mod stragglers;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::{BTreeMap, BTreeSet};

pub(crate) use end::{Verdict, success};
pub use events::{Announcement, Effect, Event, Limits, Node, Pod, Revision, Seen, SessionId, WantedPods};
pub(crate) use facts::shorten;
use hyperflow_api::{
    ids::{Takeover, WorkerId},
    message::{Held, Orders, Planned, StoredReport, Target},
    replica::Host,
    status::{FailureSample, ShardCounts},
};
pub use leasing::{STATUS_BYTES, WINDOW};
pub use outdated::workers_digest;
pub use pool::STARTING;
pub use runs::made_of;

use crate::{
    Now,
    blocks::Keeper,
    clock::Clock,
    estimate::Estimate,
    job::{Job, Refusal},
    ranges::RangeSet,
    reasons::NotNow,
    shards::{Seat, Shards},
    status,
};

/// A worker process in session, or one that just lost its session.
#[derive(Clone, Debug)]
pub(crate) struct Worker {
    pub(crate) id: WorkerId,
    /// The node of its pod, once the pod is known.
    node: String,
    /// Its stream; none for a short while after it broke.
    pub(crate) session: Option<SessionId>,
    /// Its pod is known and it may be given work.
    pub(crate) welcomed: bool,
    /// Leases that it said it holds, until it is welcomed.
    claims: Vec<Held>,
    slots: u32,
    /// Where it keeps blocks, if it does.
    host: Option<Host>,
    capacity: u32,
    leaving: bool,
    held: BTreeSet<Target>,
    speed: speed::Speed,
    /// How often its container had ended when it was welcomed: the next end is its own.
    ends: u32,
    /// When the hello came, or the stream broke.
    since: u64,
    /// When it last said anything.
    heard: u64,
    /// What `heard` was when something of it was last lost.
    lost_at: Option<u64>,
    /// Facts of this session are known up to this number (P12).
    received: u64,
    /// And acknowledged up to this one.
    acked: u64,
    /// Gathered for the next flush.
    orders: Orders,
}

/// All that is known of one job.
#[derive(Clone, Debug)]
pub struct Coordinator {
    limits: Limits,
    pub(crate) job: Job,
    pub(crate) seen: Seen,
    brief: String,
    workers_digest: String,
    pub(crate) takeover: Takeover,
    /// The higher term that a worker was welcomed under.
    outranked: Option<u64>,
    sequence: u64,
    /// Which run this is, from 1 (P25).
    pub(crate) run: u32,
    /// The `spec.rerun.nonce` that was seen last.
    pub(crate) nonce: Option<String>,
    /// Another run is asked for: this desk closes, and the next one begins it.
    gives_way: bool,
    pub(crate) plan: Option<(Planned, i64)>,
    /// Digest of the frozen part of the spec that the plan is of (P4), which the spec may not be any more.
    pub(crate) frozen: String,
    pub(crate) shards: Shards,
    /// Published, says a worker, and there is no plan: the API server was restored from a state before it. Nothing is
    /// acknowledged until these have their place in the plan, which is the same one (P12).
    early: RangeSet,
    chore: chore::Chore,
    /// What was published, for people.
    pub(crate) report: Option<StoredReport>,
    /// Why nothing more is leased.
    pub(crate) not_now: NotNow,
    /// Decided, though perhaps not swept yet.
    pub(crate) verdict: Option<Verdict>,
    /// Final: to be stored.
    pub(crate) conclusion: Option<(Verdict, i64)>,
    pub(crate) failures: Vec<FailureSample>,
    pub(crate) workers: BTreeMap<Seat, Worker>,
    seats: BTreeMap<WorkerId, Seat>,
    sessions: BTreeMap<SessionId, Seat>,
    pub(crate) pool: pool::Pool,
    nodes: nodes::Nodes,
    losses: losses::Losses,
    elsewhere: ruling::Elsewhere,
    pub(crate) room: room::Room,
    pub(crate) estimate: Estimate,
    pace: stragglers::Pace,
    pub(crate) blocks: Keeper,
    /// Until when workers wait for a shard that is near them.
    patience: BTreeMap<Seat, u64>,
    /// How long the job is active.
    pub(crate) clock: Clock,
    /// Until then, workers of an earlier operator may claim what they hold (P18).
    claims_until: Option<u64>,
    writer: writer::Writer,
    announcements: Vec<Announcement>,
}

impl Coordinator {
    /// Takes a job over: reads what an earlier operator left in `seen.status`, raises the term (P1), and grants nothing
    /// before the status that says so is stored. `random` are 64 bits drawn now; `heard` is the highest term that workers
    /// speak of, or 0: after the API server was restored from an older state it is above the status' own.
    ///
    /// # Errors
    /// When the spec is not sound, or the notes cannot be read.
    pub fn take_over(now: Now, seen: &Seen, random: u64, heard: u64, limits: Limits) -> Result<Self, Refusal> {
        let job = Job::check(&seen.spec)?;
        let left = status::Left::read(now, &seen.status, limits.lease_millis, job.retry.longest_wait())
            .map_err(|error| Refusal { field: "status.recovery", message: error.to_string() })?;
        let resumed = left.plan.is_some();
        let mut coordinator = Self {
            limits,
            brief: spec::brief(seen, left.run),
            run: left.run,
            nonce: left.nonce,
            gives_way: false,
            workers_digest: workers_digest(&seen.spec),
            outranked: None,
            takeover: Takeover { term: left.term.max(heard).saturating_add(1), random },
            sequence: 0,
            frozen: if resumed { left.frozen } else { job.frozen.clone() },
            plan: left.plan,
            shards: left.shards,
            early: RangeSet::default(),
            chore: chore::Chore { finalized: left.finalized, ..chore::Chore::default() },
            report: None,
            not_now: NotNow::TermNotStored,
            verdict: left.verdict,
            conclusion: None,
            failures: left.failures,
            workers: BTreeMap::new(),
            seats: BTreeMap::new(),
            sessions: BTreeMap::new(),
            pool: pool::Pool::new(random),
            nodes: nodes::Nodes::default(),
            losses: losses::Losses::new(),
            elsewhere: ruling::Elsewhere::new(),
            room: room::Room::left(&seen.status),
            estimate: Estimate::default(),
            pace: stragglers::Pace::default(),
            blocks: Keeper::default(),
            patience: BTreeMap::new(),
            clock: left.clock,
            claims_until: resumed.then_some(now.millis + limits.lease_millis),
            writer: writer::Writer::new(left.reserved_through),
            announcements: Vec::new(),
            seen: seen.clone(),
            job,
        };
        let begun = coordinator.begin_run(now);
        coordinator.restore_blocks(now, left.blocks);
        if let Some(end) = status::end_of(&seen.status, seen.generation).filter(|_| !begun) {
            (coordinator.verdict, coordinator.conclusion) = (Some(end.0.clone()), Some(end));
            return Ok(coordinator);
        }
        if coordinator.verdict.is_some() {
            coordinator.chore.sweep_by = Some(now.millis + end::SWEEP_MILLIS);
        }
        coordinator.mind_clock(now);
        coordinator.plan_numbers(now);
        if coordinator.seen.deleting {
            coordinator.remove_job(now);
        }
        Ok(coordinator)
    }

    /// The one door: what happened goes in, what to do comes out.
    pub fn handle(&mut self, now: Now, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::JobSeen(seen) => self.job_seen(now, *seen, &mut effects),
            Event::PodsSeen(pods) => self.pods_seen(now, pods, &mut effects),
            Event::NodesSeen(nodes) => self.nodes_seen(now, nodes, &mut effects),
            Event::PodRefused(reason, message) => self.pod_refused(now, reason, message),
            Event::SessionOpened { session, hello } => self.session_opened(now, session, hello, &mut effects),
            Event::SessionClosed(session) => self.session_closed(now, session),
            Event::Reported { session, report } => self.reported(now, session, report, &mut effects),
            Event::StatusStored(revision) => self.status_stored(now, revision, &mut effects),
            Event::StatusRefused(revision) => self.status_refused(now, revision),
            Event::OwnerSeen { uid, lives } => self.owner_seen(now, &uid, lives),
            Event::Flush => self.flush(now, &mut effects),
        }
        #[cfg(debug_assertions)]
        crate::invariants::check(self);
        effects
    }

    /// When the next [`Event::Flush`] is due even if nothing happens, in milliseconds. After a flush this is later than now.
    #[must_use]
    pub fn next_wake(&self, now: Now) -> u64 {
        let idle = now.millis + 1000;
        [
            self.next_lease_wake(now),
            self.next_write(now),
            self.claims_until,
            self.next_session_wake(),
            self.next_patience_wake(now),
        ]
        .into_iter()
        .flatten()
        .fold(idle, u64::min)
        .max(now.millis)
    }

    /// Who speaks: stored with the status, and compared by whoever finds another's.
    #[must_use]
    pub fn takeover(&self) -> Takeover {
        self.takeover
    }

    /// The end is stored; when the pool is empty too, nothing is left to do. Or another run is asked for, which the next
    /// coordinator begins from the status as it is then.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.gives_way || self.writer.end_is_stored() && self.pool.is_empty()
    }

    /// A worker was welcomed under this higher term: nothing more is to be done under ours. Another coordinator begins,
    /// from the status as it is then and with this term as `heard`.
    #[must_use]
    pub fn outranked(&self) -> Option<u64> {
        self.outranked
    }

    /// Why nothing more is leased just now.
    #[must_use]
    pub fn not_now(&self) -> NotNow {
        self.not_now
    }

    /// Counts for metrics; status has the same.
    #[must_use]
    pub fn counts(&self) -> ShardCounts {
        status::counts(&self.shards)
    }

    /// The state of every shard.
    #[must_use]
    pub fn shards(&self) -> &Shards {
        &self.shards
    }

    /// Chance of this take-over, for whatever must differ from the next.
    fn seed(&self) -> u64 {
        self.takeover.random
    }

    fn announce(&mut self, warning: bool, reason: &'static str, message: String) {
        self.announcements.push(Announcement { warning, reason, message });
    }

    fn flush(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.end_what_ran_out(now, effects);
        self.let_claims_fall(now);
        self.conclude(now, effects);
        self.mind_blocks(now);
        self.grant(now);
        self.tell_access(now);
        self.ask_for_owner(effects);
        self.watch_starting(now);
        self.watch_stranded(effects);
        for worker in self.workers.values_mut() {
            worker.speed.holds(now.millis, !worker.held.is_empty());
        }
        self.store_status(now, effects);
        self.send_orders(effects);
        effects.extend(self.announcements.drain(..).map(Effect::Announce));
    }
}
