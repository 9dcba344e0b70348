//! The circuit breaker: when many nodes fall silent at once it is the network, and to copy everything would only add to it.

use std::collections::BTreeSet;

use super::{
    map::Map,
    store::{Life, Store, StoreId},
};

/// Stores of which nobody hears for so many times as makes them lost are gone for good.
const GONE_TIMES: u64 = 10;

/// Whether copies are made again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Breaker {
    pub(super) open: bool,
}

impl Breaker {
    /// Looks at the stores; forgets those that are gone for good, so that they cannot stop repairs for ever. One that
    /// somebody in session has, though its node is taken for lost, does not count then, but what it told is kept: a worker
    /// tells it once in a session. Returns whether it opened or closed, with the numbers of nodes away and of all.
    pub(super) fn look(
        &mut self,
        now: u64,
        (lease, lost): (u64, u64),
        map: &mut Map,
        in_session: &BTreeSet<StoreId>,
    ) -> Option<(bool, usize, usize)> {
        let counts = |store: &Store| match store.life {
            // The API server has said so: that is no network.
            Life::Lost(since) if store.gone => now < since + lost,
            Life::Lost(since) => now < since + lost * GONE_TIMES,
            Life::Live | Life::Silent(_) => true,
        };
        map.stores.retain(|id, store| counts(store) || in_session.contains(id));
        // A stream that breaks is mended within a lease.
        let patience = lease.min(lost / 2);
        let here = |store: &&Store| match store.life {
            Life::Live => true,
            Life::Silent(since) => now < since + patience,
            Life::Lost(_) => false,
        };
        // Pods that were made anew on their nodes left stores behind: no node is away for that.
        let node = |store: &Store| store.node.clone();
        let all: BTreeSet<String> = map.stores.values().filter(|store| counts(store)).map(node).collect();
        let sound: BTreeSet<String> = map.stores.values().filter(here).map(node).collect();
        let (away, all) = (all.len() - sound.len(), all.len());
        let open = away > 1 && away * 4 > all;
        let news = (open != self.open).then_some((open, away, all));
        self.open = open;
        news
    }
}
