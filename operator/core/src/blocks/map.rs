//! Which store has which group, as far as stores have said, and which of them may be read.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use hyperflow_api::{ids::JobUid, replica::Holdings};

use super::{
    placement::{distance, weight},
    rules::Copy,
    store::{Life, Presence, Store, StoreId},
    zones::Zones,
};

/// The copies of a group.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standing {
    /// Stores with a whole copy that may be read.
    pub(crate) readable: Vec<StoreId>,
    /// Nodes of those that stay: confirmed copies.
    pub(super) confirmed: BTreeSet<String>,
    /// Nodes with a whole copy, those that are only silent included.
    pub(super) expected: BTreeSet<String>,
    /// Stores with anything of it.
    pub(super) held_by: Vec<StoreId>,
}

/// All stores of a job.
#[derive(Clone, Debug, Default)]
pub(crate) struct Map {
    pub(super) plan: String,
    pub(super) groups: u32,
    pub(super) stores: BTreeMap<StoreId, Store>,
    /// Of whole copies, by group.
    pub(super) digests: BTreeMap<u32, u64>,
    pub(super) standings: Vec<Standing>,
    pub(super) zones: Arc<Zones>,
}

impl Map {
    /// Another plan is in force: what was left by an earlier operator process was of the one before.
    pub(super) fn forget_notes(&mut self) {
        self.digests.clear();
        self.stores.values_mut().filter(|store| store.plan.is_empty()).for_each(|store| store.held.clear());
    }

    /// Somebody opened a session for a store: what it said in the one before is not confirmed any more.
    pub(super) fn greeted(&mut self, id: &str) {
        if let Some(store) = self.stores.get_mut(id) {
            store.told = false;
        }
    }

    /// Who is in session now. `gone` knows of a store that it will not come back.
    pub(super) fn refresh(
        &mut self,
        now: u64,
        lost_millis: u64,
        present: Vec<Presence>,
        gone: impl Fn(&Store) -> bool,
    ) -> bool {
        let mut changed = false;
        for store in self.stores.values_mut() {
            store.mates.clear();
            store.dropping.retain(|_, dropping| !dropping.is_over(now));
        }
        for mate in present {
            let new = || Store::new(mate.node.clone(), mate.persistent, Life::Live);
            let store = self.stores.entry(mate.store.clone()).or_insert_with(new);
            let weight = weight(mate.capacity);
            if store.node != mate.node || store.weight != weight {
                (store.weight, store.distances) = (weight, Vec::new());
                store.node.clone_from(&mate.node);
            }
            store.persistent = mate.persistent;
            store.pod = Some(mate.peer.pod.clone());
            store.mates.push(mate);
        }
        for store in self.stores.values_mut() {
            store.gone = store.mates.is_empty() && gone(store);
            let life = match store.life {
                _ if !store.mates.is_empty() => Life::Live,
                Life::Live if store.gone => Life::Lost(now),
                Life::Live => Life::Silent(now),
                Life::Silent(since) if store.gone || now >= since + lost_millis => Life::Lost(since),
                life => life,
            };
            changed |= life != store.life;
            store.life = life;
        }
        changed
    }

    /// What a store says it has. Returns the groups of which more is damaged than before.
    pub(super) fn take_in(&mut self, now: u64, id: &str, holdings: &Holdings) -> Vec<u32> {
        let Some(store) = self.stores.get_mut(id) else { return Vec::new() };
        let before = if holdings.full { std::mem::take(&mut store.held) } else { BTreeMap::new() };
        if holdings.full {
            store.told = true;
            store.dropping.retain(|_, dropping| {
                dropping.told = true;
                !dropping.is_over(now)
            });
        }
        store.plan.clone_from(&holdings.plan);
        store.free = holdings.free;
        let mut damaged = Vec::new();
        for held in &holdings.groups {
            let was = store.held.insert(held.group, *held).or_else(|| before.get(&held.group).copied());
            if held.corrupt > was.map_or(0, |was| was.corrupt) && store.plan == self.plan {
                damaged.push(held.group);
            }
            if Copy::of(held, None) != Copy::Ready {
                store.dropping.remove(&held.group);
            }
            let whole = held.is_whole();
            if whole && store.told && store.plan == self.plan {
                self.digests.entry(held.group).or_insert(held.digest);
            }
        }
        damaged
    }

    /// A digest that nobody's copy has any more says nothing. Returns whether there was one.
    pub(super) fn forget_digests(&mut self) -> bool {
        let mut others = Vec::new();
        for &group in self.digests.keys() {
            let Some(standing) = self.standings.get(group as usize).filter(|it| it.expected.is_empty()) else {
                continue;
            };
            let held_by = standing.held_by.iter().filter_map(|id| self.stores.get(id));
            let told = held_by.filter(|store| store.is_confirmed(&self.plan) && !store.dropping.contains_key(&group));
            let mut whole = told.filter_map(|store| store.held.get(&group));
            let whole = whole.find(|held| Copy::of(held, None) == Copy::Ready);
            others.extend(whole.map(|held| (group, held.digest)));
        }
        let any = !others.is_empty();
        self.digests.extend(others);
        any
    }

    /// Looks at all copies.
    pub(super) fn stand(&mut self, job: &JobUid) {
        let groups = self.groups;
        self.standings = vec![Standing::default(); groups as usize];
        for (id, store) in &mut self.stores {
            if store.distances.len() != groups as usize {
                store.distances = (0..groups).map(|group| distance(job, group, &store.node, store.weight)).collect();
            }
            let mut readable = BTreeSet::new();
            let (confirmed, stays) = (store.is_confirmed(&self.plan), store.stays());
            for (&group, held) in store.held.iter().filter(|_| !store.is_lost()) {
                let Some(standing) = self.standings.get_mut(group as usize) else { continue };
                standing.held_by.push(id.clone());
                let whole = held.is_whole();
                if whole && confirmed {
                    self.digests.entry(group).or_insert(held.digest);
                }
                let ready = Copy::of(held, self.digests.get(&group).copied()) == Copy::Ready;
                if !ready || store.dropping.contains_key(&group) {
                    continue;
                }
                // A silent store's copies are those it had; one that speaks of another plan has none.
                if store.speaks_of(&self.plan) {
                    standing.expected.insert(store.node.clone());
                }
                if confirmed {
                    standing.readable.push(id.clone());
                    readable.insert(group);
                    if stays {
                        standing.confirmed.insert(store.node.clone());
                    }
                }
            }
            store.ready = readable;
        }
    }

    /// Some store has a whole copy of a group, or had one when it was heard last and may be heard again.
    pub(super) fn has_anywhere(&self, group: u32) -> bool {
        let digest = self.digests.get(&group).copied();
        let whole = |store: &Store| store.held.get(&group).is_some_and(|held| Copy::of(held, digest) == Copy::Ready);
        self.stores.values().any(|store| !store.is_lost() && store.speaks_of(&self.plan) && whole(store))
    }

    /// Every store in session has told what it has.
    pub(super) fn all_told(&self) -> bool {
        self.stores.values().filter(|store| store.is_live()).all(|store| store.is_confirmed(&self.plan))
    }

    /// Copies on these nodes are in fewer zones than so many of them could be, for there is a store in another one.
    pub(super) fn could_be_farther_apart(&self, nodes: &BTreeSet<String>, replicas: usize) -> bool {
        let on = || nodes.iter().map(String::as_str);
        let takes = |store: &&Store| store.is_confirmed(&self.plan) && store.mates.iter().any(|mate| mate.fit);
        let takers = || self.stores.values().filter(takes).filter(|store| !store.node.is_empty());
        self.zones.count(on()) < replicas && takers().any(|store| self.zones.is_apart(&store.node, on()))
    }

    pub(super) fn standing(&self, group: u32) -> Option<&Standing> {
        self.standings.get(group as usize)
    }
}
