//! Blocks, as far as the coordinator minds them: who is in session, what workers are told, which shards are near (P28 to
//! P30). What is decided on copies is in `crate::blocks`.

use std::collections::BTreeSet;

use hyperflow_api::{
    ids::ShardIndex,
    message::{Failure, Target},
    replica::{Holdings, Host, Peer},
    status::BlockCounts,
};

use super::{Coordinator, Worker, leasing::WINDOW};
use crate::{
    Now,
    blocks::{Around, Figures, Keeper, Notes, Presence, Store, StoreId, first_fresh, group_of, groups, shards_of},
    reasons::{NO_INPUT, NotNow},
    shards::Seat,
};

/// Longest that a worker without a shard near it waits for one of those that have it near to take it.
const PATIENCE_MILLIS: u64 = 3000;

/// Where shards take less than this, nobody waits: to read elsewhere costs no more.
const TINY_MILLIS: u64 = 100;

impl Coordinator {
    /// Figures of the job's blocks, if it has any.
    #[must_use]
    pub fn block_figures(&self) -> Option<Figures> {
        self.blocks_are_kept().then(|| self.blocks.figures())
    }

    /// For the status.
    pub(crate) fn block_counts(&self) -> Option<BlockCounts> {
        self.blocks_are_kept().then(|| self.blocks.counts())
    }

    /// There is a plan, and copies of it are kept.
    pub(crate) fn blocks_are_kept(&self) -> bool {
        self.job.blocks.is_some() && self.plan.is_some()
    }

    /// What an earlier operator process left, if it is of the plan in force.
    pub(super) fn restore_blocks(&mut self, now: Now, notes: Notes) {
        self.blocks = Keeper::of_term(self.takeover.term);
        if let (Some((plan, _)), true) = (&self.plan, self.blocks_are_kept()) {
            self.blocks.restore(now.millis, &plan.digest, groups(plan.shards), notes);
        }
    }

    /// A worker opened a session.
    pub(super) fn host_greets(&mut self, seat: Seat, host: Option<&Host>) {
        if let Some(host) = host {
            self.blocks.greeted(&host.store);
            self.blocks.forget_told(seat);
        }
    }

    /// News of a worker's store.
    pub(super) fn stocked(&mut self, now: Now, seat: Seat, holdings: &Holdings) {
        let Some(worker) = self.workers.get(&seat) else { return };
        let Some((id, persistent)) = worker.host.as_ref().map(|host| (store_of(host), host.persistent)) else { return };
        let node = worker.node.clone();
        if self.job.blocks.is_none() {
            return;
        }
        self.follow_plan();
        if !self.blocks.knows(&id) {
            self.look_at_blocks(now, false);
            self.blocks.remember(now.millis, &id, &node, persistent);
        }
        self.blocks.take_in(now.millis, &id, holdings);
    }

    /// Looks at all copies, if it is time for that, and orders what is to be loaded and dropped.
    pub(super) fn mind_blocks(&mut self, now: Now) {
        if self.job.blocks.is_some() && self.blocks.is_due(now.millis) {
            self.look_at_blocks(now, true);
        }
    }

    fn follow_plan(&mut self) {
        if let (Some((plan, _)), Some(policy)) = (&self.plan, self.job.blocks) {
            self.blocks.follow(&plan.digest, groups(plan.shards), policy.replicas);
        }
    }

    fn look_at_blocks(&mut self, now: Now, orders: bool) {
        self.follow_plan();
        let mut keeper = std::mem::take(&mut self.blocks);
        let rests = self.verdict.is_some() || self.conclusion.is_some() || self.is_suspended() || self.gives_way;
        let term_is_stored = self.writer.term_is_stored();
        let around = Around {
            now: now.millis,
            job: &self.seen.uid,
            lease_millis: self.limits.lease_millis,
            lost_millis: self.limits.blocks_lost_millis,
            in_session: self.workers.values().filter(|it| it.session.is_some()).filter_map(store_in).collect(),
            plan_bytes: self.plan.as_ref().map_or(0, |(plan, _)| plan.bytes),
            runs: orders && self.plan.is_some() && !rests && term_is_stored,
            term_is_stored,
            desired: self.desired(),
            open: if orders { self.open_groups() } else { BTreeSet::new() },
            read: if orders { self.groups_read() } else { BTreeSet::new() },
            zones: self.nodes.zones.clone(),
        };
        let gone = |store: &Store| {
            let pod = store.pod.as_deref().filter(|_| !store.persistent);
            let pod_gone = pod.is_some_and(|pod| !self.pool.is_unknown() && self.pool.pod(pod).is_none());
            pod_gone || self.nodes.unfit(&store.node) == Some("NodeDeleted")
        };
        if orders {
            let (orders, changed) = keeper.look(&around, self.stores_present(now), gone);
            for (seat, order) in orders {
                if let Some(worker) = self.workers.get_mut(&seat) {
                    worker.orders.blocks.push(order);
                }
            }
            if changed {
                self.writer.touch();
            }
        } else {
            keeper.meet(&around, self.stores_present(now), gone);
        }
        self.announcements.append(&mut keeper.news);
        self.blocks = keeper;
    }

    /// Workers in session that keep blocks.
    fn stores_present(&self, now: Now) -> Vec<Presence> {
        let presence = |(&seat, worker): (&Seat, &Worker)| {
            let (host, session) = (worker.host.as_ref()?, worker.session?);
            let heard = now.millis < worker.heard + self.limits.lease_millis;
            if !worker.welcomed || !heard || self.nodes.gone(&worker.node).is_some() {
                return None;
            }
            Some(Presence {
                store: store_of(host),
                seat,
                session,
                peer: Peer { pod: worker.id.pod_uid.clone(), address: host.address.clone() },
                node: worker.node.clone(),
                persistent: host.persistent,
                capacity: host.capacity,
                fit: self.takes_leases(now, worker),
                leaving: worker.leaving,
            })
        };
        self.workers.iter().filter_map(presence).collect()
    }

    /// Groups with shards that are neither published nor given up: only these need copies.
    fn open_groups(&self) -> BTreeSet<u32> {
        let shards = &self.shards;
        let open = |group: &u32| {
            let range = shards_of(*group, shards.total());
            let settled = shards.done().count_in(range.clone()) + shards.failed().count_in(range.clone());
            settled < range.end - range.start
        };
        (0..groups(shards.total())).filter(open).collect()
    }

    fn group_of(&self, index: ShardIndex) -> u32 {
        group_of(index, self.shards.total())
    }

    /// What workers work on.
    fn groups_read(&self) -> BTreeSet<(Seat, u32)> {
        let of = |(&seat, worker): (&Seat, &Worker)| {
            let shards = worker.held.iter().filter_map(|target| match target {
                Target::Shard(index) => Some((seat, self.group_of(*index))),
                Target::Plan | Target::Finally | Target::Sweep => None,
            });
            shards.collect::<Vec<_>>()
        };
        self.workers.iter().filter(|(_, worker)| worker.session.is_some()).flat_map(of).collect()
    }

    /// Tells those that were just given shards where to read what their own stores lack, in the same orders.
    pub(super) fn tell_access(&mut self, now: Now) {
        if !self.blocks_are_kept() {
            return;
        }
        let total = self.shards.total();
        for (&seat, worker) in &mut self.workers {
            if worker.host.is_none() {
                continue;
            }
            let shards = worker.orders.grants.iter().filter_map(|grant| match grant.target {
                Target::Shard(index) => Some(group_of(index, total)),
                Target::Plan | Target::Finally | Target::Sweep => None,
            });
            for group in shards.collect::<BTreeSet<_>>() {
                worker.orders.blocks.extend(self.blocks.access(now.millis, seat, group));
            }
        }
    }

    /// A shard's input is not at its source, and there is a copy of it: whoever has that may come back, and is waited for as
    /// long as its store does not count as lost. Until then this is not the end of the job.
    pub(super) fn waits_for_copies(&self, index: ShardIndex, failure: &Failure) -> bool {
        let missing = failure.ends_job && failure.reason == NO_INPUT;
        missing && self.blocks_are_kept() && self.blocks.has_anywhere(self.group_of(index))
    }

    /// The shard that a worker is given, where `lowest` is the lowest that nobody has begun: one that is near it, or else
    /// that one. Out of order only as long as few pieces of the index are unfinished, for each stands in the status (P14).
    ///
    /// # Errors
    /// When it is left to those that have it near, for a moment.
    pub(super) fn nearest(&mut self, now: Now, seat: Seat, lowest: ShardIndex) -> Result<ShardIndex, NotNow> {
        let retry = self.shards.waiting().contains_key(&lowest);
        if retry || !self.blocks_are_kept() {
            return Ok(lowest);
        }
        let Some(local) = self.blocks.local(seat) else { return Ok(lowest) };
        let room = self.shards.holes() + self.shards.limbo().pieces() + 2 < WINDOW;
        let (claims_stand, limit) = (self.claims_until.is_some(), self.writer.reserved());
        if local.contains(&self.group_of(lowest)) {
            self.patience.remove(&seat);
            return Ok(lowest);
        }
        if let Some(near) = first_fresh(local, &self.shards, claims_stand, limit).filter(|_| room) {
            self.patience.remove(&seat);
            return Ok(near);
        }
        let until = match self.patience.get(&seat) {
            Some(until) => *until,
            None => {
                let until = now.millis + self.longest_patience();
                self.patience.insert(seat, until);
                until
            }
        };
        let waits = room && now.millis < until && self.blocks.is_local_elsewhere(self.group_of(lowest), seat);
        if waits { Err(NotNow::LeftToOthers) } else { Ok(lowest) }
    }

    /// Half of what a shard takes.
    fn longest_patience(&self) -> u64 {
        let median = self.pace.median().filter(|median| *median >= TINY_MILLIS);
        median.map_or(0, |median| (median / 2).min(PATIENCE_MILLIS))
    }

    /// When somebody's patience ends.
    pub(super) fn next_patience_wake(&self, now: Now) -> Option<u64> {
        self.patience.values().copied().filter(|until| *until > now.millis).min()
    }

    /// A process is gone.
    pub(super) fn forget_host(&mut self, seat: Seat) {
        self.patience.remove(&seat);
        self.blocks.forget_told(seat);
        self.blocks.stir();
    }
}

fn store_of(host: &Host) -> StoreId {
    StoreId::from(host.store.as_str())
}

fn store_in(worker: &Worker) -> Option<StoreId> {
    worker.host.as_ref().map(store_of)
}
