//! A store: a directory of replicas on a node, what it has said that it has, and whether it is heard.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use hyperflow_api::replica::{GroupHeld, Peer};

use crate::{coordinator::SessionId, shards::Seat};

/// A store's UUID.
pub(crate) type StoreId = Arc<str>;

/// A copy that is being dropped counts no more for so long, whatever is said of it: the word may be older than the order.
const DROP_MILLIS: u64 = 30_000;

/// A store that says nothing of a drop for so long has not got the order.
const UNHEARD_MILLIS: u64 = 300_000;

/// A drop that was ordered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dropping {
    since: u64,
    /// The store has told all that it has since then: whoever got the order, there will be no other word of it.
    pub(super) told: bool,
}

impl Dropping {
    pub(super) fn new(since: u64) -> Self {
        Self { since, told: false }
    }

    pub(super) fn is_over(&self, now: u64) -> bool {
        now >= self.since + if self.told { DROP_MILLIS } else { UNHEARD_MILLIS }
    }
}

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
    pub(super) plan: String,
    /// It has told all in this session.
    pub(super) told: bool,
    pub(super) held: BTreeMap<u32, GroupHeld>,
    /// Groups of which it was told to drop replicas.
    pub(super) dropping: BTreeMap<u32, Dropping>,
    /// Whole copies that may be read there.
    pub(super) ready: BTreeSet<u32>,
    pub(super) weight: u64,
    /// To each group.
    pub(super) distances: Vec<u64>,
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
