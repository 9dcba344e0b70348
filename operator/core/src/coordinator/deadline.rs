//! `spec.activeDeadlineSeconds`: the time in which the job is not suspended is limited.

use super::Coordinator;
use crate::Now;

impl Coordinator {
    /// The clock goes, and the end is estimated, unless the job rests or its end is decided.
    pub(super) fn mind_clock(&mut self, now: Now) {
        if self.is_suspended() || self.verdict.is_some() {
            self.clock.stop(now);
            self.estimate.rest();
        } else {
            self.clock.start(now);
            if self.estimate.rests() {
                self.estimate.begin();
            }
        }
    }

    /// What comes now says nothing of how fast shards are published, or it begins here.
    pub(super) fn measure_anew(&mut self, now: Now) {
        self.estimate.rest();
        self.mind_clock(now);
    }

    /// Ends a job whose time is over. What the spec says now counts: it may be raised until then.
    pub(super) fn end_in_time(&mut self, now: Now) {
        let limit = self.seen.spec.active_deadline_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let Some(limit) = limit.filter(|limit| self.clock.millis(now) >= limit.saturating_mul(1000)) else { return };
        if self.verdict.is_some() || self.is_suspended() {
            return;
        }
        let (so_far, remedy) = match self.plan {
            Some(_) => {
                let (done, total) = (self.shards.done().len(), self.shards.total());
                let so_far = format!("{done} of {total} shards were done, and their results stay");
                (so_far, "Create another ShardJob with a larger one, or with a larger `spec.parallelism`")
            }
            None => ("there was no plan yet".into(), "Raise it: the job then goes on"),
        };
        let message = format!(
            "the job was active for {limit} s, which is `spec.activeDeadlineSeconds`: {so_far} (time suspended does not \
             count). {remedy}."
        );
        self.fail_job(now, "DeadlineExceeded", &message);
    }
}
