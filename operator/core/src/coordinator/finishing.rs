//! The last command: once, when every shard is settled and the job is to be Complete, before anything is swept.
//!
//! That it has succeeded is stored before the sweep, for what it reads is gone then. An operator that dies before that has
//! it run again: at least once, and its result is published once.

use hyperflow_api::{
    ids::Epoch,
    message::{Failure, Target},
};

use super::{Coordinator, Verdict};
use crate::Now;

impl Coordinator {
    /// Everything is done but the last command.
    pub(super) fn finally_is_due(&self) -> bool {
        let wanted = self.job.finally.is_some() && !self.chore.finalized;
        let open = self.plan.is_some() && self.verdict.is_none();
        wanted && open && self.shards.are_settled() && self.settled_verdict() == Verdict::Complete
    }

    /// It has succeeded, which status must say as long as the job has not ended.
    pub(crate) fn is_finalized(&self) -> bool {
        self.chore.finalized && self.conclusion.is_none()
    }

    pub(super) fn learn_finalized(&mut self, epoch: Epoch) {
        if self.chore.end(Target::Finally, epoch) {
            self.chore.finalized = true;
            self.announce(false, "Finalized", "the last command has succeeded".into());
            self.writer.touch();
        }
    }

    /// It failed, and no attempt is left.
    pub(super) fn finally_failed(&mut self, now: Now, failure: &Failure) {
        let message = format!("all shards are settled, and `finally` failed: {}", failure.message);
        self.fail_job(now, "FinallyFailed", &message);
    }

    /// It has succeeded, and another operator could not read that yet.
    pub(super) fn finalized_must_be_stored(&self) -> bool {
        let stored = self.last_status().recovery.as_ref().is_some_and(|notes| notes.finalized);
        self.is_finalized() && !stored
    }
}
