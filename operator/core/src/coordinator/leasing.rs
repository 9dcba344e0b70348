//! Who gets what next, and when leases end.

use std::collections::{BTreeMap, BTreeSet};

use hyperflow_api::{
    ids::Epoch,
    message::{Grant, Held, Revoked, Target},
};

use super::{Coordinator, Effect, Worker};
use crate::{
    Now,
    blocks::BLOCKS_BYTES,
    reasons::NotNow,
    recovery::RECORD_BYTES,
    shards::{Asking, Lease, Leased, Seat, Waiting},
};

/// Most unfinished holes (P14). Few enough that the worst-case record of each, and the range that it cuts in two, fit the
/// hard size of a status together with [`FAILED_MOST`] (P15).
pub const WINDOW: usize = 1024;

/// Most shards that may be given up before the job is: their indexes are kept in status one by one.
pub const FAILED_MOST: u32 = 2048;

/// Most bytes of a status: etcd takes six times as much, but keeps every revision for minutes.
pub const STATUS_BYTES: usize = 256 * 1024;

/// Bytes of a range such as `123456-234567,`, and of a single index.
const RANGE_BYTES: usize = 14;
const INDEX_BYTES: usize = 7;

const _: () = assert!(
    WINDOW * (RECORD_BYTES + RANGE_BYTES) + FAILED_MOST as usize * (RANGE_BYTES + INDEX_BYTES) + BLOCKS_BYTES
        <= STATUS_BYTES,
    "a status could outgrow its hard size"
);

/// Which worker is offered work first: the order of the fields is the policy, the seat settles ties.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// Leases per slot, in thousandths: the least loaded first.
    load: u32,
    /// Milliseconds for a shard: of those alike loaded, the fastest first.
    shard_millis: u64,
    seat: Seat,
}

impl Coordinator {
    /// A worker that had a lease before says that it goes on with it: re-issued under an epoch of ours, unless somebody
    /// else has it by now (P18). Asked again, the answer is the same.
    pub(super) fn represented(&mut self, now: Now, seat: Seat, held: &Held) {
        let Held { target, epoch: claimed, position } = *held;
        let Target::Shard(index) = target else {
            let live = self.chore.renew(target, claimed, now.millis + self.limits.lease_millis);
            if !live {
                self.revoke(seat, Revoked { target, epoch: claimed });
            }
            return;
        };
        let held = self.shards.leased().get(&index).map(|leased| (leased.of(seat), leased.history));
        let again = |lease: Lease| Lease { replaces: Some(claimed), from: position, position, ..lease };
        let reissued = match held {
            Some((Some(lease), _)) if lease.epoch == claimed => {
                self.shards.renew(index, claimed, now.millis + self.limits.lease_millis, position);
                return;
            }
            Some((Some(lease), history)) if lease.replaces == Some(claimed) => Some((lease, history)),
            Some((None, _)) if self.may_rejoin(index, claimed) => {
                let lease = again(self.lease(now, seat));
                self.shards.duplicate(index, lease).map(|history| (lease, history))
            }
            None if self.plan.is_some() && self.verdict.is_none() && !self.is_suspended() => {
                let lease = again(self.lease(now, seat));
                self.shards.grant(index, lease).map(|history| (lease, history))
            }
            _ => None,
        };
        match reissued {
            Some((lease, history)) => {
                self.offer(seat, Grant { attempt: history.attempt(), ..reissue(target, lease.epoch, claimed) });
            }
            None => self.revoke(seat, Revoked { target, epoch: claimed }),
        }
    }

    /// The live lease of a worker on a target.
    pub(super) fn lease_of(&self, seat: Seat, target: Target) -> Option<Lease> {
        match target {
            Target::Shard(index) => self.shards.leased().get(&index).and_then(|leased| leased.of(seat)),
            Target::Plan | Target::Finally | Target::Sweep => {
                let lease = self.chore.lease.filter(|(held, _)| *held == target).map(|(_, lease)| lease);
                lease.filter(|lease| lease.seat == seat)
            }
        }
    }

    pub(super) fn lease(&mut self, now: Now, seat: Seat) -> Lease {
        self.sequence += 1;
        let epoch = Epoch { takeover: self.takeover, sequence: self.sequence };
        let deadline = now.millis + self.limits.lease_millis;
        Lease { epoch, seat, deadline, replaces: None, since: now.millis, from: 0, position: 0 }
    }

    pub(super) fn offer(&mut self, seat: Seat, grant: Grant) {
        if let Some(worker) = self.workers.get_mut(&seat) {
            worker.held.insert(grant.target);
            worker.orders.grants.push(grant);
        }
        self.writer.touch();
    }

    /// Gives work to everyone who would take some, until there is a reason not to.
    pub(super) fn grant(&mut self, now: Now) {
        let reason = loop {
            if let Err(reason) = self.grant_one(now) {
                break reason;
            }
        };
        if reason == NotNow::ReservationPending {
            self.writer.reserve_more();
        }
        if matches!(reason, NotNow::AllLeased | NotNow::LeftToFaster) {
            self.duplicate_stragglers(now);
        }
        if reason.reason() != self.not_now.reason() {
            self.writer.touch();
        }
        self.not_now = reason;
    }

    fn grant_one(&mut self, now: Now) -> Result<(), NotNow> {
        if !self.writer.term_is_stored() {
            return Err(NotNow::TermNotStored);
        }
        if self.conclusion.is_some() || self.gives_way {
            return Err(NotNow::Finished);
        }
        let chore = self.next_chore(now)?;
        if self.is_suspended() {
            return Err(NotNow::Suspended);
        }
        if self.room.waits(now.millis) && chore != Some(Target::Sweep) {
            return Err(NotNow::OutputFull);
        }
        let (mut passed_over, mut why) = (BTreeSet::new(), None);
        loop {
            let rank = self.least_loaded(now, chore, &passed_over);
            let Rank { seat, .. } = rank.map_err(|idle| why.unwrap_or(idle))?;
            let granted = match chore {
                Some(target) => {
                    self.grant_chore(now, seat, target);
                    Ok(())
                }
                None if self.is_too_slow(now, seat) => Err(NotNow::LeftToFaster),
                None => self.grant_shard(now, seat),
            };
            match granted {
                // Another worker may take what this one must not.
                Err(reason @ (NotNow::SuspectsApart | NotNow::LeftToFaster | NotNow::LeftToOthers)) => {
                    passed_over.insert(seat);
                    why = Some(reason);
                }
                granted => return granted,
            }
        }
    }

    /// A worker that may be given work, if it has room: present, and on a node that takes new leases.
    pub(super) fn takes_leases(&self, now: Now, worker: &Worker) -> bool {
        self.is_present(now, worker) && self.nodes.unfit(&worker.node).is_none()
    }

    /// A worker that is heard and not about to go. One that is silent for a lease would be given back at once what it has
    /// just lost.
    fn is_present(&self, now: Now, worker: &Worker) -> bool {
        let heard = now.millis < worker.heard + self.limits.lease_millis;
        worker.welcomed && worker.session.is_some() && heard && !worker.leaving
    }

    /// Nodes whose workers get nothing as long as there are others.
    pub(super) fn failing_nodes(&self, now: Now) -> BTreeSet<&str> {
        let takers = self.workers.values().filter(|worker| self.takes_leases(now, worker));
        self.nodes.failing(now.millis, takers.map(|worker| worker.node.as_str()))
    }

    /// The worker to give work to, of those that take more.
    fn least_loaded(&self, now: Now, chore: Option<Target>, passed_over: &BTreeSet<Seat>) -> Result<Rank, NotNow> {
        // To clean up takes a moment, and whoever is left can do it.
        let anywhere = chore == Some(Target::Sweep);
        let failing = self.failing_nodes(now);
        let rank = |(&seat, worker): (&Seat, &Worker)| {
            let held = u32::try_from(worker.held.len()).unwrap_or(u32::MAX);
            let sound = self.takes_leases(now, worker) && !failing.contains(worker.node.as_str());
            let takes = held < self.may_hold(worker)
                && (sound || anywhere && self.is_present(now, worker))
                && !passed_over.contains(&seat);
            let load = held.saturating_mul(1000) / worker.slots;
            takes.then(|| Rank { load, shard_millis: worker.shard_millis(now), seat })
        };
        self.workers.iter().filter_map(rank).min().ok_or_else(|| self.why_idle(now))
    }

    /// How many leases a worker may have. Before anything has succeeded none is ahead of its slots: where all shards fail
    /// alike, no more of them are tried than it takes to see that.
    fn may_hold(&self, worker: &Worker) -> u32 {
        if self.shards.done().is_empty() { worker.capacity.min(worker.slots) } else { worker.capacity }
    }

    /// Why no worker takes more.
    fn why_idle(&self, now: Now) -> NotNow {
        let welcomed = || self.workers.values().filter(|worker| worker.welcomed);
        if welcomed().next().is_none() && self.job.parallelism == 0 {
            NotNow::NoneWanted
        } else if welcomed().next().is_none() {
            NotNow::NoWorker
        } else if !welcomed().any(|worker| self.takes_leases(now, worker)) {
            NotNow::NodesUnfit
        } else {
            NotNow::SlotsFull
        }
    }

    fn has_suspect(&self, seat: Seat) -> bool {
        let suspect = |leased: &Leased| leased.history.suspect && leased.of(seat).is_some();
        self.shards.leased().values().any(suspect)
    }

    fn grant_shard(&mut self, now: Now, seat: Seat) -> Result<(), NotNow> {
        let asking = Asking {
            now: now.millis,
            claims_stand: self.claims_until.is_some(),
            // Looked for only where there are any, for this is asked for every grant.
            with_suspect: self.shards.any_suspect_waits() && self.has_suspect(seat),
            limit: self.writer.reserved(),
            window: WINDOW,
        };
        let elsewhere = |index, waiting: &Waiting| self.is_left_to_others(now, seat, index, waiting);
        let index = self.shards.candidate(&asking, elsewhere)?;
        let index = self.nearest(now, seat, index)?;
        self.elsewhere.remove(&index);
        let probe = self.shards.limbo().contains(index);
        let from = self.shards.history(index).and_then(|history| history.checkpoint).map_or(0, |it| it.position);
        let lease = Lease { from, ..self.lease(now, seat) };
        let Some(history) = self.shards.grant(index, lease) else { return Err(NotNow::AllLeased) };
        let grant = Grant {
            target: Target::Shard(index),
            epoch: lease.epoch,
            attempt: history.attempt(),
            replaces: None,
            probe: probe || history.attempt() > 1,
            resume: history.checkpoint,
            heir_of: None,
        };
        self.writer.granted();
        self.estimate.granted(now.millis);
        self.offer(seat, grant);
        Ok(())
    }

    /// Leases that were not renewed, and workers whose stream did not come back.
    pub(super) fn end_what_ran_out(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.end_silent_workers(now, effects);
        let over = |lease: &Lease| now.millis >= lease.deadline;
        let mut expired: BTreeMap<Seat, Vec<Revoked>> = BTreeMap::new();
        let leases =
            self.shards.leased().iter().flat_map(|(&index, leased)| leased.leases().map(move |it| (index, *it)));
        for (index, Lease { epoch, seat, .. }) in leases.filter(|(_, lease)| over(lease)) {
            expired.entry(seat).or_default().push(Revoked { target: Target::Shard(index), epoch });
        }
        for (seat, leases) in expired {
            let targets: Vec<Target> = leases.iter().map(|lease| lease.target).collect();
            self.lose(now, seat, &targets, false);
            leases.into_iter().for_each(|lease| self.revoke(seat, lease));
        }
        if self.chore.lease.is_some_and(|(_, lease)| over(&lease)) {
            self.revoke_chore();
        }
    }

    /// What nobody claimed after a take-over is free when every pod of the pool has said what it holds, or after one
    /// lease (P18).
    pub(super) fn let_claims_fall(&mut self, now: Now) {
        let Some(until) = self.claims_until else { return };
        let spoken = |uid: &str| self.workers.values().any(|worker| worker.welcomed && worker.id.pod_uid == uid);
        if now.millis >= until || self.pool.all(spoken) {
            self.claims_until = None;
            self.measure_anew(now);
            self.shards.release_claims(now.millis);
        }
    }

    pub(super) fn next_lease_wake(&self, now: Now) -> Option<u64> {
        let deadlines = self.shards.leased().values().flat_map(Leased::leases).map(|lease| lease.deadline).min();
        let chore = self.chore.lease.map(|(_, lease)| lease.deadline);
        let sweep = self.sweeps_until().filter(|_| self.conclusion.is_none());
        let begins = (self.plan.is_none() || self.finally_is_due()) && self.chore.lease.is_none();
        let start = Some(self.chore.not_before).filter(|at| begins && *at > now.millis);
        [deadlines, chore, sweep, start, self.shards.next_due(now.millis)].into_iter().flatten().min()
    }
}

/// The worker runs it already: it goes on under the new epoch, from where it is.
fn reissue(target: Target, epoch: Epoch, replaces: Epoch) -> Grant {
    Grant { target, epoch, attempt: 1, replaces: Some(replaces), probe: false, resume: None, heir_of: None }
}
