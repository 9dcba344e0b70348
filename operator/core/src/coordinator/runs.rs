//! Which run of the job this is, and how the next one begins (P25).
//!
//! A run begins when a job is taken over: from what status says, so that it does not matter whether an operator died on the
//! way there. A desk at which another run is asked for only lets go of its leases and closes, and the next one takes the
//! job over. A run whose end is decided comes to it first: what is swept must not be worked on.
//!
//! Worker pods belong to one run: the program may be another. Those of an earlier run are deleted, and not listened to;
//! what they publish all the same is found in the store, under the names of their run.

use std::collections::BTreeMap;

use super::{Coordinator, Effect, Pod, Verdict};
use crate::{
    Now,
    clock::Clock,
    job::Job,
    ranges::RangeSet,
    rerun,
    shards::{Seat, Shards},
    status,
};

/// Stands between the digest of what a pod was made of and the number of its run.
const RUN: &str = ".run";

/// What a pod of a run says it was made of: the digest of `spec.workers`, and which run it is, from the second on.
#[must_use]
pub fn made_of(workers_digest: &str, run: u32) -> String {
    if run > 1 { format!("{workers_digest}{RUN}{run}") } else { workers_digest.into() }
}

/// The run that a pod was made for; the first where it says nothing.
fn run_of(pod: &Pod) -> u32 {
    let run = pod.made_of.as_deref().and_then(|made_of| made_of.split_once(RUN)?.1.parse().ok());
    run.unwrap_or(1)
}

impl Coordinator {
    /// After a take-over: notes the nonce, and begins another run if the spec asks for one. Whether it does.
    pub(super) fn begin_run(&mut self, now: Now) -> bool {
        if self.plan.is_none() {
            self.note_nonce();
            return false;
        }
        if self.seen.deleting || !self.another_is_asked() || self.end_comes_first() {
            return false;
        }
        let succeeded = matches!(status::end_of(&self.seen.status, self.seen.generation), Some((Verdict::Complete, _)));
        match rerun::stays(&self.seen.spec, &self.job, &self.shards, &self.frozen, succeeded) {
            Ok(stays) => {
                self.begin(now, stays);
                true
            }
            Err(why) => {
                self.refuse_run(&why);
                false
            }
        }
    }

    fn begin(&mut self, now: Now, stays: RangeSet) {
        self.note_nonce();
        self.run = self.run.saturating_add(1);
        self.frozen.clone_from(&self.job.frozen);
        let reserved = self.shards.next();
        self.shards = Shards::resume(self.shards.total(), reserved, stays, RangeSet::default(), BTreeMap::new());
        self.failures.clear();
        self.verdict = None;
        self.report = None;
        self.clock = Clock::default();
        // Nobody has anything to claim: a lease of an earlier run is none of this one.
        self.claims_until = None;
        let left = self.shards.total() - self.shards.done().len();
        self.announce(false, "Rerun", format!("run {} begins: {left} shards", self.run));
        self.measure_anew(now);
    }

    /// At an open desk: another run is asked for, so this desk closes. Whether it does.
    pub(super) fn gives_way(&mut self, now: Now, job: &Job) -> bool {
        if self.plan.is_none() {
            self.note_nonce();
            return false;
        }
        if self.gives_way || !self.another_is_asked() || self.verdict.is_some() || self.shards.are_settled() {
            return self.gives_way;
        }
        match rerun::stays(&self.seen.spec, job, &self.shards, &self.frozen, false) {
            Ok(_) => {
                self.gives_way = true;
                self.end_leases(now);
            }
            Err(why) => self.refuse_run(&why),
        }
        self.gives_way
    }

    fn another_is_asked(&self) -> bool {
        rerun::differs(&self.seen.spec, self.nonce.as_deref())
    }

    /// The end of this run is decided, and not stored yet.
    fn end_comes_first(&self) -> bool {
        let ended = status::is_terminal(&self.seen.status, self.seen.generation);
        !ended && (self.verdict.is_some() || self.shards.are_settled())
    }

    fn note_nonce(&mut self) {
        if self.another_is_asked() {
            self.nonce = self.seen.spec.rerun.as_ref().map(|rerun| rerun.nonce.clone());
            self.writer.touch();
        }
    }

    /// The nonce counts as seen: it does not ask again, and what the job has come to stays as it is.
    fn refuse_run(&mut self, why: &str) {
        self.note_nonce();
        let message = format!("`spec.rerun` is refused, and nothing is run again: {why}. Then set another `nonce`");
        self.announce(true, "RerunRefused", message);
    }

    /// A pod of an earlier run.
    pub(super) fn is_of_earlier_run(&self, pod: &Pod) -> bool {
        run_of(pod) < self.run
    }

    /// Sends workers of an earlier run away: their pods are being deleted.
    pub(super) fn turn_away(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.run == 1 {
            return;
        }
        let earlier = |seat: &Seat| {
            let pod = self.workers.get(seat).and_then(|worker| self.pool.pod(&worker.id.pod_uid));
            pod.is_some_and(|pod| self.is_of_earlier_run(pod))
        };
        let sessions: Vec<_> =
            self.sessions.iter().filter(|(_, seat)| earlier(seat)).map(|(&session, _)| session).collect();
        for session in sessions {
            self.close(now, session, "worker belongs to an earlier run", effects);
        }
    }
}
