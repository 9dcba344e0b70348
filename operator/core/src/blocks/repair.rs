//! Which copies are made next, and from where: reservations on both sides, so that no store is overrun.
//!
//! First what has one copy left, then what lost some, then what never had them all, in the order of groups: that is the
//! order in which shards are leased. Last what has all its copies in fewer zones than it could.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use hyperflow_api::replica::{BlockOrder, LoadEnd, Peer, Trouble};

use super::{
    map::{Map, Standing},
    store::{Store, StoreId},
    zones::Nearness,
};
use crate::{coordinator::SessionId, shards::Seat};

/// Loads that one store gets at a time; and while it is filled for the first time.
const INCOMING: u32 = 1;
const INCOMING_AT_FIRST: u32 = 2;

/// Loads that are served by one store at a time; and of groups with one copy left.
const OUTGOING: u32 = 2;
const OUTGOING_URGENT: u32 = 4;

/// A load of which nothing was heard for so long is forgotten.
const PENDING_MILLIS: u64 = 300_000;

/// After a failed load, the pause before the next one of that group there: doubled up to the last.
const FIRST_PAUSE_MILLIS: u64 = 10_000;
const LAST_PAUSE_MILLIS: u64 = 300_000;

/// A store without room gets no new groups for so long.
pub(super) const FULL_MILLIS: u64 = 60_000;

/// A load that was ordered.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    order: u64,
    session: SessionId,
    since: u64,
    /// The store that is asked first.
    from: Option<StoreId>,
}

/// All that are under way, and those that rest.
#[derive(Clone, Debug, Default)]
pub(crate) struct Loads {
    pub(super) under_way: BTreeMap<(u32, StoreId), Load>,
    pub(super) incoming: BTreeMap<StoreId, u32>,
    pub(super) outgoing: BTreeMap<StoreId, u32>,
    rests: BTreeMap<(u32, StoreId), (u64, u64)>,
    last: u64,
}

/// What decides on repairs, at one moment.
pub(super) struct Moment {
    pub(super) now: u64,
    pub(super) replicas: usize,
    /// Bytes that a group is taken to have.
    pub(super) group_bytes: u64,
    /// Copies may be made again: the breaker is closed.
    pub(super) may_copy: bool,
}

impl Loads {
    /// Order numbers of one term are not those of another.
    pub(super) fn of_term(term: u64) -> Self {
        Self { last: term << 32, ..Self::default() }
    }

    fn add(&mut self, group: u32, to: &StoreId, load: Load) {
        *self.incoming.entry(to.clone()).or_default() += 1;
        if let Some(from) = &load.from {
            *self.outgoing.entry(from.clone()).or_default() += 1;
        }
        self.under_way.insert((group, to.clone()), load);
    }

    fn remove(&mut self, key: &(u32, StoreId)) -> bool {
        let Some(load) = self.under_way.remove(key) else { return false };
        release(&mut self.incoming, &key.1);
        if let Some(from) = &load.from {
            release(&mut self.outgoing, from);
        }
        true
    }

    /// Forgets what nobody can end any more.
    pub(super) fn forget(&mut self, now: u64, map: &Map) {
        let over = |((_, to), load): &(&(u32, StoreId), &Load)| {
            let mates = map.stores.get(to).map(|store| &store.mates);
            let in_session = mates.is_some_and(|mates| mates.iter().any(|mate| mate.session == load.session));
            let served = load.from.as_ref().is_none_or(|from| map.stores.get(from).is_some_and(Store::is_live));
            !in_session || !served || now >= load.since + PENDING_MILLIS
        };
        let all: Vec<_> = self.under_way.iter().filter(over).map(|(key, _)| key.clone()).collect();
        all.iter().for_each(|key| {
            self.remove(key);
        });
    }

    /// A store has told all it has anew: what it was ordered before may be forgotten there.
    pub(super) fn forget_store(&mut self, id: &StoreId) {
        let all: Vec<_> = self.under_way.keys().filter(|(_, to)| to == id).cloned().collect();
        all.iter().for_each(|key| {
            self.remove(key);
        });
    }

    /// A load is over. If there was trouble, or nothing came of it, the next one waits.
    pub(super) fn ended(&mut self, now: u64, id: &StoreId, end: &LoadEnd, whole: bool) {
        let key = (end.group, id.clone());
        if self.under_way.get(&key).is_none_or(|load| load.order != end.order) {
            return;
        }
        self.remove(&key);
        let is_full = end.trouble.as_ref().is_some_and(|trouble| trouble.reason == Trouble::FULL);
        if whole && end.trouble.is_none() {
            self.rests.remove(&key);
        } else if !is_full {
            let (pause, until) = self.rests.entry(key).or_insert((FIRST_PAUSE_MILLIS, 0));
            *until = now + *pause;
            *pause = (*pause * 2).min(LAST_PAUSE_MILLIS);
        }
    }

    /// Stores that get a group now.
    pub(super) fn of_group(&self, group: u32) -> impl Iterator<Item = &StoreId> {
        let first: StoreId = StoreId::from("");
        self.under_way.range((group, first)..).take_while(move |((of, _), _)| *of == group).map(|((_, to), _)| to)
    }

    /// Orders the copies of a group that are missing, as far as stores are free. `at_first` says that it never had them
    /// all. Returns how many are still missing.
    pub(super) fn order(
        &mut self,
        moment: &Moment,
        map: &Map,
        group: u32,
        at_first: bool,
        orders: &mut Vec<(Seat, BlockOrder)>,
    ) -> usize {
        let Some(standing) = map.standing(group) else { return 0 };
        let mut nodes = standing.expected.clone();
        nodes.extend(self.of_group(group).filter_map(|to| map.stores.get(to)).map(|store| store.node.clone()));
        let short = moment.replicas.saturating_sub(nodes.len());
        let mut missing = short.max(usize::from(map.could_be_farther_apart(&nodes, moment.replicas)));
        if missing == 0 || !moment.may_copy && !standing.expected.is_empty() {
            return short;
        }
        let from_source = standing.readable.is_empty();
        // Copies that are only silent are waited for; and the source is read once, the others get it from there.
        if from_source && !nodes.is_empty() {
            return short;
        }
        let urgent = !at_first && standing.readable.len() == 1;
        for to in self.targets(moment, map, group, at_first, &nodes) {
            let Some(store) = map.stores.get(&to) else { continue };
            if missing == 0 || nodes.contains(&store.node) {
                continue;
            }
            let most = if urgent { OUTGOING_URGENT } else { OUTGOING };
            let free = |id: &StoreId| self.outgoing.get(id).is_none_or(|count| *count < most);
            let mut from = self.sources(map, standing, &store.node);
            // A near one that is busy is no reason to wait.
            from.sort_by_key(|id| !free(id));
            if !from_source && !from.first().is_some_and(free) {
                break;
            }
            let Some(mate) = store.mates.first() else { continue };
            self.last += 1;
            let (order, seat, session) = (self.last, mate.seat, mate.session);
            let peers = peers(map, &from);
            orders.push((
                seat,
                BlockOrder::Load { group, order, from: peers, source: from_source, grant: String::new() },
            ));
            let from = from.into_iter().next();
            self.add(group, &to, Load { order, session, since: moment.now, from });
            nodes.insert(store.node.clone());
            missing -= 1;
            if from_source {
                break;
            }
        }
        missing.min(short)
    }

    /// Stores for more copies, best first: those that have some of it, for less moves, then those in zones without one, then
    /// the nearest. Where copies are enough, only those in zones without one.
    fn targets(
        &self,
        moment: &Moment,
        map: &Map,
        group: u32,
        at_first: bool,
        nodes: &BTreeSet<String>,
    ) -> Vec<StoreId> {
        let most = if at_first { INCOMING_AT_FIRST } else { INCOMING };
        let short = moment.replicas.saturating_sub(nodes.len());
        let fit = |(id, store): &(&StoreId, &Store)| {
            let held = store.held.get(&group);
            let here = held.map_or(0, |held| held.bytes);
            let whole = held.is_some_and(|held| held.is_whole());
            let rests = self.rests.get(&(group, (*id).clone())).is_some_and(|(_, until)| moment.now < *until);
            store.is_confirmed(&map.plan)
                && !whole
                && !store.node.is_empty()
                && !nodes.contains(&store.node)
                && (short > 0 || map.zones.is_apart(&store.node, nodes.iter().map(String::as_str)))
                && store.has_room(moment.now, moment.group_bytes.saturating_sub(here))
                && !rests
                && !store.dropping.contains_key(&group)
        };
        // What is old or damaged there had its place there, and may have it again.
        let some = |store: &Store| store.held.get(&group).is_some_and(|held| held.good + held.stale + held.corrupt > 0);
        let mut all: Vec<_> = map.stores.iter().filter(fit).collect();
        all.sort_by_key(|(id, store)| (store.distance_to(group), *id));
        let missing = short.max(1);
        let (mut had, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, store)| some(store));
        had.truncate(missing);
        let mut nodes = nodes.clone();
        nodes.extend(had.iter().map(|(_, store)| store.node.clone()));
        let others = others.into_iter().map(|(id, store)| (id, store.node.as_str())).collect();
        let others = map.zones.choose(others, &nodes, missing - had.len());
        // The owners are asked, or nobody: a busy owner is waited for.
        let idle = |id: &&StoreId| self.incoming.get(*id).is_none_or(|count| *count < most);
        had.into_iter().map(|(id, _)| id).chain(others).filter(idle).cloned().collect()
    }

    /// Stores to read a group from, best first: on the same node, in its zone, then elsewhere, and of each those that serve
    /// the fewest.
    pub(super) fn sources(&self, map: &Map, standing: &Standing, node: &str) -> Vec<StoreId> {
        let rank = |id: &StoreId| {
            let near = map.stores.get(id).map_or(Nearness::Apart, |store| map.zones.between(&store.node, node));
            (Reverse(near), self.outgoing.get(id).copied().unwrap_or(0), id.clone())
        };
        let mut all: Vec<_> = standing.readable.iter().map(rank).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, _, id)| id).collect()
    }

    /// What is reserved: `(incoming, outgoing)`.
    pub(crate) fn reserved(&self) -> (&BTreeMap<StoreId, u32>, &BTreeMap<StoreId, u32>) {
        (&self.incoming, &self.outgoing)
    }

    /// Loads as they are counted from what is under way: `(incoming, outgoing)`.
    pub(crate) fn recount(&self) -> (BTreeMap<StoreId, u32>, BTreeMap<StoreId, u32>) {
        let (mut incoming, mut outgoing) = (BTreeMap::new(), BTreeMap::new());
        for ((_, to), load) in &self.under_way {
            *incoming.entry(to.clone()).or_default() += 1;
            if let Some(from) = &load.from {
                *outgoing.entry(from.clone()).or_default() += 1;
            }
        }
        (incoming, outgoing)
    }
}

fn release(counts: &mut BTreeMap<StoreId, u32>, id: &StoreId) {
    if let Some(count) = counts.get_mut(id) {
        *count -= 1;
        if *count == 0 {
            counts.remove(id);
        }
    }
}

/// How workers reach these stores.
pub(super) fn peers(map: &Map, stores: &[StoreId]) -> Vec<Peer> {
    stores.iter().filter_map(|id| map.stores.get(id)?.mates.first()).map(|mate| mate.peer.clone()).collect()
}
