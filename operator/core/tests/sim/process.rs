//! A worker process of the model: the real core, and attempts that take time.

use std::collections::{BTreeMap, BTreeSet};

use hyperflow_api::{
    ids::{Epoch, JobUid, ShardIndex, WorkerId},
    message::{Checkpoint, Failure, FailureClass, FromWorker, Planned, Published, Target},
};
use hyperflow_core::{
    Now,
    worker::{Assignment, Effect, Event, Outcome, RunId, Stop, Worker},
};

use super::{chance::Chance, scenario::Scenario, store::Store};

/// Bytes of a shard in the model, and how many an attempt does between two checkpoints.
const SHARD_BYTES: u64 = 1000;
const CHECKPOINT_BYTES: u64 = 250;

/// A process that was asked to terminate is gone after so long, whatever its attempts do.
const LONGEST_FAREWELL: u64 = 1550;

struct Attempt {
    target: Target,
    epoch: Epoch,
    position: u64,
    number: u64,
    checkpointed: u64,
    /// Bytes in a hundred milliseconds.
    speed: u64,
    fails: bool,
    /// Word of the kubelet for the end of the process that runs it.
    kills: Option<&'static str>,
    stop: Option<Stop>,
}

pub struct Process {
    pub id: WorkerId,
    pub core: Worker,
    pub session: Option<u64>,
    pub frozen_until: u64,
    /// No packet leaves it or comes to it.
    pub cut_off_until: u64,
    pub terminated: Option<u64>,
    /// It has ended, and the kubelet's word for that.
    pub exited: Option<&'static str>,
    /// It closed its stream by itself.
    pub hangs_up: bool,
    attempts: BTreeMap<RunId, Attempt>,
    /// Published, and not acknowledged yet.
    finished: BTreeSet<ShardIndex>,
}

impl Process {
    pub fn new(now: Now, job: &JobUid, pod_uid: &str, nonce: u64, slots: u32) -> Self {
        let id = WorkerId { pod_uid: pod_uid.into(), nonce };
        Self {
            core: Worker::new(now, job.clone(), id.clone(), slots),
            id,
            session: None,
            frozen_until: 0,
            cut_off_until: 0,
            terminated: None,
            exited: None,
            hangs_up: false,
            attempts: BTreeMap::new(),
            finished: BTreeSet::new(),
        }
    }

    /// Shards that the operator may think it works on.
    pub fn runs(&self) -> impl Iterator<Item = ShardIndex> {
        self.attempts
            .values()
            .filter_map(|attempt| match attempt.target {
                Target::Shard(index) => Some(index),
                Target::Plan | Target::Sweep => None,
            })
            .chain(self.finished.iter().copied())
    }

    pub fn is_idle(&self) -> bool {
        self.attempts.is_empty()
    }

    /// Hands one event to the core and carries the effects out; returns what it says.
    pub fn handle(
        &mut self,
        now: Now,
        event: Event,
        chance: &mut Chance,
        scenario: &Scenario,
        store: &mut Store,
    ) -> Vec<FromWorker> {
        let mut says = Vec::new();
        if event == Event::Terminate {
            self.terminated.get_or_insert(now.millis);
        }
        for effect in self.core.handle(now, event) {
            match effect {
                Effect::Send(message) => says.push(message),
                Effect::Start(assignment) => {
                    self.attempts.insert(assignment.run, Attempt::begin(assignment, chance, scenario, store));
                }
                Effect::Stop { run, how } => {
                    if let Some(attempt) = self.attempts.get_mut(&run) {
                        attempt.stop = Some(how);
                    }
                }
                Effect::Clean(index) => {
                    self.finished.remove(&index);
                    store.clean(index);
                }
                Effect::Disconnect(_) => self.hangs_up = true,
                Effect::Exit(reason) => {
                    if reason == "no operator was heard for too long" {
                        store.visit("orphaned");
                    }
                    self.exited = Some("Completed");
                }
                Effect::Configure(_) | Effect::UsePlan(_) => {}
            }
        }
        if self.terminated.is_some_and(|since| now.millis >= since + LONGEST_FAREWELL) {
            self.exited = Some("Completed");
        }
        says
    }

    /// Lets attempts go on for `millis`; returns what they report.
    pub fn work(&mut self, millis: u64, store: &mut Store) -> Vec<Event> {
        let mut events = Vec::new();
        let mut over = Vec::new();
        for (&run, attempt) in &mut self.attempts {
            attempt.position = (attempt.position + attempt.speed * millis / 100).min(SHARD_BYTES);
            if attempt.kills.is_some() && attempt.position >= SHARD_BYTES / 2 {
                self.exited = attempt.kills;
                return Vec::new();
            }
            events.extend(attempt.checkpoint(store).map(|checkpoint| Event::Checkpointed { run, checkpoint }));
            if let Some(outcome) = attempt.outcome(store) {
                if let (Target::Shard(index), Outcome::Published(_)) = (attempt.target, &outcome) {
                    self.finished.insert(index);
                }
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
    fn begin(
        Assignment { grant, .. }: Assignment,
        chance: &mut Chance,
        scenario: &Scenario,
        store: &mut Store,
    ) -> Self {
        let target = grant.target;
        if let Some(resume) = grant.resume {
            let found = store.is_durable(target, resume);
            // What was temporary of a committed shard may be gone: then its commit is found.
            assert!(found || store.is_published(target), "a resumed checkpoint was never durable: {resume:?}");
            store.visit(if found { "resumed from a checkpoint" } else { "committed before it was resumed" });
        }
        let published = store.is_published(target);
        let is = |shard: Option<ShardIndex>| shard.is_some_and(|index| target == Target::Shard(index)) && !published;
        let kills = is(scenario.poison).then_some("Error").or(is(scenario.hungry).then_some("OOMKilled"));
        let position = if published { SHARD_BYTES } else { grant.resume.map_or(0, |resume| resume.position) };
        Self {
            target,
            epoch: grant.epoch,
            position,
            number: grant.resume.map_or(0, |resume| resume.number),
            checkpointed: position,
            speed: 100 * (1 + chance.below(20)) / scenario.pace,
            fails: matches!(target, Target::Shard(_)) && grant.attempt < 3 && chance.once_in(40),
            kills,
            stop: None,
        }
    }

    fn checkpoint(&mut self, store: &mut Store) -> Option<Checkpoint> {
        let due = self.position - self.checkpointed >= CHECKPOINT_BYTES;
        let drains = self.stop == Some(Stop::AfterCheckpoint);
        let makes = matches!(self.target, Target::Shard(_)) && (due || drains) && self.position < SHARD_BYTES;
        makes.then(|| {
            self.number += 1;
            self.checkpointed = self.position;
            let checkpoint = Checkpoint { number: self.number, position: self.position, digest: self.epoch.sequence };
            store.checkpoint(self.target, checkpoint);
            checkpoint
        })
    }

    fn outcome(&self, store: &mut Store) -> Option<Outcome> {
        if self.stop.is_some() {
            return Some(Outcome::Stopped);
        }
        if self.fails && self.position >= SHARD_BYTES / 2 && self.position < SHARD_BYTES {
            store.visit("task failed");
            let (reason, message) = ("Broken".into(), "it broke".into());
            let class = FailureClass::Application;
            let failure = Failure { class, reason, message, ends_job: false, checkpoint_unusable: false };
            return Some(Outcome::Failed(failure));
        }
        (self.position >= SHARD_BYTES).then(|| match self.target {
            Target::Plan => Outcome::Planned(Planned {
                shards: store.shards,
                files: 1,
                bytes: u64::from(store.shards) * SHARD_BYTES,
                digest: "blake3:plan".into(),
                url: "file:///plan".into(),
            }),
            Target::Sweep => {
                store.visit(if store.deleting { "swept after deletion" } else { "swept" });
                Outcome::Swept
            }
            Target::Shard(index) => {
                let found = !store.publish(index, self.epoch);
                Outcome::Published(Published { bytes: SHARD_BYTES, crc32c: 0, found })
            }
        })
    }
}
