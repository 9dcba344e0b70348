//! Which store has which group, as far as stores have said, and which of them may be read.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use hyperflow_api::{
    ids::JobUid,
    replica::{GroupHeld, Holdings, Peer},
};

use super::{
    placement::{distance, weight},
    rules::Copy,
    zones::Zones,
};
use crate::{coordinator::SessionId, shards::Seat};

/// A store's UUID.
pub(crate) type StoreId = Arc<str>;

/// A copy that is being dropped counts no more for so long, whatever is said of it: the word may be older than the order.
const DROP_MILLIS: u64 = 30_000;

/// A store that says nothing of a drop for so long has not got the order.
const UNHEARD_MILLIS: u64 = 300_000;

/// Whether a store is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// A worker in session has it.
    Live,
    /// Nobody speaks for it since then: suspect. Nothing is read from it, nothing ordered; its copies are not made again.
    Silent(u64),
    /// For too long, or it is known to be gone: its copies are made again.
    Lost(u64),
}

/// A worker in session that has a store.
#[derive(Clone, Debug)]
pub(crate) struct Presence {
    pub(crate) store: StoreId,
    pub(crate) seat: Seat,
    pub(crate) session: SessionId,
    pub(crate) peer: Peer,
    pub(crate) node: String,
    pub(crate) persistent: bool,
    pub(crate) capacity: u64,
    /// Its node takes more, and it is not about to leave.
    pub(crate) fit: bool,
    /// It is about to leave.
    pub(crate) leaving: bool,
}

/// A directory of replicas on a node.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pub(crate) node: String,
    pub(crate) persistent: bool,
    pub(crate) life: Life,
    /// The pod that had it last, if that is known.
    pub(crate) pod: Option<String>,
    /// The API server says that it will not come back.
    pub(crate) gone: bool,
    /// Workers in session that have it.
    pub(super) mates: Vec<Presence>,
    pub(super) free: u64,
    /// It takes no new groups before this time.
    pub(super) full_until: u64,
    pub(super) told_full: bool,
    /// The plan that it compares with.
    plan: String,
    /// It has told all in this session.
    told: bool,
    pub(super) held: BTreeMap<u32, GroupHeld>,
    /// Groups of which it was told to drop replicas, and when.
    pub(super) dropping: BTreeMap<u32, u64>,
    /// Whole copies that may be read there.
    pub(super) ready: BTreeSet<u32>,
    weight: u64,
    /// To each group.
    distances: Vec<u64>,
}

impl Store {
    /// Whether a worker has it.
    pub(super) fn is_of(&self, seat: Seat) -> bool {
        self.mates.iter().any(|mate| mate.seat == seat)
    }

    pub(super) fn new(node: String, persistent: bool, life: Life) -> Self {
        Self {
            node,
            persistent,
            life,
            pod: None,
            gone: false,
            mates: Vec::new(),
            free: 0,
            full_until: 0,
            told_full: false,
            plan: String::new(),
            told: false,
            held: BTreeMap::new(),
            dropping: BTreeMap::new(),
            ready: BTreeSet::new(),
            weight: 0,
            distances: Vec::new(),
        }
    }

    pub(super) fn is_live(&self) -> bool {
        self.life == Life::Live
    }

    pub(super) fn is_lost(&self) -> bool {
        matches!(self.life, Life::Lost(_))
    }

    /// What it has was told by the plan in force and in this term, and it is in session.
    pub(super) fn is_confirmed(&self, plan: &str) -> bool {
        let postponed = self.plan != plan;
        self.is_live() && self.told && !postponed
    }

    /// What is known of it is of this plan: told, or left by an earlier operator process.
    pub(super) fn speaks_of(&self, plan: &str) -> bool {
        self.plan == plan || self.plan.is_empty()
    }

    /// Its copies stay when its pod goes, or its pod does not go.
    pub(super) fn stays(&self) -> bool {
        self.persistent || self.mates.iter().any(|mate| !mate.leaving)
    }

    /// How far it is from a group by rendezvous.
    pub(super) fn distance_to(&self, group: u32) -> u64 {
        self.distances.get(group as usize).copied().unwrap_or(u64::MAX)
    }

    /// It takes new groups of so many bytes.
    pub(super) fn has_room(&self, now: u64, bytes: u64) -> bool {
        now >= self.full_until && self.free >= bytes && self.mates.iter().any(|mate| mate.fit)
    }
}

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
            store.dropping.retain(|_, since| now < *since + UNHEARD_MILLIS);
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
            store.dropping.retain(|_, since| now < *since + DROP_MILLIS);
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
