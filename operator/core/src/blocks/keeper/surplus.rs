//! Which copies go: the rules on those that are there, and of more than are wanted, which one is the first.

use std::collections::BTreeSet;

use hyperflow_api::replica::{BlockOrder, Dropped};

use super::{
    super::{
        rules::{Case, Copy, Rule, judge},
        store::{Dropping, Store, StoreId},
        zones::Nearness,
    },
    Around, Keeper,
};
use crate::{
    invariants::{copies_stay_apart, demand, enough_copies_stay},
    shards::Seat,
};

impl Keeper {
    /// The rules on copies that are there.
    pub(super) fn drop_copies(&mut self, around: &Around<'_>, orders: &mut Vec<(Seat, BlockOrder)>) {
        let all_told = self.map.all_told();
        for &group in &around.open {
            let Some(standing) = self.map.standing(group).cloned() else { continue };
            // Who loads it may be reading what would go.
            if self.loads.of_group(group).next().is_some() {
                continue;
            }
            let farthest = self.farthest(group, &standing.readable);
            for id in &standing.held_by {
                let Some(store) = self.map.stores.get(id) else { continue };
                let (Some(held), Some(mate)) = (store.held.get(&group), store.mates.first()) else { continue };
                let copy = Copy::of(held, self.map.digests.get(&group).copied());
                let elsewhere = self.nodes_beside(id, &standing.readable).len();
                let read = store.mates.iter().any(|mate| around.read.contains(&(mate.seat, group)));
                let (seat, node) = (mate.seat, store.node.clone());
                let rule = judge(Case {
                    copy,
                    some_good: held.good > 0,
                    leftovers: held.stale > 0 || held.corrupt > 0,
                    confirmed: store.is_confirmed(&self.map.plan) && !store.dropping.contains_key(&group),
                    elsewhere,
                    wanted: self.replicas,
                    too_few: self.is_wanted(&store.node, &standing.expected),
                    farthest: farthest.as_ref() == Some(id) && !read,
                    all_told,
                    term_is_stored: around.term_is_stored,
                });
                if copy == Copy::Odd && self.odd.insert((group, id.clone())) {
                    let message =
                        format!("group {group} has other bytes on node '{node}' than elsewhere: it is not read there");
                    self.warn("BlockCorrupt", message);
                }
                let Rule::Drop(what) = rule else { continue };
                if cfg!(debug_assertions) {
                    self.demand_enough(group, id, &standing.readable, copy == Copy::Ready && what == Dropped::Outdated);
                }
                orders.push((seat, BlockOrder::Drop { group, what }));
                self.drop_ordered(around.now, id, group, what);
                // One at a time: the next is judged by what is left.
                break;
            }
        }
    }

    /// One more copy on this node is wanted beside those on others.
    fn is_wanted(&self, node: &str, expected: &BTreeSet<String>) -> bool {
        let others = || expected.iter().map(String::as_str);
        // Nearly always it is one of those nodes, which is seen at once.
        let apart = || self.map.zones.is_apart(node, others()) && self.map.zones.count(others()) < self.replicas;
        expected.len() < self.replicas || apart()
    }

    /// Nodes with a copy that may be read and stays, but for that of this store.
    fn nodes_beside(&self, id: &StoreId, readable: &[StoreId]) -> BTreeSet<&str> {
        let others = readable.iter().filter(|other| *other != id).filter_map(|other| self.map.stores.get(other));
        others.filter(|other| other.stays()).map(|other| other.node.as_str()).collect()
    }

    /// What must hold when replicas go, with the copy that they are of or beside it.
    fn demand_enough(&self, group: u32, id: &StoreId, readable: &[StoreId], stays: bool) {
        let others = self.nodes_beside(id, readable);
        let own = self.map.stores.get(id).filter(|store| store.stays() && readable.contains(id));
        let own = own.map(|store| store.node.as_str());
        let zones = |own: Option<&str>| self.map.zones.count(others.iter().copied().chain(own));
        let left = zones(own.filter(|_| stays));
        demand(enough_copies_stay(group, others.len() + usize::from(stays), self.replicas));
        demand(copies_stay_apart(group, left, zones(own), self.replicas));
    }

    fn drop_ordered(&mut self, now: u64, id: &StoreId, group: u32, what: Dropped) {
        let Some(store) = self.map.stores.get_mut(id) else { return };
        store.dropping.insert(group, Dropping::new(now));
        if what == Dropped::Surplus {
            store.ready.remove(&group);
            if let Some(standing) = self.map.standings.get_mut(group as usize) {
                standing.readable.retain(|other| other != id);
            }
        }
        self.told.retain(|(_, of), (at, _)| {
            if *of == group {
                *at = 0;
            }
            true
        });
    }

    /// Of the copies that may be read, the one to go first: the second on its node, or else the second in its zone, and of
    /// those the farthest. Beside one that is about to go there is nothing.
    fn farthest(&self, group: u32, readable: &[StoreId]) -> Option<StoreId> {
        let stores = || readable.iter().filter_map(|id| Some((id, self.map.stores.get(id)?)));
        let beside = |id: &StoreId, store: &Store| {
            let others = stores().filter(|(other, it)| *other != id && it.stays());
            others.map(|(_, other)| self.map.zones.between(&store.node, &other.node)).max().unwrap_or(Nearness::Apart)
        };
        let farthest = stores().max_by_key(|(id, store)| (beside(id, store), store.distance_to(group), (*id).clone()));
        farthest.map(|(id, _)| id.clone())
    }
}
