//! What the resource asks for: the plan of numbers, changes of the spec, suspending and deleting.

use hyperflow_api::message::Planned;

use super::{Coordinator, Effect, Seen};
use crate::{
    Now,
    job::{Brief, Job},
    shards::Shards,
};

impl Coordinator {
    pub(super) fn job_seen(&mut self, now: Now, seen: Seen, effects: &mut Vec<Effect>) {
        self.suspended_or_resumed(&seen);
        if self.conclusion.is_some() {
            // What is concluded speaks of the spec as it was. Where a change may open the job again, because there is no
            // plan, another desk does so when this one has cleared its pool.
            return;
        }
        let spec_changed = seen.spec != self.seen.spec;
        if spec_changed || seen.generation != self.seen.generation || seen.deleting != self.seen.deleting {
            self.writer.touch();
            effects.push(Effect::LookAtPool);
        }
        let job = if spec_changed { Job::check(&seen.spec) } else { Ok(self.job.clone()) };
        // A deletion is never taken back: who does not speak of it looks at an old list.
        self.seen = Seen { deleting: seen.deleting || self.seen.deleting, ..seen };
        if self.seen.deleting {
            return self.remove_job(now);
        }
        self.mind_clock(now);
        if job.as_ref().is_ok_and(|job| self.gives_way(now, job)) {
            return;
        }
        self.brief = brief(&self.seen, self.run);
        self.workers_digest = super::workers_digest(&self.seen.spec);
        match job {
            Ok(job) if job.frozen == self.frozen => self.job = job,
            Ok(job) if self.plan.is_none() => {
                self.frozen.clone_from(&job.frozen);
                self.job = job;
                self.revoke_chore();
                self.plan_numbers(now);
            }
            Ok(_) => {
                let message = "`source`, `task` or `output` were changed after planning: create another ShardJob, or change `task` \
                               together with `rerun.nonce`";
                self.fail_job(now, "SpecChanged", message);
            }
            Err(refusal) => self.fail_job(now, "InvalidSpec", &refusal.to_string()),
        }
    }

    /// Where nothing is kept, numbers and items in the spec need no worker to plan them: that is arithmetic.
    pub(super) fn plan_numbers(&mut self, now: Now) {
        if let (Some(shards), None) = (self.job.counted(), &self.plan) {
            let digest = self.job.frozen.clone();
            self.planned(now, Planned { shards, files: 0, bytes: 0, digest, url: String::new() });
        }
    }

    pub(super) fn planned(&mut self, now: Now, plan: Planned) {
        self.shards = Shards::new(plan.shards);
        for index in std::mem::take(&mut self.early).iter() {
            self.shards.published(index);
        }
        let message = match plan.files {
            0 => format!("{} shards", plan.shards),
            files => {
                format!("{} file(s), {} bytes, {} shards (plan {:.18})", files, plan.bytes, plan.shards, plan.digest)
            }
        };
        self.announce(false, "Planned", message);
        self.plan = Some((plan, now.unix));
        self.chore.failures = 0;
        self.measure_anew(now);
        self.writer.touch();
    }

    /// The job is to rest. One whose end is decided is past that.
    pub(crate) fn is_suspended(&self) -> bool {
        self.seen.spec.suspend && self.verdict.is_none()
    }

    fn suspended_or_resumed(&mut self, seen: &Seen) {
        match (self.seen.spec.suspend, seen.spec.suspend) {
            (false, true) => self.announce(false, "Suspended", "workers write checkpoints and leave".into()),
            (true, false) => self.announce(false, "Resumed", "shards go on from their checkpoints".into()),
            _ => {}
        }
    }
}

pub(super) fn brief(seen: &Seen, run: u32) -> String {
    let Seen { uid, namespace, name, spec, .. } = seen;
    let (uid, namespace, name) = (uid.clone(), namespace.clone(), name.clone());
    // A spec came from JSON, so it can be written as JSON; an empty text is refused by the worker.
    serde_json::to_string(&Brief { uid, namespace, name, run, spec: spec.clone() }).unwrap_or_default()
}
