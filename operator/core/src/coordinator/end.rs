//! How and when the job ends: all shards settled or no hope left, the last command, then swept, then said.

use hyperflow_api::message::{Revoked, Target};

use super::{Coordinator, Effect, facts::shorten, leasing::FAILED_MOST};
use crate::{
    Now, ranges::RangeSet, reasons::SUCCEEDED_WITH_FAILURES, shards::Shards, status, tolerance::all_fail_alike,
};

/// How long the end of a job waits for somebody to remove temporary files.
pub(super) const SWEEP_MILLIS: u64 = 30_000;

/// How much longer it waits for a worker that is at it, for the report of a million shards takes its time.
const REPORT_MILLIS: u64 = 600_000;

/// How long a deleted object waits for the same: less than the thirty seconds that are promised.
const REMOVAL_MILLIS: u64 = 25_000;

/// The reason of a job in which more shards failed than may.
const TOO_MANY: &str = "MaxFailedShardsExceeded";

/// Most bytes of the indexes in a message: all of them are in `status.shards`.
const LISTED_BYTES: usize = 256;

/// How the job ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Every shard is published, or as many as must be.
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

    pub(super) fn end_leases(&mut self, now: Now) {
        for (index, leased) in self.shards.end_all(now.millis) {
            for lease in leased.leases() {
                self.revoke(lease.seat, Revoked { target: Target::Shard(index), epoch: lease.epoch });
            }
        }
        self.revoke_chore();
    }

    /// Decides the end: all shards settled, then swept, then said.
    pub(super) fn conclude(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.gives_way {
            return;
        }
        self.stop_early(now);
        if self.plan.is_some() && self.verdict.is_none() && self.shards.are_settled() && !self.finally_is_due() {
            self.verdict = Some(self.settled_verdict());
            self.chore.sweep_by = Some(now.millis + SWEEP_MILLIS);
            self.chore.failures = 0;
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

    /// What is swept cannot be gone on with: before that, another operator must be able to read that the job fails, or that
    /// its last command has succeeded.
    pub(super) fn verdict_must_be_stored(&self) -> bool {
        let last = Some(self.last_status()).filter(|last| status::run_of(last) == self.run);
        let stored = last.and_then(|last| last.recovery.as_ref()).is_some_and(|notes| !notes.verdict.is_empty());
        let failed = matches!(self.verdict, Some(Verdict::Failed { .. })) && !stored;
        let finalized = self.verdict == Some(Verdict::Complete) && self.finalized_must_be_stored();
        (failed || finalized) && self.anything_to_sweep()
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
                let (_, message) = success(&self.shards);
                self.announce(false, "Complete", message);
            }
            Some((Verdict::Failed { reason, message }, _)) => {
                self.announce(true, "Failed", format!("{reason}: {message}"));
            }
            Some((Verdict::Deleted, _)) | None => {}
        }
    }

    /// What ends a job before all of its shards are settled, or as soon as they are.
    fn stop_early(&mut self, now: Now) {
        if self.verdict.is_some() {
            return;
        }
        if let Some(sample) = all_fail_alike(&self.shards, &self.failures) {
            let failed = self.shards.failed().len();
            let message = format!(
                "the first {failed} shards all failed with {} {}, and none succeeded: {}. The others were not tried. Correct \
                 the task or its input, then set another `spec.rerun.nonce`",
                sample.class, sample.reason, sample.message
            );
            self.fail_job(now, "AllShardsFailAlike", &message);
        } else if self.job.tolerance.stops && self.job.tolerance.is_exceeded(&self.shards) {
            if let Verdict::Failed { reason, message } = self.settled_verdict() {
                self.fail_job(now, &reason, &message);
            }
        } else if self.shards.failed().len() > FAILED_MOST && !self.shards.are_settled() {
            let message = format!("more than {FAILED_MOST} shards failed; the latest: {}", self.latest_failure());
            self.fail_job(now, TOO_MANY, &message);
        }
    }

    /// How the job ends, all of whose shards are settled.
    pub(super) fn settled_verdict(&self) -> Verdict {
        if !self.job.tolerance.is_exceeded(&self.shards) {
            return Verdict::Complete;
        }
        let allowed = self.job.tolerance.allowed(self.shards.total());
        let (reason, limit) = match allowed {
            0 => ("FailedShards", String::new()),
            _ => (TOO_MANY, format!(", and `maxFailedShards` allows {allowed}")),
        };
        let (failed, latest) = (failed_shards(&self.shards), self.latest_failure());
        Verdict::Failed { reason: reason.into(), message: shorten(&format!("{failed}{limit}; the latest: {latest}")) }
    }

    fn latest_failure(&self) -> &str {
        let latest = self.failures.iter().max_by_key(|sample| sample.last_time.as_ref().map(|time| time.0));
        latest.map_or("none is known", |sample| &sample.message)
    }
}

/// Reason and message of a job that is complete.
pub(crate) fn success(shards: &Shards) -> (&'static str, String) {
    match shards.failed().len() {
        0 => ("AllShardsSucceeded", format!("{} shards succeeded", shards.total())),
        _ => (SUCCEEDED_WITH_FAILURES, format!("{}, which `maxFailedShards` allows", failed_shards(shards))),
    }
}

fn failed_shards(shards: &Shards) -> String {
    format!("{} of {} shards failed: {}", shards.failed().len(), shards.total(), listed(shards.failed()))
}

/// Indexes, as many as people would read.
fn listed(indexes: &RangeSet) -> String {
    let all = indexes.to_string();
    match all.get(..LISTED_BYTES).and_then(|some| some.rsplit_once(',')) {
        Some((some, _)) if all.len() > LISTED_BYTES => format!("{some},…"),
        _ => all,
    }
}
