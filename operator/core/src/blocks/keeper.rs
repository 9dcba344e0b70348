//! Keeps the copies of a job's blocks: looks at what stores have, and says what is to be loaded and dropped.

mod counts;
mod news;
mod reading;
mod surplus;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use hyperflow_api::{
    ids::JobUid,
    replica::{BlockOrder, Holdings, Peer, Trouble},
};

pub(crate) use self::reading::first_fresh;
use super::{
    breaker::Breaker,
    map::Map,
    notes::Notes,
    repair::{FULL_MILLIS, Loads, Moment},
    rules::Copy,
    store::{Life, Presence, Store, StoreId},
    zones::Zones,
};
use crate::{coordinator::Announcement, ranges::RangeSet, shards::Seat};

/// Whoever is in session first would get all copies: so long the others are waited for.
const SETTLE_MILLIS: u64 = 10_000;

/// It is looked again after so long, if nothing happens.
const LOOK_MILLIS: u64 = 500;

/// What the coordinator knows, for one look.
pub(crate) struct Around<'a> {
    pub(crate) now: u64,
    pub(crate) job: &'a JobUid,
    pub(crate) lease_millis: u64,
    pub(crate) lost_millis: u64,
    /// Stores of workers in session, also of those whose nodes are taken for lost.
    pub(crate) in_session: BTreeSet<StoreId>,
    pub(crate) plan_bytes: u64,
    /// Shards are being processed: otherwise nothing is ordered.
    pub(crate) runs: bool,
    pub(crate) term_is_stored: bool,
    /// Workers that there should be.
    pub(crate) desired: usize,
    /// Groups with shards that are not settled.
    pub(crate) open: BTreeSet<u32>,
    /// Groups that a worker reads just now, with its seat.
    pub(crate) read: BTreeSet<(Seat, u32)>,
    /// Where nodes are.
    pub(crate) zones: Arc<Zones>,
}

/// All that is known and under way of a job's blocks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keeper {
    pub(super) map: Map,
    pub(super) loads: Loads,
    replicas: usize,
    breaker: Breaker,
    /// Something happened since the last look.
    stirred: bool,
    looked: u64,
    /// When the first copies were wanted.
    since: Option<u64>,
    /// Groups that once had all their copies.
    whole: RangeSet,
    /// All groups had, when it was last looked.
    all_whole: bool,
    warned: bool,
    under: usize,
    queued: usize,
    bytes_from_source: u64,
    bytes_from_peers: u64,
    /// What workers were told about where to read, and when.
    told: BTreeMap<(Seat, u32), (u64, Vec<Peer>)>,
    odd: BTreeSet<(u32, StoreId)>,
    pub(crate) news: Vec<Announcement>,
}

impl Keeper {
    pub(crate) fn of_term(term: u64) -> Self {
        Self { loads: Loads::of_term(term), ..Self::default() }
    }

    /// What an earlier operator process knew of this plan: nothing of it is confirmed.
    pub(crate) fn restore(&mut self, now: u64, plan: &str, groups: u32, notes: Notes) {
        plan.clone_into(&mut self.map.plan);
        self.map.groups = groups;
        notes.restore(now, &mut self.map);
    }

    /// What the next one is to know.
    pub(crate) fn notes(&self) -> String {
        Notes::of(&self.map).encode()
    }

    /// Which plan is in force, and how many copies are wanted.
    pub(crate) fn follow(&mut self, plan: &str, groups: u32, replicas: u32) {
        self.replicas = replicas as usize;
        if self.map.plan != plan {
            let other = !self.map.plan.is_empty();
            plan.clone_into(&mut self.map.plan);
            self.map.groups = groups;
            self.stirred = true;
            if other {
                self.map.forget_notes();
            }
        }
    }

    /// A store was heard of.
    pub(crate) fn knows(&self, store: &str) -> bool {
        self.map.stores.contains_key(store)
    }

    /// A store tells what it has while its node is taken for lost: that is kept for when the node is seen to be back, for it
    /// is told once in a session.
    pub(crate) fn remember(&mut self, now: u64, id: &StoreId, node: &str, persistent: bool) {
        let silent = || Store::new(node.to_owned(), persistent, Life::Silent(now));
        self.map.stores.entry(id.clone()).or_insert_with(silent);
    }

    /// Something happened that copies depend on.
    pub(crate) fn stir(&mut self) {
        self.stirred = true;
    }

    pub(crate) fn greeted(&mut self, store: &str) {
        self.map.greeted(store);
        self.stirred = true;
    }

    /// A store's news.
    pub(crate) fn take_in(&mut self, now: u64, id: &StoreId, holdings: &Holdings) {
        self.stirred = true;
        let node = self.map.stores.get(id).map(|store| store.node.clone()).unwrap_or_default();
        for group in self.map.take_in(now, id, holdings) {
            let message = format!("group {group} is damaged on node '{node}': it is not read there, and is made again");
            self.warn("BlockCorrupt", message);
        }
        for end in &holdings.ended {
            self.bytes_from_peers += end.from_peers;
            self.bytes_from_source += end.from_source;
            let held = self.map.stores.get(id).and_then(|store| store.held.get(&end.group));
            let whole = held.is_some_and(|held| Copy::of(held, None) == Copy::Ready);
            self.loads.ended(now, id, end, whole);
            let full = end.trouble.as_ref().filter(|trouble| trouble.reason == Trouble::FULL);
            if let (Some(trouble), Some(store)) = (full, self.map.stores.get_mut(id)) {
                store.full_until = now + FULL_MILLIS;
                self.tell_of_full_store(id, &trouble.message);
            }
        }
        if holdings.full {
            self.loads.forget_store(id);
        }
    }

    pub(crate) fn is_due(&self, now: u64) -> bool {
        self.stirred || now >= self.looked + LOOK_MILLIS
    }

    /// Looks at everything. Returns orders, and whether the status has something new to say.
    pub(crate) fn look(
        &mut self,
        around: &Around<'_>,
        present: Vec<Presence>,
        gone: impl Fn(&Store) -> bool,
    ) -> (Vec<(Seat, BlockOrder)>, bool) {
        let now = around.now;
        self.map.zones = around.zones.clone();
        let mut changed = self.map.refresh(now, around.lost_millis, present, gone) || self.stirred;
        (self.stirred, self.looked) = (false, now);
        let breaker =
            self.breaker.look(now, (around.lease_millis, around.lost_millis), &mut self.map, &around.in_session);
        self.map.stand(around.job);
        if self.map.forget_digests() {
            self.map.stand(around.job);
        }
        self.loads.forget(now, &self.map);
        let mut orders = Vec::new();
        if around.runs {
            // At the end of a job all of its pods go: nobody need hear of that.
            breaker.into_iter().for_each(|news| self.tell_of_breaker(news));
            self.drop_copies(around, &mut orders);
            self.make_copies(around, &mut orders);
            self.renew_access(now, &around.read, &mut orders);
        }
        changed |= self.count(around);
        (orders, changed)
    }

    /// Who is in session, and nothing else.
    pub(crate) fn meet(&mut self, around: &Around<'_>, present: Vec<Presence>, gone: impl Fn(&Store) -> bool) {
        self.map.zones = around.zones.clone();
        self.stirred |= self.map.refresh(around.now, around.lost_millis, present, gone);
    }

    /// A copy of a group is somewhere, though perhaps out of reach for now.
    pub(crate) fn has_anywhere(&self, group: u32) -> bool {
        self.map.has_anywhere(group)
    }

    fn make_copies(&mut self, around: &Around<'_>, orders: &mut Vec<(Seat, BlockOrder)>) {
        let average = around.plan_bytes / u64::from(self.map.groups.max(1));
        let rank = |group: u32| {
            let standing = self.map.standing(group);
            let (copies, expected) = standing.map_or((0, 0), |it| (it.readable.len(), it.expected.len()));
            let known = self.whole.contains(group) && copies > 0;
            let first = if known { usize::from(copies > 1) } else { 2 };
            if expected < self.replicas {
                return Some((first, if known { copies } else { 0 }, group));
            }
            self.map.could_be_farther_apart(&standing?.expected, self.replicas).then_some((3, 0, group))
        };
        let mut queue: Vec<_> = around.open.iter().filter_map(|group| rank(*group)).collect();
        queue.sort_unstable();
        let since = *self.since.get_or_insert(around.now);
        let live = self.map.stores.values().filter(|store| store.is_confirmed(&self.map.plan)).count();
        let settled = live >= around.desired || around.now >= since + SETTLE_MILLIS;
        let is_read = |group: u32| around.read.iter().any(|(_, read)| *read == group);
        self.queued = 0;
        // Of the groups that lack copies, the one that takes the least.
        let mut least = u64::MAX;
        for (_, _, group) in queue {
            let standing = self.map.standing(group);
            let copy = standing.and_then(|it| it.readable.first()).and_then(|id| self.map.stores.get(id));
            let bytes = copy.and_then(|store| store.held.get(&group)).map_or(average, |held| held.bytes);
            let moment =
                Moment { now: around.now, replicas: self.replicas, group_bytes: bytes, may_copy: !self.breaker.open };
            let at_first = !self.whole.contains(group);
            if at_first && !settled && !is_read(group) {
                self.queued += self.replicas;
                continue;
            }
            let missing = self.loads.order(&moment, &self.map, group, at_first, orders);
            self.queued += missing;
            if missing > 0 && bytes > 0 {
                least = least.min(bytes);
            }
        }
        if least < u64::MAX {
            self.tell_of_full_stores(least);
        }
    }

    #[cfg(test)]
    pub(crate) fn has(&self, store: &str, group: u32) -> bool {
        self.map.stores.get(store).is_some_and(|store| store.ready.contains(&group))
    }

    /// Loads under way, for what must always hold: as kept, and as counted.
    pub(crate) fn loads(&self) -> &Loads {
        &self.loads
    }
}
