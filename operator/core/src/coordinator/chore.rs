//! Work for one worker that is not a shard: planning before all shards, the last command and sweeping after them.

use hyperflow_api::{
    ids::Epoch,
    message::{Grant, Owner, Revoked, Target},
};

use super::{Coordinator, Verdict};
use crate::{
    Now,
    reasons::NotNow,
    shards::{Lease, Seat},
};

/// Work for one worker that is not a shard: planning before all shards, the last command and sweeping after them.
#[derive(Clone, Debug, Default)]
pub(super) struct Chore {
    pub(super) lease: Option<(Target, Lease)>,
    /// Failed attempts at planning, or at the last command.
    pub(super) failures: u32,
    /// Not before this time.
    pub(super) not_before: u64,
    /// Who the names of the results belong to, until it is known whether that job is gone (P31).
    pub(super) owner: Option<Owner>,
    /// That is being found out.
    pub(super) asked: bool,
    /// It is: the next plan may take its claim over.
    pub(super) heir_of: Option<u64>,
    /// The last command has succeeded.
    pub(super) finalized: bool,
    /// Nothing temporary is left, or nobody could remove it.
    pub(super) swept: bool,
    /// When the end of the job stops waiting for that.
    pub(super) sweep_by: Option<u64>,
}

impl Chore {
    pub(super) fn renew(&mut self, target: Target, epoch: Epoch, deadline: u64) -> bool {
        match &mut self.lease {
            Some((held, lease)) if *held == target && lease.epoch == epoch => {
                lease.deadline = deadline;
                true
            }
            _ => false,
        }
    }

    pub(super) fn end(&mut self, target: Target, epoch: Epoch) -> bool {
        let live = self.lease.is_some_and(|(held, lease)| held == target && lease.epoch == epoch);
        if live {
            self.lease = None;
        }
        live
    }

    pub(super) fn lost(&mut self, seat: Seat, target: Target) {
        if self.lease.is_some_and(|(held, lease)| held == target && lease.seat == seat) {
            self.lease = None;
        }
    }
}

impl Coordinator {
    /// Work that comes before or after all shards, if it is time for it.
    pub(super) fn next_chore(&self, now: Now) -> Result<Option<Target>, NotNow> {
        let (target, under_way) = match (&self.plan, &self.verdict) {
            _ if self.verdict_must_be_stored() => return Err(NotNow::Sweeping),
            (_, Some(verdict)) if self.anything_to_sweep() => {
                (Target::Sweep, if *verdict == Verdict::Deleted { NotNow::Deleting } else { NotNow::Sweeping })
            }
            (None, None) => (Target::Plan, NotNow::Planning),
            (Some(_), None) if self.finally_is_due() => (Target::Finally, NotNow::Finalizing),
            (Some(_), None) => return Ok(None),
            _ => return Err(NotNow::Finished),
        };
        if self.chore.lease.is_some() {
            return Err(under_way);
        }
        // Whoever sweeps waits for nothing that failed before.
        if now.millis < self.chore.not_before && target != Target::Sweep {
            return Err(if target == Target::Plan { NotNow::PlanBackingOff } else { under_way });
        }
        if self.chore.owner.is_some() {
            return Err(NotNow::OwnerUnknown);
        }
        Ok(Some(target))
    }

    pub(super) fn grant_chore(&mut self, now: Now, seat: Seat, target: Target) {
        let lease = self.lease(now, seat);
        self.chore.lease = Some((target, lease));
        let attempt = 1 + self.chore.failures;
        let heir_of = self.chore.heir_of;
        let probe = match target {
            // Who deletes a job waits for it to go, not for a report.
            Target::Sweep => self.verdict != Some(Verdict::Deleted),
            Target::Finally => true,
            Target::Plan | Target::Shard(_) => false,
        };
        let grant = Grant { target, epoch: lease.epoch, attempt, replaces: None, probe, resume: None, heir_of };
        self.offer(seat, grant);
    }

    pub(super) fn revoke_chore(&mut self) {
        if let Some((target, lease)) = self.chore.lease.take() {
            self.revoke(lease.seat, Revoked { target, epoch: lease.epoch });
        }
    }
}
