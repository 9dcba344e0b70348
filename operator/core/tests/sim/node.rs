//! A worker process of the model: the real core, and attempts that take time.

use std::collections::BTreeMap;

use hyperflow_api::{
    ids::{Epoch, JobUid, WorkerId},
    message::{Checkpoint, Failure, FailureClass, FromWorker, Planned, Published, Target},
};
use hyperflow_core::{
    Now,
    worker::{Assignment, Effect, Event, Outcome, RunId, Stop, Worker},
};

use super::{chance::Chance, world::Store};

/// Bytes of a shard in the model, and how many an attempt does in a millisecond.
const SHARD_BYTES: u64 = 1000;
const CHECKPOINT_BYTES: u64 = 250;

struct Attempt {
    target: Target,
    epoch: Epoch,
    position: u64,
    number: u64,
    checkpointed: u64,
    speed: u64,
    fails: bool,
    stop: Option<Stop>,
}

pub struct Node {
    pub id: WorkerId,
    pub core: Worker,
    pub session: Option<u64>,
    pub frozen_until: u64,
    pub exited: bool,
    attempts: BTreeMap<RunId, Attempt>,
}

impl Node {
    pub fn new(now: Now, job: &JobUid, pod_uid: &str, nonce: u64, slots: u32) -> Self {
        let id = WorkerId { pod_uid: pod_uid.into(), nonce };
        let core = Worker::new(now, job.clone(), id.clone(), slots);
        Self { id, core, session: None, frozen_until: 0, exited: false, attempts: BTreeMap::new() }
    }

    /// Hands one event to the core and carries the effects out; returns what it says.
    pub fn handle(&mut self, now: Now, event: Event, chance: &mut Chance, store: &mut Store) -> Vec<FromWorker> {
        let mut says = Vec::new();
        for effect in self.core.handle(now, event) {
            match effect {
                Effect::Send(message) => says.push(message),
                Effect::Start(Assignment { run, grant }) => {
                    if let Some(resume) = grant.resume {
                        assert!(
                            store.is_durable(grant.target, resume),
                            "a resumed checkpoint was never durable: {resume:?}"
                        );
                        store.visit("resumed from a checkpoint");
                    }
                    let position = grant.resume.map_or(0, |resume| resume.position);
                    let attempt = Attempt {
                        target: grant.target,
                        epoch: grant.epoch,
                        position,
                        number: grant.resume.map_or(0, |resume| resume.number),
                        checkpointed: position,
                        speed: 1 + chance.below(20),
                        fails: matches!(grant.target, Target::Shard(_)) && grant.attempt < 3 && chance.once_in(40),
                        stop: None,
                    };
                    self.attempts.insert(run, attempt);
                }
                Effect::Stop { run, how } => {
                    if let Some(attempt) = self.attempts.get_mut(&run) {
                        attempt.stop = Some(how);
                    }
                }
                Effect::Clean(index) => store.cleaned(index),
                Effect::Disconnect(_) => self.session = None,
                Effect::Exit(_) => self.exited = true,
                Effect::Configure(_) | Effect::UsePlan(_) => {}
            }
        }
        says
    }

    /// Lets attempts go on for `millis`; returns what they report.
    pub fn work(&mut self, millis: u64, store: &mut Store) -> Vec<Event> {
        let mut events = Vec::new();
        let mut over = Vec::new();
        for (&run, attempt) in &mut self.attempts {
            attempt.position = (attempt.position + attempt.speed * millis).min(SHARD_BYTES);
            let due = attempt.position - attempt.checkpointed >= CHECKPOINT_BYTES;
            let drains = attempt.stop == Some(Stop::AfterCheckpoint);
            if matches!(attempt.target, Target::Shard(_)) && (due || drains) && attempt.position < SHARD_BYTES {
                attempt.number += 1;
                attempt.checkpointed = attempt.position;
                let checkpoint =
                    Checkpoint { number: attempt.number, position: attempt.position, digest: attempt.epoch.sequence };
                store.checkpoint(attempt.target, checkpoint);
                events.push(Event::Checkpointed { run, checkpoint });
            }
            if let Some(outcome) = attempt.outcome(store) {
                events.push(Event::Ended { run, outcome });
                over.push(run);
            } else {
                events.push(Event::Progressed { run, position: attempt.position });
            }
        }
        for run in over {
            self.attempts.remove(&run);
        }
        events
    }
}

impl Attempt {
    fn outcome(&self, store: &mut Store) -> Option<Outcome> {
        if self.stop.is_some() {
            return Some(Outcome::Stopped);
        }
        if self.fails && self.position >= SHARD_BYTES / 2 {
            store.visit("task failed");
            let (reason, message) = ("Broken".into(), "it broke".into());
            let class = FailureClass::Application;
            return Some(Outcome::Failed(Failure {
                class,
                reason,
                message,
                ends_job: false,
                checkpoint_unusable: false,
            }));
        }
        (self.position >= SHARD_BYTES).then(|| match self.target {
            Target::Plan => Outcome::Planned(Planned {
                shards: store.shards,
                files: 1,
                bytes: u64::from(store.shards) * SHARD_BYTES,
                digest: "blake3:plan".into(),
                url: "file:///plan".into(),
            }),
            Target::Sweep => Outcome::Swept,
            Target::Shard(index) => {
                let found = !store.publish(index, self.epoch);
                Outcome::Published(Published { bytes: SHARD_BYTES, crc32c: 0, found })
            }
        })
    }
}
