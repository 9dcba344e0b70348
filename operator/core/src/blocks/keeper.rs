//! Keeps the copies of a job's blocks: looks at what stores have, and says what is to be loaded and dropped.

mod surplus;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use hyperflow_api::{
    ids::{JobUid, ShardIndex},
    replica::{BlockOrder, Holdings, Peer, Trouble},
    status::BlockCounts,
};

use super::{
    Figures,
    breaker::Breaker,
    map::{Life, Map, Presence, Store, StoreId},
    notes::Notes,
    repair::{FULL_MILLIS, Loads, Moment, peers},
    rules::Copy,
    zones::Zones,
};
use crate::{coordinator::Announcement, ranges::RangeSet, shards::Seat};

/// Where a group may be read is said again after so long, for the right to it runs out.
const ACCESS_MILLIS: u64 = 300_000;

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

    fn warn(&mut self, reason: &'static str, message: String) {
        self.news.push(Announcement { warning: true, reason, message });
    }

    fn tell(&mut self, reason: &'static str, message: String) {
        self.news.push(Announcement { warning: false, reason, message });
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

    fn tell_of_breaker(&mut self, (open, away, all): (bool, usize, usize)) {
        if open {
            let message = format!("{away} of {all} nodes with blocks are away: copies are not made again meanwhile");
            self.warn("ReplicationPaused", message);
        } else {
            self.tell("ReplicationResumed", format!("{away} of {all} nodes with blocks are away"));
        }
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

    /// A store that has room for none of the groups that lack copies is told of as one is whose load found no room: it will
    /// not be asked.
    fn tell_of_full_stores(&mut self, least: u64) {
        let full = |(_, store): &(&StoreId, &Store)| store.is_confirmed(&self.map.plan) && store.free < least;
        let full: Vec<_> = self.map.stores.iter().filter(full).map(|(id, store)| (id.clone(), store.free)).collect();
        for (id, free) in full {
            self.tell_of_full_store(&id, &format!("a group takes {least} bytes, and {free} are free"));
        }
    }

    /// Once for each store.
    fn tell_of_full_store(&mut self, id: &StoreId, why: &str) {
        let Some(store) = self.map.stores.get_mut(id).filter(|store| !store.told_full) else { return };
        store.told_full = true;
        let message = format!("the blocks on node '{}' have no more room: {why}", store.node);
        self.warn(Trouble::FULL, message);
    }

    /// What readers were told, and is not so any more.
    fn renew_access(&mut self, now: u64, read: &BTreeSet<(Seat, u32)>, orders: &mut Vec<(Seat, BlockOrder)>) {
        self.told.retain(|key, _| read.contains(key));
        for &(seat, group) in read {
            orders.extend(self.access(now, seat, group).map(|order| (seat, order)));
        }
    }

    /// Where a worker may read a group that its own store lacks, if that is news to it.
    pub(crate) fn access(&mut self, now: u64, seat: Seat, group: u32) -> Option<BlockOrder> {
        let standing = self.map.standing(group)?;
        let store = self.map.stores.values().find(|store| store.mates.iter().any(|mate| mate.seat == seat))?;
        if store.ready.contains(&group) {
            self.told.remove(&(seat, group));
            return None;
        }
        let from = peers(&self.map, &self.loads.sources(&self.map, standing, &store.node));
        let mut same = from.clone();
        same.sort_by(|one, other| one.pod.cmp(&other.pod));
        let told = self.told.get(&(seat, group));
        let known = match told {
            Some((at, peers)) => *peers == same && now < at + ACCESS_MILLIS,
            None => from.is_empty(),
        };
        if known {
            return None;
        }
        self.told.insert((seat, group), (now, same));
        Some(BlockOrder::Access { group, from, grant: String::new() })
    }

    /// A worker's session is another one: it knows nothing.
    pub(crate) fn forget_told(&mut self, seat: Seat) {
        self.told.retain(|(of, _), _| *of != seat);
    }

    /// Counts what lacks copies, and tells of it when that begins or ends.
    fn count(&mut self, around: &Around<'_>) -> bool {
        let mut under = 0;
        for &group in &around.open {
            let expected = self.map.standing(group).map_or(0, |standing| standing.expected.len());
            if expected >= self.replicas {
                self.whole.insert(group);
            } else {
                under += 1;
            }
        }
        let changed = std::mem::replace(&mut self.under, under) != under;
        if around.runs && !around.open.is_empty() {
            let was = std::mem::replace(&mut self.all_whole, under == 0);
            if was && under > 0 {
                self.warned = true;
                self.warn("BlocksUnderReplicated", format!("{under} groups of blocks have fewer copies than wanted"));
            } else if !was && under == 0 && std::mem::take(&mut self.warned) {
                self.tell("BlocksReplicated", "every group of blocks that is needed has its copies again".into());
            }
        }
        changed
    }

    /// Groups that may be read in the store of a worker.
    pub(crate) fn local(&self, seat: Seat) -> Option<&BTreeSet<u32>> {
        let has = |store: &&Store| store.mates.iter().any(|mate| mate.seat == seat);
        self.map.stores.values().find(has).map(|store| &store.ready)
    }

    /// Another store than that of this worker has the group, and a worker that takes work.
    pub(crate) fn is_local_elsewhere(&self, group: u32, seat: Seat) -> bool {
        let Some(standing) = self.map.standing(group) else { return false };
        let stores = || standing.readable.iter().filter_map(|id| self.map.stores.get(id));
        let here = |store: &Store| store.mates.iter().any(|mate| mate.seat == seat);
        !stores().any(here) && stores().any(|store| store.mates.iter().any(|mate| mate.fit))
    }

    /// What a pod's store has: groups that nobody else can give, and all. A pod that has not called yet is taken for whom the
    /// operator before this one knew on its node.
    pub(crate) fn held_by_pod(&self, pod: &str, node: Option<&str>) -> (usize, usize) {
        let by_name = self.map.stores.iter().find(|(_, store)| store.pod.as_deref() == Some(pod));
        let noted = |store: &Store| store.pod.is_none() && node == Some(&*store.node);
        let Some((id, store)) = by_name.or_else(|| self.map.stores.iter().find(|(_, store)| noted(store))) else {
            return (0, 0);
        };
        // What it said last, though it may not be heard now: a pod whose node is back calls only after a while.
        let whole = store.held.values().filter(|held| {
            held.blocks > 0 && Copy::of(held, self.map.digests.get(&held.group).copied()) == Copy::Ready
        });
        let alone = |group: u32| self.map.standing(group).is_some_and(|it| it.readable.iter().all(|of| of == id));
        whole.fold((0, 0), |(only, all), held| (only + usize::from(alone(held.group)), all + 1))
    }

    #[cfg(test)]
    pub(crate) fn has(&self, store: &str, group: u32) -> bool {
        self.map.stores.get(store).is_some_and(|store| store.ready.contains(&group))
    }

    pub(crate) fn counts(&self) -> BlockCounts {
        let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        let known = || self.map.stores.values().filter(|store| !store.is_lost());
        let kept_by = match (known().any(|store| store.persistent), known().any(|store| !store.persistent)) {
            (true, true) => "Mixed",
            (true, false) => "Node",
            (false, true) => "Pod",
            (false, false) => "",
        };
        let groups = number(self.map.groups as usize);
        BlockCounts { groups, under_replicated: number(self.under), kept_by: kept_by.into() }
    }

    pub(crate) fn figures(&self) -> Figures {
        let mut figures = Figures {
            under_replicated: self.under as u64,
            queued: self.queued as u64,
            bytes_from_source: self.bytes_from_source,
            bytes_from_peers: self.bytes_from_peers,
            ..Figures::default()
        };
        for store in self.map.stores.values().filter(|store| !store.is_lost()) {
            figures.ready += store.ready.len() as u64;
            for held in store.held.values() {
                figures.stale += u64::from(held.stale > 0);
                figures.corrupt += u64::from(held.corrupt > 0);
            }
        }
        figures
    }

    /// Loads under way, for what must always hold: as kept, and as counted.
    pub(crate) fn loads(&self) -> &Loads {
        &self.loads
    }
}

/// The first shard of these groups that nobody has begun, if it is below `limit`.
pub(crate) fn first_fresh(
    groups: &BTreeSet<u32>,
    shards: &crate::shards::Shards,
    claims_stand: bool,
    limit: ShardIndex,
) -> Option<ShardIndex> {
    let first = |group: &u32| {
        let range = super::shards_of(*group, shards.total());
        let passed = if claims_stand { None } else { shards.limbo().first_in(range.clone()) };
        passed.or_else(|| Some(range.start.max(shards.next())).filter(|index| *index < range.end))
    };
    groups.iter().filter_map(first).find(|index| *index < limit)
}
