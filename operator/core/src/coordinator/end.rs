//! How and when the job ends: all shards settled or no hope left, then swept, then said.

use hyperflow_api::message::{Revoked, Target};

use super::{Coordinator, Effect, facts::shorten, leasing::FAILED_MOST};
use crate::Now;

/// How long the end of a job waits for somebody to remove temporary files.
pub(super) const SWEEP_MILLIS: u64 = 30_000;

/// How much longer it waits for a worker that is at it, for the report of a million shards takes its time.
const REPORT_MILLIS: u64 = 600_000;

/// How long a deleted object waits for the same: less than the thirty seconds that are promised.
const REMOVAL_MILLIS: u64 = 25_000;

/// How the job ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Every shard is published.
    Complete,
    /// It cannot be, or not all of it.
    Failed {
        /// A word for programs.
        reason: String,
        /// What happened and what to do.
        message: String,
    },
    /// The object is being deleted (P24).
    Deleted,
}

impl Coordinator {
    /// No attempt can do better: everything stops. The first reason stands.
    pub(super) fn fail_job(&mut self, now: Now, reason: &str, message: &str) {
        if self.verdict.is_some() {
            return;
        }
        self.verdict = Some(Verdict::Failed { reason: reason.into(), message: shorten(message) });
        self.end_leases(now);
        self.chore.sweep_by = Some(now.millis + SWEEP_MILLIS);
        self.writer.touch();
    }

    /// The object is being deleted: workers stop, one of them removes what is temporary, then the object may go (P24).
    pub(super) fn remove_job(&mut self, now: Now) {
        if self.verdict != Some(Verdict::Deleted) {
            self.verdict = Some(Verdict::Deleted);
            self.end_leases(now);
            self.chore.sweep_by = Some(now.millis + REMOVAL_MILLIS);
            self.writer.touch();
        }
        if self.seen.abandoned {
            self.chore.sweep_by = Some(now.millis);
        }
    }

    fn end_leases(&mut self, now: Now) {
        for (index, leased) in self.shards.end_all(now.millis) {
            self.revoke(leased.lease.seat, Revoked { target: Target::Shard(index), epoch: leased.lease.epoch });
        }
        self.revoke_chore();
    }

    /// Decides the end: all shards settled, then swept, then said.
    pub(super) fn conclude(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.plan.is_some() && self.verdict.is_none() && self.shards.are_settled() {
            self.verdict = Some(self.settled_verdict());
            self.chore.sweep_by = Some(now.millis + SWEEP_MILLIS);
            self.chore.failures = 0;
        }
        if self.shards.failed().len() > FAILED_MOST {
            let message = format!("more than {FAILED_MOST} shards failed; the latest: {}", self.latest_failure());
            self.fail_job(now, "MaxFailedShardsExceeded", &message);
        }
        self.end_in_time(now);
        let Some(verdict) = self.verdict.clone().filter(|_| self.conclusion.is_none()) else { return };
        self.mind_clock(now);
        let patience_ends =
            !self.verdict_must_be_stored() && self.sweeps_until().is_none_or(|until| now.millis >= until);
        if !self.anything_to_sweep() || patience_ends || self.nobody_can_sweep() {
            if self.anything_to_sweep() && !self.seen.abandoned {
                let message = "no worker could remove temporary files under '_hyperflow/': remove them by hand";
                self.announce(true, "SweepFailed", message.into());
            }
            self.revoke_chore();
            if verdict == Verdict::Deleted {
                effects.push(Effect::Release);
            }
            self.conclusion = Some((verdict, now.unix));
            self.writer.touch();
            effects.push(Effect::LookAtPool);
        }
    }

    /// When the end stops waiting for a sweep.
    pub(super) fn sweeps_until(&self) -> Option<u64> {
        if self.verdict_must_be_stored() {
            return None;
        }
        let under_way = self.chore.lease.is_some_and(|(target, _)| target == Target::Sweep);
        let more = if under_way && self.verdict != Some(Verdict::Deleted) { REPORT_MILLIS } else { 0 };
        self.chore.sweep_by.map(|by| by + more)
    }

    /// What is swept cannot be gone on with: before that, another operator must be able to read that the job fails.
    pub(super) fn verdict_must_be_stored(&self) -> bool {
        let stored = self.last_status().recovery.as_ref().is_some_and(|notes| !notes.verdict.is_empty());
        matches!(self.verdict, Some(Verdict::Failed { .. })) && self.anything_to_sweep() && !stored
    }

    /// Temporary files may be there, and nobody has removed them yet.
    pub(super) fn anything_to_sweep(&self) -> bool {
        let begun = self.plan.is_some() || self.verdict == Some(Verdict::Deleted);
        begun && self.job.publishes() && !self.chore.swept
    }

    /// For a deleted job no pod is made: when none is left, nobody will come.
    fn nobody_can_sweep(&self) -> bool {
        self.verdict == Some(Verdict::Deleted) && self.pool.nobody_stays()
    }

    /// The end is stored: people may hear of it.
    pub(super) fn announce_end(&mut self) {
        match self.conclusion.clone() {
            Some((Verdict::Complete, _)) => {
                self.announce(false, "Complete", format!("{} shards succeeded", self.shards.total()));
            }
            Some((Verdict::Failed { reason, message }, _)) => {
                self.announce(true, "Failed", format!("{reason}: {message}"));
            }
            Some((Verdict::Deleted, _)) | None => {}
        }
    }

    fn settled_verdict(&self) -> Verdict {
        let (failed, total) = (self.shards.failed().len(), self.shards.total());
        if failed == 0 {
            return Verdict::Complete;
        }
        let latest = self.latest_failure();
        let message = format!("{failed} of {total} shards failed: {}; the latest: {latest}", self.shards.failed());
        Verdict::Failed { reason: "FailedShards".into(), message }
    }

    fn latest_failure(&self) -> &str {
        let latest = self.failures.iter().max_by_key(|sample| sample.last_time.as_ref().map(|time| time.0));
        latest.map_or("none is known", |sample| &sample.message)
    }
}
