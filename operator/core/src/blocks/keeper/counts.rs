//! How many copies there are, and lack.

use hyperflow_api::status::BlockCounts;

use super::{
    super::{Figures, rules::Copy},
    Around, Keeper, Store,
};

impl Keeper {
    /// Counts what lacks copies, and tells of it when that begins or ends.
    pub(super) fn count(&mut self, around: &Around<'_>) -> bool {
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
}
