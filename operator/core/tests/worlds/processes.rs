//! Worker processes: the real worker, and attempts that are as small as can be.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use hyperflow_api::{
    ids::{Epoch, JobUid, ShardIndex, WorkerId},
    message::{Checkpoint, FromOperator, FromWorker, Published, Target},
};
use hyperflow_core::{
    Now,
    invariants::Broken,
    worker::{Assignment, Effect, Event, Outcome, RunId, Worker},
};

use super::{
    desks::{panicked, pod_uid},
    kept::{self, Kept, Steps},
};

/// How far an attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Working,
    /// Its result is in the store, by itself or by an earlier one, and it has not said so yet.
    Committed {
        found: bool,
    },
}

/// An attempt: it may make one checkpoint, and publishes.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    pub index: ShardIndex,
    pub stage: Stage,
    /// It was told to stop.
    pub stopped: bool,
    /// It has made its checkpoint.
    pub checkpointed: bool,
    /// As granted; checkpoints carry it.
    epoch: Epoch,
    /// Number of the newest checkpoint.
    number: u64,
}

impl Attempt {
    fn begin(Assignment { grant, .. }: Assignment, index: ShardIndex) -> Self {
        let number = grant.resume.map_or(0, |resume| resume.number);
        Self { index, stage: Stage::Working, stopped: false, checkpointed: false, epoch: grant.epoch, number }
    }

    /// The checkpoint that it would make now: no other attempt's has the same digest.
    pub fn checkpoint(&self) -> Checkpoint {
        let number = self.number + 1;
        let Epoch { takeover, sequence } = self.epoch;
        Checkpoint { number, position: number, digest: takeover.random << 8 | sequence }
    }
}

/// One worker process.
#[derive(Clone, Debug)]
pub struct Process {
    pub nonce: u64,
    pub core: Worker,
    pub attempts: BTreeMap<RunId, Attempt>,
}

/// What a process does, or what happens to it. Attempts are named by their place among those that run.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Deed {
    Connected,
    Disconnected,
    Heard(Kept<FromOperator>),
    /// Says what is due.
    Flush,
    /// An attempt made its checkpoint.
    Checkpoint(usize),
    /// An attempt made its result visible, or found that another had.
    Commit {
        attempt: usize,
        found: bool,
    },
    /// An attempt says that its result is visible.
    Report(usize),
    /// An attempt ends because it was told to.
    Stop(usize),
}

/// What follows.
#[derive(Debug)]
pub struct Act {
    pub process: Option<Kept<Process>>,
    pub says: Vec<Kept<FromWorker>>,
    /// It closes its stream by itself.
    pub hangs_up: bool,
    /// Shards of which it was told that status knows them.
    pub cleaned: Vec<ShardIndex>,
    /// Checkpoints that attempts go on from.
    pub resumed: Vec<(ShardIndex, Checkpoint)>,
    pub broken: Option<Broken>,
}

/// All acts of all processes.
pub struct Processes {
    steps: Steps<(Kept<Process>, Deed, u64), Act>,
}

impl Processes {
    pub fn new() -> Self {
        Self { steps: Steps::new() }
    }

    /// A process that has just begun.
    pub fn begin(now: Now, worker: usize, nonce: u64) -> Kept<Process> {
        let id = WorkerId { pod_uid: pod_uid(worker), nonce };
        keep(now, Process { nonce, core: Worker::new(now, JobUid("uid".into()), id, 1), attempts: BTreeMap::new() })
    }

    pub fn act(&self, now: Now, process: &Kept<Process>, deed: &Deed) -> Arc<Act> {
        let key = (process.clone(), deed.clone(), now.millis);
        self.steps.take(key, || {
            catch_unwind(AssertUnwindSafe(|| act(now, process, deed))).unwrap_or_else(|panic| Act {
                process: None,
                says: Vec::new(),
                hangs_up: false,
                cleaned: Vec::new(),
                resumed: Vec::new(),
                broken: Some(panicked(panic.as_ref())),
            })
        })
    }
}

fn act(now: Now, before: &Kept<Process>, deed: &Deed) -> Act {
    let mut process = Process::clone(before);
    let event = process.does(deed);
    let mut effects = event.map_or_else(Vec::new, |event| process.core.handle(now, event));
    if !matches!(deed, Deed::Commit { .. }) {
        effects.extend(process.core.handle(now, Event::Flush));
    }
    let (mut says, mut hangs_up, mut cleaned, mut resumed) = (Vec::new(), false, Vec::new(), Vec::new());
    for effect in effects {
        match effect {
            Effect::Send(message) => says.push(Kept::whole(message)),
            Effect::Start(assignment) => {
                let Target::Shard(index) = assignment.grant.target else { panic!("numbers need no plan and no sweep") };
                resumed.extend(assignment.grant.resume.map(|checkpoint| (index, checkpoint)));
                process.attempts.insert(assignment.run, Attempt::begin(assignment, index));
            }
            Effect::Stop { run, .. } => {
                if let Some(attempt) = process.attempts.get_mut(&run) {
                    attempt.stopped = true;
                }
            }
            Effect::Blocks(_) => {}
            Effect::Clean(index) => cleaned.push(index),
            Effect::Disconnect(_) => hangs_up = true,
            Effect::Exit(reason) => panic!("a worker ends: {reason}"),
            Effect::Configure(_) | Effect::UsePlan(_) => {}
        }
    }
    Act { process: Some(keep(now, process)), says, hangs_up, cleaned, resumed, broken: None }
}

impl Process {
    /// What the deed changes of the attempts, and what the core is told of it.
    fn does(&mut self, deed: &Deed) -> Option<Event> {
        match deed {
            Deed::Connected => Some(Event::Connected),
            Deed::Disconnected => Some(Event::Disconnected),
            Deed::Heard(message) => Some(Event::Heard((**message).clone())),
            Deed::Flush => None,
            Deed::Checkpoint(place) => {
                let (run, attempt) = self.attempt(*place);
                let checkpoint = attempt.checkpoint();
                attempt.checkpointed = true;
                attempt.number = checkpoint.number;
                Some(Event::Checkpointed { run, checkpoint })
            }
            Deed::Commit { attempt, found } => {
                self.attempt(*attempt).1.stage = Stage::Committed { found: *found };
                None
            }
            Deed::Report(place) => {
                let (run, attempt) = self.attempt(*place);
                let found = attempt.stage == Stage::Committed { found: true };
                self.attempts.remove(&run);
                Some(Event::Ended { run, outcome: Outcome::Published(Published { bytes: 0, crc32c: 0, found }) })
            }
            Deed::Stop(place) => {
                let (run, _) = self.attempt(*place);
                self.attempts.remove(&run);
                Some(Event::Ended { run, outcome: Outcome::Stopped })
            }
        }
    }

    fn attempt(&mut self, place: usize) -> (RunId, &mut Attempt) {
        let (run, attempt) = self.attempts.iter_mut().nth(place).expect("an attempt");
        (*run, attempt)
    }
}

fn keep(now: Now, process: Process) -> Kept<Process> {
    let text = kept::of_worker(&format!("{process:?}"), now.millis);
    Kept::new(process, &text)
}
