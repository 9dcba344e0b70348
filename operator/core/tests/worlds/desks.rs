//! The operator's desks: the real coordinator, and what it says when it is told something.

use std::panic::{AssertUnwindSafe, catch_unwind};

use hyperflow_api::{
    ShardJobStatus,
    ids::JobUid,
    message::{FromOperator, FromWorker},
};
use hyperflow_core::{
    Now,
    coordinator::{Coordinator, Effect, Event, Limits, Pod, Revision, Seen, SessionId, WantedPods},
    invariants::{self, Broken},
    ranges::RangeSet,
    status::is_terminal,
};

use super::{
    kept::{self, Kept, Shelf, Steps},
    promises::{CORE, POOL},
    world::{LEASE_MILLIS, WORKERS},
};

/// A status, and what of it the world asks for.
#[derive(Debug)]
pub struct Status {
    pub whole: ShardJobStatus,
    pub done: RangeSet,
    pub failed: RangeSet,
    pub reserved: u32,
    pub ended: bool,
}

impl Status {
    fn keep(whole: ShardJobStatus, shelf: &Shelf<Self>) -> Kept<Self> {
        let shards = whole.shards.clone().unwrap_or_default();
        let reserved = whole.recovery.as_ref().map_or(0, |notes| notes.reserved_through);
        let text = format!("{whole:?}");
        let status = Self {
            done: shards.completed_indexes.parse().expect("indexes"),
            failed: shards.failed_indexes.parse().expect("indexes"),
            reserved: u32::try_from(reserved).unwrap_or(0),
            ended: is_terminal(&whole, 1),
            whole,
        };
        shelf.keep(status, &text)
    }
}

/// One operator process that has the job.
#[derive(Debug)]
pub struct Desk {
    pub core: Coordinator,
    /// The write that it waits for.
    write: Option<Revision>,
    /// What it read when it took over, which it asks for until its own is stored.
    base: u128,
}

/// What a desk is told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Told {
    TakeOver { status: Kept<Status>, random: u64, heard: u64 },
    Flush,
    Said { session: u64, message: Kept<FromWorker> },
    Closed { session: u64 },
    Stored,
    Refused,
}

/// What it says to that.
#[derive(Debug)]
pub enum Says {
    Send { session: u64, message: Kept<FromOperator> },
    Close { session: u64 },
    Store(Kept<Status>),
}

/// What follows.
#[derive(Debug)]
pub struct Turn {
    pub desk: Option<Kept<Desk>>,
    pub says: Vec<Says>,
    /// A worker knows this higher term.
    pub outranked: Option<u64>,
    pub broken: Option<Broken>,
}

/// All turns of all desks.
pub struct Desks {
    job: Seen,
    /// A desk may open several letters before it flushes; else it flushes after each.
    batches: bool,
    shelf: Shelf<Desk>,
    statuses: Shelf<Status>,
    steps: Steps<(Option<Kept<Desk>>, Told, u64), Turn>,
}

impl Desks {
    pub fn new(job: Seen, batches: bool) -> Self {
        Self { job, batches, shelf: Shelf::new(), statuses: Shelf::new(), steps: Steps::new() }
    }

    pub fn turn(&self, now: Now, desk: Option<&Kept<Desk>>, told: Told) -> std::sync::Arc<Turn> {
        let key = (desk.cloned(), told.clone(), now.millis);
        self.steps.take(key, || {
            let turn = AssertUnwindSafe(|| self.take_turn(now, desk, told));
            catch_unwind(turn).unwrap_or_else(|panic| Turn {
                desk: None,
                says: Vec::new(),
                outranked: None,
                broken: Some(panicked(panic.as_ref())),
            })
        })
    }

    fn take_turn(&self, now: Now, desk: Option<&Kept<Desk>>, told: Told) -> Turn {
        let (mut core, mut write, base) = match (&told, desk) {
            (Told::TakeOver { status, random, heard }, _) => {
                let seen = Seen { status: status.whole.clone(), ..self.job.clone() };
                let limits = Limits { lease_millis: LEASE_MILLIS, ..Limits::default() };
                let core = Coordinator::take_over(now, &seen, *random, *heard, limits).expect("the job is sound");
                (core, None, status.id())
            }
            (_, Some(desk)) => (desk.core.clone(), desk.write, desk.base),
            (_, None) => panic!("nobody is told {told:?}"),
        };
        let before = core.shards().clone();
        let event = match told {
            Told::TakeOver { .. } => Event::PodsSeen(pods()),
            Told::Flush => Event::Flush,
            Told::Said { session, message } => match (*message).clone() {
                FromWorker::Hello(hello) => Event::SessionOpened { session: SessionId(session), hello },
                FromWorker::Report(report) => Event::Reported { session: SessionId(session), report },
            },
            Told::Closed { session } => Event::SessionClosed(SessionId(session)),
            Told::Stored => Event::StatusStored(write.take().expect("a write")),
            Told::Refused => Event::StatusRefused(write.take().expect("a write")),
        };
        let mut effects = core.handle(now, event);
        if !self.batches {
            effects.extend(core.handle(now, Event::Flush));
        }
        let mut promise = invariants::done_stays_done(&before, core.shards());
        if effects.contains(&Effect::LookAtPool) {
            effects.extend(core.handle(now, Event::PodsSeen(pods())));
            promise = promise.and(pool_stays(&core.wanted_pods(now), &core));
        }
        let says = effects.into_iter().filter_map(|effect| said(effect, &mut write, &self.statuses)).collect();
        let outranked = core.outranked();
        Turn { desk: Some(self.keep(now, Desk { core, write, base })), says, outranked, broken: promise.err() }
    }

    fn keep(&self, now: Now, desk: Desk) -> Kept<Desk> {
        let mut text = kept::of_coordinator(&format!("{:?}", desk.core), now.millis);
        if text.contains(", last: None, ") {
            text.push_str(&desk.base.to_string());
        }
        self.shelf.keep(desk, &text)
    }

    /// What the API server has before anyone looked at the job.
    pub fn unseen(&self) -> Kept<Status> {
        Status::keep(self.job.status.clone(), &self.statuses)
    }
}

fn said(effect: Effect, write: &mut Option<Revision>, statuses: &Shelf<Status>) -> Option<Says> {
    match effect {
        Effect::Send { session, message } => Some(Says::Send { session: session.0, message: Kept::whole(message) }),
        Effect::Close { session, .. } => Some(Says::Close { session: session.0 }),
        Effect::StoreStatus { revision, status } => {
            assert!(write.replace(revision).is_none(), "two status writes at a time");
            Some(Says::Store(Status::keep(*status, statuses)))
        }
        Effect::Announce(_) | Effect::LookAtPool | Effect::FindOwner(_) | Effect::Release => None,
    }
}

/// The pods of the world: always the same two.
fn pods() -> Vec<Pod> {
    let pod = |worker: usize| Pod {
        name: pod_uid(worker),
        uid: pod_uid(worker),
        node: None,
        zone: None,
        leaving: false,
        trouble: None,
        made_of: None,
        disruption: None,
        ends: 0,
        ended: None,
    };
    (0..WORKERS).map(pod).collect()
}

pub fn pod_uid(worker: usize) -> String {
    format!("pod-{worker}")
}

fn pool_stays(wanted: &WantedPods, core: &Coordinator) -> Result<(), Broken> {
    let stays = wanted.create.is_empty() && (wanted.delete.is_empty() || core.shards().are_settled());
    if stays { Ok(()) } else { Err(Broken { promise: POOL, how: format!("{wanted:?}") }) }
}

pub fn panicked(panic: &(dyn std::any::Any + Send)) -> Broken {
    let message = panic.downcast_ref::<String>().cloned();
    let message = message.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    Broken { promise: CORE, how: message.unwrap_or_default() }
}

/// Three numbers, two workers, one slot each.
pub fn job() -> Seen {
    let spec = serde_json::json!({
        "source": {"numbers": {"count": super::world::SHARDS}}, "task": {"noop": {}},
        "parallelism": WORKERS, "workers": {"slots": 1}
    });
    Seen {
        uid: JobUid("uid".into()),
        namespace: "ns".into(),
        name: "job".into(),
        generation: 1,
        spec: serde_json::from_value(spec).expect("a spec"),
        status: ShardJobStatus::default(),
        deleting: false,
        abandoned: false,
    }
}
