//! The worker's end: what one worker process does, decided.
//!
//! The shell feeds events in through [`Worker::handle`] and carries the effects out: it opens streams, runs attempts,
//! and tells what became of them. It never chooses.
//!
//! ```text
//!                 Welcome                  Grant                     Ended
//! Connected ──▶ (greeting) ──▶ in session ───────▶ queued ─▶ running ──────▶ fact kept until acknowledged (P12)
//!                                  │ Disconnected: runs go on (P17), facts wait for the next session
//!                                  ▼ orphaned too long, told to leave, or SIGTERM
//!                               leaving ──▶ Exit
//! ```

mod outbox;
mod runs;
mod session;
mod stock;
#[cfg(test)]
mod tests;

use hyperflow_api::{
    ids::{JobUid, ShardIndex, WorkerId},
    message::{
        Checkpoint, Fact, Failure, FromOperator, FromWorker, Grant, Hello, News, Orders, Owner, PROTOCOL, PlanRef,
        Planned, Published, Report, Revoked, StoredReport, Welcome,
    },
    replica::{BlockOrder, Holdings, Host},
};

use crate::Now;
use outbox::Outbox;
use runs::{Accepted, Runs};
use session::Session;
use stock::Stock;

/// An attempt in this process, whatever its epoch is by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunId(pub u64);

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A stream to an operator is open. The answer to it is a `Hello`.
    Connected,
    /// The stream is gone, or could not be opened.
    Disconnected,
    /// The operator said something.
    Heard(FromOperator),
    /// An attempt read its shard's input up to here.
    Progressed {
        /// Which.
        run: RunId,
        /// Bytes of the shard's input.
        position: u64,
    },
    /// An attempt has a new durable checkpoint (P20).
    Checkpointed {
        /// Which.
        run: RunId,
        /// It.
        checkpoint: Checkpoint,
    },
    /// An attempt is over. Every `Start` is answered by exactly one of these.
    Ended {
        /// Which.
        run: RunId,
        /// How.
        outcome: Outcome,
    },
    /// The block store was looked through, or has changed.
    Stocked(Holdings),
    /// The process was asked to stop (SIGTERM): checkpoint, hand back, leave.
    Terminate,
    /// Nothing more happened just now: send what has gathered. Also the clock's tick.
    Flush,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The shard's result is visible and durable, by this attempt or an earlier one (P5, P6).
    Published(Published),
    /// The plan is stored.
    Planned(Planned),
    /// The names of the results belong to another job, which may be gone (P31).
    Claimed(Owner),
    /// The last command has succeeded, and its result, if it has one, is visible and durable.
    Finalized,
    /// Nothing temporary is left, and the report, if there is one, is stored.
    Swept(Option<StoredReport>),
    /// It could not be done.
    Failed(Failure),
    /// Stopped because it was told to; the last checkpoint stands.
    Stopped,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Say this on the open stream.
    Send(FromWorker),
    /// Close the stream and look for another operator.
    Disconnect(&'static str),
    /// The operator's welcome, to configure attempts with. Comes before the first `Start`.
    Configure(Box<Welcome>),
    /// Use this plan from now on. Comes before the first `Start` of a shard.
    UsePlan(PlanRef),
    /// Begin an attempt once one of the slots is free: those that were started before come first.
    Start(Assignment),
    /// Do this with the block store.
    Blocks(BlockOrder),
    /// End an attempt.
    Stop {
        /// Which.
        run: RunId,
        /// How.
        how: Stop,
    },
    /// The shard is committed and status knows: its segments and checkpoints can go.
    Clean(ShardIndex),
    /// Nothing is left to do: end the process.
    Exit(&'static str),
}

/// An attempt to make.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Assignment {
    /// Names it from now on.
    pub run: RunId,
    /// The lease. Files are named by its epoch, also when the lease is re-issued under another.
    pub grant: Grant,
}

/// How to end an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Make a checkpoint first: the worker leaves.
    AfterCheckpoint,
    /// At once: the lease is fenced.
    Now,
}

/// A worker that leaves, and whose attempts have ended, waits so long for its last facts to be acknowledged.
const FAREWELL_MILLIS: u64 = 1500;

/// Attempts may take so long to end, if nobody says otherwise.
const GRACE_MILLIS: u64 = 1500;

/// Leases are prefetched for so long ahead, and at most so many: what is prefetched is lost to others for a moment.
const PREFETCH_MILLIS: u32 = 50;
const PREFETCH_MOST: u32 = 384;

/// Short attempts have others in line, as many as are done in so long and at most so many for each slot: a slot that is free
/// then goes on at once. To wait until the session has heard of an end costs as much as a short program.
const LINE_UP_MILLIS: u32 = 10;
const LINE_UP_MOST: u32 = 8;

/// While there is enough in line, what attempts say is heard after so long, all of it at once.
const REST_MILLIS: u32 = 2;

/// Results may wait so long for others, to be told together, while there is other work here.
const GATHER_MILLIS: u64 = 10;

/// With so many facts that no operator has acknowledged, no more work is taken: they must be kept in memory.
const UNACKNOWLEDGED_MOST: usize = 200_000;

/// Why no more work is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    /// SIGTERM, or no operator for too long: the process ends.
    Ends {
        since: u64,
        reason: &'static str,
        /// Since when nothing runs any more.
        idle: Option<u64>,
    },
    /// The job is over: the process waits for its pod to be deleted, for a container that exits is started again.
    Rests,
}

/// One worker process.
#[derive(Clone, Debug)]
pub struct Worker {
    job: JobUid,
    id: WorkerId,
    slots: u32,
    session: Session,
    runs: Runs,
    outbox: Outbox,
    host: Option<Host>,
    stock: Stock,
    /// Since when results wait to be told together.
    gathering: Option<u64>,
    leaving: Option<Leaving>,
    grace: u64,
}

impl Worker {
    /// A process of `job`'s pool that has just begun.
    #[must_use]
    pub fn new(now: Now, job: JobUid, id: WorkerId, slots: u32) -> Self {
        let (session, runs, outbox) = (Session::new(now.millis), Runs::default(), Outbox::default());
        Self {
            job,
            id,
            slots: slots.max(1),
            session,
            runs,
            outbox,
            host: None,
            stock: Stock::default(),
            gathering: None,
            leaving: None,
            grace: GRACE_MILLIS,
        }
    }

    /// The same, whose attempts have so many milliseconds to end when it leaves: a program may need them to write its
    /// checkpoint.
    #[must_use]
    pub fn with_grace(self, millis: u64) -> Self {
        Self { grace: millis, ..self }
    }

    /// The same, which keeps blocks.
    #[must_use]
    pub fn with_host(self, host: Host) -> Self {
        Self { host: Some(host), ..self }
    }

    /// The one door: what happened goes in, what to do comes out.
    pub fn handle(&mut self, now: Now, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Connected => {
                self.session.greet();
                let (job, worker, held) = (self.job.clone(), self.id.clone(), self.runs.held());
                let heard = self.session.highest_term();
                let (slots, host) = (self.slots, self.host.clone());
                let hello = Hello { protocol: PROTOCOL, job, worker, slots, held, heard, host };
                effects.push(Effect::Send(FromWorker::Hello(hello)));
            }
            Event::Disconnected => {
                self.gathering = None;
                self.session.close(now.millis);
            }
            Event::Heard(message) => self.heard(now, message, &mut effects),
            Event::Progressed { run, position } => self.runs.progressed(run, position),
            Event::Checkpointed { run, checkpoint } => self.checkpointed(run, checkpoint),
            Event::Ended { run, outcome } => self.ended(now, run, outcome),
            Event::Stocked(holdings) => self.stock.news(holdings),
            Event::Terminate => self.leave(now, "asked to terminate", &mut effects),
            Event::Flush => self.flush(now, &mut effects),
        }
        let lined_up = self.runs.prefetch(self.slots, LINE_UP_MILLIS, self.slots.saturating_mul(LINE_UP_MOST));
        while self.leaving.is_none()
            && let Some((run, grant)) = self.runs.start(now.millis, self.slots, lined_up)
        {
            effects.push(Effect::Start(Assignment { run, grant }));
        }
        effects
    }

    /// When the next [`Event::Flush`] is due even if nothing happens, in milliseconds. After a flush this is later than
    /// the time of that.
    #[must_use]
    pub fn next_wake(&self) -> u64 {
        let end = match self.leaving {
            Some(Leaving::Ends { since, idle, .. }) => self.last_moment(since, idle),
            Some(Leaving::Rests) | None => self.session.orphaned_at(),
        };
        let gathered = self.gathering.map(|since| since + GATHER_MILLIS);
        self.session.next_beat().into_iter().chain(gathered).fold(end, u64::min)
    }

    /// For how many milliseconds nobody need listen to attempts: no slot will be without work until then.
    #[must_use]
    pub fn may_rest(&self) -> u64 {
        let enough = self.runs.prefetch(self.slots, 2 * REST_MILLIS, u32::MAX).max(self.slots);
        let rests = self.leaving.is_none() && self.runs.in_line() >= enough as usize;
        if rests { u64::from(REST_MILLIS) } else { 0 }
    }

    /// An operator has welcomed this process and is still heard.
    #[must_use]
    pub fn is_in_session(&self) -> bool {
        self.session.is_open()
    }

    fn heard(&mut self, now: Now, message: FromOperator, effects: &mut Vec<Effect>) {
        self.session.heard(now.millis);
        match message {
            FromOperator::Welcome(welcome) => {
                if self.session.welcome(now.millis, &welcome) {
                    self.outbox.begin_session();
                    self.stock.begin_session(self.host.as_ref().is_some_and(|host| host.persistent));
                    effects.push(Effect::Configure(Box::new(welcome)));
                } else {
                    effects.push(Effect::Disconnect("an operator of a lower term answered"));
                }
            }
            FromOperator::Orders(orders) if self.session.is_open() => self.obey(now, orders, effects),
            FromOperator::Orders(_) => {}
        }
    }

    fn obey(&mut self, now: Now, orders: Orders, effects: &mut Vec<Effect>) {
        if let Some(plan) = orders.plan {
            effects.push(Effect::UsePlan(plan));
        }
        effects.extend(orders.blocks.into_iter().map(Effect::Blocks));
        for Revoked { target, epoch } in orders.revoked {
            let run = self.runs.fence(target, epoch);
            effects.extend(run.map(|run| Effect::Stop { run, how: Stop::Now }));
        }
        for grant in orders.grants {
            let Grant { target, epoch, .. } = grant;
            let unknown = self.leaving.is_some() || matches!(self.runs.accept(grant), Accepted::Unknown);
            if unknown {
                self.outbox.push(Fact { target, epoch, news: News::Released });
            }
        }
        if let Some(through) = orders.acked_through {
            effects.extend(self.outbox.acknowledge(through).into_iter().map(Effect::Clean));
        }
        if orders.leave && self.leaving.is_none() {
            self.leave(now, "the job is over", effects);
            self.leaving = Some(Leaving::Rests);
        }
    }

    fn checkpointed(&mut self, run: RunId, checkpoint: Checkpoint) {
        let Some(&runs::Run { target, epoch, fenced: false, .. }) = self.runs.get(run) else { return };
        self.runs.progressed(run, checkpoint.position);
        self.outbox.push(Fact { target, epoch, news: News::Checkpointed(checkpoint) });
    }

    fn ended(&mut self, now: Now, run: RunId, outcome: Outcome) {
        let Some(runs::Run { target, epoch, fenced, .. }) = self.runs.end(now.millis, run) else { return };
        let news = match outcome {
            // A fact about the store, whoever holds the lease by now (P7).
            Outcome::Published(published) => News::Published(published),
            _ if fenced => return,
            Outcome::Planned(planned) => News::Planned(planned),
            Outcome::Claimed(owner) => News::Claimed(owner),
            Outcome::Finalized => News::Finalized,
            Outcome::Swept(report) => News::Swept(report),
            Outcome::Failed(failure) => News::Failed(failure),
            Outcome::Stopped => News::Released,
        };
        self.outbox.push(Fact { target, epoch, news });
    }

    /// Takes no more work, hands back what was not begun, and lets the rest make a checkpoint.
    fn leave(&mut self, now: Now, reason: &'static str, effects: &mut Vec<Effect>) {
        if matches!(self.leaving, Some(Leaving::Ends { .. })) {
            return;
        }
        self.leaving = Some(Leaving::Ends { since: now.millis, reason, idle: None });
        for Grant { target, epoch, .. } in self.runs.drain_queue() {
            self.outbox.push(Fact { target, epoch, news: News::Released });
        }
        let stop = |run| Effect::Stop { run, how: Stop::AfterCheckpoint };
        effects.extend(self.runs.live().into_iter().map(stop));
    }

    fn capacity(&self) -> u32 {
        if self.leaving.is_some() || self.outbox.len() >= UNACKNOWLEDGED_MOST {
            return 0;
        }
        self.slots + self.runs.prefetch(self.slots, PREFETCH_MILLIS, PREFETCH_MOST)
    }

    fn flush(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.session.is_orphaned(now.millis) {
            self.leave(now, "no operator was heard for too long", effects);
        }
        if self.session.is_open() {
            self.report(now, effects);
        }
        if let Some(Leaving::Ends { since, reason, idle }) = self.leaving {
            let idle = idle.or_else(|| self.runs.is_empty().then_some(now.millis));
            self.leaving = Some(Leaving::Ends { since, reason, idle });
            let said = idle.is_some() && self.outbox.is_empty();
            if said || now.millis >= self.last_moment(since, idle) {
                effects.push(Effect::Exit(reason));
            }
        }
    }

    /// When a worker that leaves since then ends, whatever has not been said.
    fn last_moment(&self, since: u64, idle: Option<u64>) -> u64 {
        idle.map_or(since + self.grace, |idle| (idle + FAREWELL_MILLIS).min(since + self.grace.max(FAREWELL_MILLIS)))
    }

    /// Whether what there is to tell waits for more: results only, and not for long. Half of the work that is held ahead is
    /// still there, so that no slot will wait for what the answer brings.
    fn gathers(&mut self, now: u64) -> bool {
        let ahead = self.capacity().saturating_sub(self.slots);
        let waits = self.leaving.is_none()
            && ahead > 0
            && 2 * self.runs.waiting() >= ahead as usize
            && self.outbox.has_only_results()
            && now < self.gathering.unwrap_or(now).saturating_add(GATHER_MILLIS);
        if waits {
            self.gathering.get_or_insert(now);
        }
        waits
    }

    fn report(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let beat = self.session.beat(now.millis);
        if !beat && self.gathers(now.millis) {
            return;
        }
        self.gathering = None;
        let capacity = self.capacity();
        let news = self.session.say_capacity(capacity);
        let (first_number, facts) = self.outbox.unsent();
        let holdings = self.stock.untold();
        if beat || news || !facts.is_empty() || holdings.is_some() {
            let held = if beat { self.runs.held() } else { Vec::new() };
            let leaving = self.leaving.is_some();
            let report = Report { beat, held, capacity, leaving, first_number, facts, holdings };
            effects.push(Effect::Send(FromWorker::Report(report)));
        }
    }
}
