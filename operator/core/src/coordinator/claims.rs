//! Names of results that belong to another job (P8), and results of a job that is gone (P31).

use hyperflow_api::{
    ids::{Epoch, JobUid},
    message::{Owner, Target},
};

use super::{Coordinator, Effect};
use crate::{Now, claim};

impl Coordinator {
    /// The planner met a claim that may be taken over if its owner is gone. Only the API server knows.
    pub(super) fn learn_claimed(&mut self, epoch: Epoch, owner: Owner) {
        if self.chore.end(Target::Plan, epoch) && self.plan.is_none() {
            self.chore.owner = Some(owner);
            self.writer.touch();
        }
    }

    /// Asks who the owner of the claim is, once for each time that the planner met it.
    pub(super) fn ask_for_owner(&mut self, effects: &mut Vec<Effect>) {
        if let Some(owner) = self.chore.owner.as_ref().filter(|_| !self.chore.asked) {
            effects.push(Effect::FindOwner(owner.clone()));
            self.chore.asked = true;
        }
    }

    /// The answer. None: it could not be found out, and is asked again by the next plan.
    pub(super) fn owner_seen(&mut self, now: Now, uid: &JobUid, lives: Option<bool>) {
        let Some(owner) = self.chore.owner.take_if(|owner| owner.uid == *uid) else { return };
        self.chore.asked = false;
        match lives {
            Some(true) => {
                let message = claim::belongs(&self.job, &owner, ", which still exists. Nothing was written. Delete it");
                self.fail_job(now, "OutputClaimed", &message);
            }
            Some(false) => self.chore.heir_of = Some(claim::digest(uid)),
            None => self.chore.not_before = now.millis + OWNER_MILLIS,
        }
    }
}

/// Until an owner that could not be found out about is asked for again.
const OWNER_MILLIS: u64 = 5000;
