//! A worker process of the model: the real core, and attempts that take time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use hyperflow_api::{
    ids::{JobUid, ShardIndex, Takeover, WorkerId},
    message::{FailureClass, FromWorker, Target},
    replica::Host,
};
use hyperflow_core::{
    causes::is_full,
    invariants::{self, demand},
    worker::{Assignment, Effect, Event, Outcome, RunId, Worker},
};

use super::{
    absent::without_input,
    attempt::{Acted, Attempt, Trouble, failed},
    calm::HELD,
    clock::Clock,
    scenario::{ODD, PLAIN, Rule},
    world::{Turn, World},
};

/// A process that was asked to terminate is gone after so long, whatever its attempts do.
const LONGEST_FAREWELL: u64 = 1550;

/// A stream that nobody welcomes is given up after so long.
const GREETING: u64 = 3000;

pub struct Process {
    pub id: WorkerId,
    pub core: Worker,
    pub clock: Clock,
    pub session: Option<u64>,
    pub frozen_until: u64,
    /// No packet leaves it or comes to it.
    pub cut_off_until: u64,
    pub terminated: bool,
    /// What the store does to the next step that goes to it.
    pub trouble: Option<Trouble>,
    /// It ends after so many steps of its attempts.
    pub dies_in: Option<u32>,
    /// When the core wants to be asked again.
    pub wakes_at: u64,
    /// When it began, or heard an operator last.
    heard_at: u64,
    /// Who welcomed it last.
    follows: Takeover,
    /// For how long, at most, it heard nobody, by its own clock.
    alone: u64,
    knows_plan: bool,
    slots: usize,
    attempts: BTreeMap<RunId, Attempt>,
    /// Those of them that have no slot yet.
    line: VecDeque<RunId>,
    /// Published, and not acknowledged yet.
    finished: BTreeSet<ShardIndex>,
}

impl Process {
    pub fn new(clock: Clock, at: u64, job: &JobUid, pod_uid: &str, nonce: u64, slots: u32) -> Self {
        let id = WorkerId { pod_uid: pod_uid.into(), nonce };
        Self {
            core: Worker::new(clock.now(at), job.clone(), id.clone(), slots),
            id,
            clock,
            session: None,
            frozen_until: 0,
            cut_off_until: 0,
            terminated: false,
            trouble: None,
            dies_in: None,
            wakes_at: 0,
            heard_at: at,
            follows: Takeover::default(),
            alone: 0,
            knows_plan: false,
            slots: slots as usize,
            attempts: BTreeMap::new(),
            line: VecDeque::new(),
            finished: BTreeSet::new(),
        }
    }

    pub fn with_host(mut self, host: Option<Host>) -> Self {
        if let Some(host) = host {
            self.core = self.core.with_host(host);
        }
        self
    }

    /// Shards that the operator may think it works on.
    pub fn runs(&self) -> impl Iterator<Item = ShardIndex> {
        let shard = |attempt: &Attempt| match attempt.grant.target {
            Target::Shard(index) => Some(index),
            Target::Plan | Target::Finally | Target::Sweep => None,
        };
        self.attempts.values().filter_map(shard).chain(self.finished.iter().copied())
    }

    fn hears_at(&mut self, now: u64) {
        let alone = self.clock.now(now).millis - self.clock.now(self.heard_at).millis;
        self.alone = self.alone.max(alone);
        self.heard_at = now;
    }

    pub fn attempt(&self, run: RunId) -> Option<&Attempt> {
        self.attempts.get(&run)
    }

    pub fn is_idle(&self) -> bool {
        self.attempts.is_empty()
    }
}

impl World {
    pub fn process(&mut self, pod: u64, nonce: u64) -> Option<&mut Process> {
        let process = self.pods.get_mut(&pod)?.process.as_mut()?;
        (process.id.nonce == nonce).then_some(process)
    }

    /// Hands events to the core, then one flush, as the shell of a worker does.
    pub fn process_hears(&mut self, pod: u64, nonce: u64, event: Option<Event>) {
        let mut events: VecDeque<Event> = event.into_iter().collect();
        let mut flushed = false;
        loop {
            let event = match events.pop_front() {
                Some(event) => event,
                None if flushed => break,
                None => Event::Flush,
            };
            flushed = event == Event::Flush;
            let now = self.now;
            let Some(process) = self.process(pod, nonce) else { return };
            if event == Event::Terminate && !std::mem::replace(&mut process.terminated, true) {
                self.after(LONGEST_FAREWELL, Turn::Exit { pod, nonce });
            }
            let Some(process) = self.process(pod, nonce) else { return };
            if matches!(event, Event::Heard(_)) {
                process.hears_at(now);
            }
            for effect in process.core.handle(process.clock.now(now), event) {
                if !self.worker_does(pod, nonce, effect, &mut events) {
                    return;
                }
            }
        }
        let now = self.now;
        let Some(process) = self.process(pod, nonce) else { return };
        let (wake, time) = (process.core.next_wake(), process.clock.now(now).millis);
        assert!(wake > time, "L5 nobody spins: nothing is left to do, and the worker wants to be asked at once");
        let at = process.clock.when(wake).max(now + 1);
        if process.wakes_at != at {
            process.wakes_at = at;
            self.at(at, Turn::WorkerWakes { pod, nonce });
        }
    }

    /// False when that was the end of it.
    fn worker_does(&mut self, pod: u64, nonce: u64, effect: Effect, events: &mut VecDeque<Event>) -> bool {
        match effect {
            Effect::Send(message) => self.say(pod, nonce, message),
            Effect::Start(assignment) => events.extend(self.start(pod, nonce, assignment)),
            Effect::Stop { run, .. } if self.withdraw(pod, nonce, run) => {
                events.push_back(Event::Ended { run, outcome: Outcome::Stopped });
            }
            Effect::Stop { run, how } => {
                let attempt = self.process(pod, nonce).and_then(|process| process.attempts.get_mut(&run));
                if let Some(attempt) = attempt {
                    attempt.stop = attempt.stop.filter(|stop| *stop == hyperflow_core::worker::Stop::Now).or(Some(how));
                }
            }
            Effect::Blocks(order) => events.extend(self.do_with_blocks(pod, nonce, order)),
            Effect::Clean(index) => self.clean(pod, nonce, index),
            Effect::Disconnect(_) => {
                if let Some(id) = self.process(pod, nonce).and_then(|process| process.session.take()) {
                    self.close(id, false);
                    self.after(50, Turn::Connect { pod, nonce });
                    events.push_back(Event::Disconnected);
                }
            }
            Effect::Exit(reason) => {
                if reason == "no operator was heard for too long" {
                    self.visit("orphaned");
                    self.check_orphan(pod, nonce);
                }
                self.process_ends(pod, "Completed", true);
                return false;
            }
            Effect::UsePlan(_) => {
                if let Some(process) = self.process(pod, nonce) {
                    process.knows_plan = true;
                }
                events.extend(self.look_through(pod, nonce));
            }
            Effect::Configure(welcome) => {
                if let Some(process) = self.process(pod, nonce) {
                    demand(invariants::follows_the_highest(process.follows, welcome.takeover));
                    process.follows = welcome.takeover;
                }
            }
        }
        true
    }

    fn check_orphan(&mut self, pod: u64, nonce: u64) {
        let (now, orphan_millis) = (self.now, u64::from(self.scenario.orphan_seconds) * 1000);
        if let Some(process) = self.process(pod, nonce) {
            process.hears_at(now);
            demand(invariants::goes_on_alone(process.alone, orphan_millis));
        }
        self.nobody_was_there(orphan_millis);
    }

    fn start(&mut self, pod: u64, nonce: u64, Assignment { run, grant }: Assignment) -> Option<Event> {
        let (now, slow) = (self.now, self.scenario.slow.is_some_and(|one_in| pod.is_multiple_of(one_in)));
        let pace = (2 + self.chance.below(50)) * self.scenario.pace * if slow { self.scenario.slow_by } else { 1 };
        let mut attempt = Attempt::new(grant, self.scenario.copies, pace);
        attempt.of_run = self.pods.get(&pod)?.run;
        if let Target::Shard(index) = grant.target {
            let published = self.store.is_committed(index) || self.store.executed.contains(&index);
            let is = |shard: Option<ShardIndex>| shard == Some(index) && !published;
            attempt.kills =
                is(self.scenario.poison).then_some("Error").or(is(self.scenario.hungry).then_some("OOMKilled"));
            attempt.fatal = is(self.scenario.fatal);
            let failing = self.scenario.failing.filter(|_| grant.attempt < 3);
            let fails = failing.is_some_and(|one_in| self.chance.once_in(one_in));
            let code = if self.scenario.rule.is_some() && self.chance.once_in(2) { ODD } else { PLAIN };
            attempt.fails = Some(code).filter(|_| fails || self.scenario.hopeless);
            self.check_resume(index, &grant);
        }
        if grant.target == Target::Finally {
            let failing = self.scenario.failing.filter(|_| grant.attempt < 3);
            attempt.fails = Some(PLAIN).filter(|_| failing.is_some() && self.chance.once_in(3));
        }
        let process = self.process(pod, nonce)?;
        if matches!(grant.target, Target::Shard(_)) && !process.knows_plan {
            self.visit("a lease before the plan");
            return Some(Event::Ended { run, outcome: failed(FailureClass::WorkerLost, "PlanUnknown", false) });
        }
        process.attempts.insert(run, attempt);
        if process.attempts.len() > process.slots {
            process.line.push_back(run);
            self.visit("waited in line");
        } else {
            self.at(now + pace, Turn::Work { pod, nonce, run });
        }
        None
    }

    fn check_resume(&mut self, index: ShardIndex, grant: &hyperflow_api::message::Grant) {
        let Some(resume) = grant.resume.filter(|_| !self.store.is_committed(index)) else { return };
        // Everything temporary may have been swept at the end of the job, before a late order arrives.
        demand(invariants::resumed_is_durable(index, resume, self.store.swept || self.store.is_durable(index, resume)));
        self.visit("resumed from a checkpoint");
    }

    fn clean(&mut self, pod: u64, nonce: u64, index: ShardIndex) {
        demand(invariants::cleaned_is_stored(index, &self.api.committed));
        self.store.remove_staging(index);
        if let Some(process) = self.process(pod, nonce) {
            process.finished.remove(&index);
        }
    }

    /// One step of one attempt.
    pub fn work(&mut self, pod: u64, nonce: u64, run: RunId) {
        let (shards, swept) = (self.scenario.shards, self.store.swept);
        let full = (self.now < self.full_until).then_some(Trouble::Full);
        let holds = self.holds(pod, run);
        let lacks = self.lacks_copies(pod, nonce, run);
        let Some(process) = self.pods.get_mut(&pod).and_then(|pod| pod.process.as_mut()) else { return };
        if process.id.nonce != nonce {
            return;
        }
        if process.dies_in.as_mut().is_some_and(|left| std::mem::replace(left, left.saturating_sub(1)) == 0) {
            self.visit("worker died between two steps");
            return self.process_ends(pod, "Error", true);
        }
        if holds {
            return self.after(HELD, Turn::Work { pod, nonce, run });
        }
        let Some(attempt) = process.attempts.get_mut(&run) else { return };
        let (trouble, target, pace) = (process.trouble.take().or(full), attempt.grant.target, attempt.pace);
        let acted = match lacks {
            Some(_) => Acted::Ends(without_input()),
            None => attempt.act(shards, trouble, &mut self.store),
        };
        if let Some(group) = lacks {
            self.missed(group);
        }
        if self.store.swept && !swept {
            self.visit(if self.api.seen.deleting { "swept after deletion" } else { "swept" });
        }
        match trouble {
            Some(Trouble::Fails) => self.visit("store failed"),
            Some(Trouble::AnswerLost) => self.visit("store's answer lost"),
            Some(Trouble::Full) | None => {}
        }
        let event = match acted {
            Acted::GoesOn => None,
            Acted::Saved(checkpoint) => Some(Event::Checkpointed { run, checkpoint }),
            Acted::Ends(outcome) => {
                self.free_slot(pod, nonce, run);
                self.attempt_ended(pod, nonce, target, &outcome);
                return self.process_hears(pod, nonce, Some(Event::Ended { run, outcome }));
            }
            Acted::Kills(word) => return self.process_ends(pod, word, true),
        };
        self.after(pace, Turn::Work { pod, nonce, run });
        if event.is_some() {
            self.process_hears(pod, nonce, event);
        }
    }

    fn attempt_ended(&mut self, pod: u64, nonce: u64, target: Target, outcome: &Outcome) {
        if let (Target::Shard(index), Outcome::Published(published)) = (target, outcome) {
            if published.found {
                self.visit("late publish found");
            }
            if let Some(process) = self.process(pod, nonce) {
                process.finished.insert(index);
            }
        }
        if matches!(outcome, Outcome::Finalized) {
            self.visit("the last command ran");
        }
        if matches!(outcome, Outcome::Failed(failure) if is_full(failure)) {
            return self.visit("output full");
        }
        if *outcome == without_input() {
            return;
        }
        if let (Target::Shard(index), Outcome::Failed(failure)) = (target, outcome) {
            self.visit("task failed");
            let hardship = self.hardship.entry(index).or_default();
            if failure.class == FailureClass::WorkerLost {
                hardship.deaths += 1;
            } else if failure.exit_code != Some(ODD) || self.scenario.rule != Some(Rule::Ignore) {
                hardship.failures += 1;
            }
            if failure.exit_code == Some(ODD) && self.scenario.rule == Some(Rule::FailShard) {
                self.given_up.insert(index);
            }
            if failure.checkpoint_unusable {
                self.api.acknowledged.remove(&index);
            }
            if let Some(machine) = self.pods.get(&pod).and_then(|pod| pod.machine) {
                self.machines[machine].points += 250;
            }
        }
    }

    /// An attempt that waits in line never begins.
    fn withdraw(&mut self, pod: u64, nonce: u64, run: RunId) -> bool {
        let Some(process) = self.process(pod, nonce) else { return false };
        let Some(place) = process.line.iter().position(|waiting| *waiting == run) else { return false };
        process.line.remove(place);
        process.attempts.remove(&run);
        self.visit("stopped in line");
        true
    }

    /// An attempt is over, and the first in line begins.
    fn free_slot(&mut self, pod: u64, nonce: u64, run: RunId) {
        let Some(process) = self.process(pod, nonce) else { return };
        process.attempts.remove(&run);
        if let Some((run, attempt)) = process.line.pop_front().and_then(|run| process.attempts.get_key_value(&run)) {
            let (run, pace) = (*run, attempt.pace);
            self.after(pace, Turn::Work { pod, nonce, run });
        }
    }

    pub fn connected(&mut self, pod: u64, nonce: u64, stream: u64) {
        if let Some(process) = self.process(pod, nonce) {
            process.session = Some(stream);
            self.after(GREETING, Turn::GiveUpGreeting { pod, nonce, stream });
            self.process_hears(pod, nonce, Some(Event::Connected));
        }
    }

    /// The worker notices that its stream is gone.
    pub fn disconnected(&mut self, pod: u64, nonce: u64, stream: u64) {
        let Some(process) = self.process(pod, nonce).filter(|process| process.session == Some(stream)) else { return };
        process.session = None;
        self.process_hears(pod, nonce, Some(Event::Disconnected));
        let wait = 10 + self.chance.below(150);
        self.after(wait, Turn::Connect { pod, nonce });
    }

    pub fn greeting_is_over(&mut self, pod: u64, nonce: u64, stream: u64) {
        let waits = |process: &mut Process| process.session == Some(stream) && !process.core.is_in_session();
        if self.process(pod, nonce).is_some_and(waits) {
            self.close(stream, true);
        }
    }

    fn say(&mut self, pod: u64, nonce: u64, message: FromWorker) {
        let Some(process) = self.process(pod, nonce) else { return };
        if let Some(stream) = process.session {
            self.send_to_operator(stream, message);
        }
    }
}
