//! Where a group is read: in the worker's own store, or in others, which it is told of.

use std::collections::BTreeSet;

use hyperflow_api::{ids::ShardIndex, replica::BlockOrder};

use super::{
    super::{repair::peers, shards_of},
    Keeper,
};
use crate::shards::{Seat, Shards};

/// Where a group may be read is said again after so long, for the right to it runs out.
const ACCESS_MILLIS: u64 = 300_000;

impl Keeper {
    /// What readers were told, and is not so any more.
    pub(super) fn renew_access(
        &mut self,
        now: u64,
        read: &BTreeSet<(Seat, u32)>,
        orders: &mut Vec<(Seat, BlockOrder)>,
    ) {
        self.told.retain(|key, _| read.contains(key));
        for &(seat, group) in read {
            orders.extend(self.access(now, seat, group).map(|order| (seat, order)));
        }
    }

    /// Where a worker may read a group that its own store lacks, if that is news to it.
    pub(crate) fn access(&mut self, now: u64, seat: Seat, group: u32) -> Option<BlockOrder> {
        let standing = self.map.standing(group)?;
        let store = self.map.stores.values().find(|store| store.is_of(seat))?;
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

    /// Groups that may be read in the store of a worker.
    pub(crate) fn local(&self, seat: Seat) -> Option<&BTreeSet<u32>> {
        self.map.stores.values().find(|store| store.is_of(seat)).map(|store| &store.ready)
    }

    /// Another store than that of this worker has the group, and a worker that takes work.
    pub(crate) fn is_local_elsewhere(&self, group: u32, seat: Seat) -> bool {
        let Some(standing) = self.map.standing(group) else { return false };
        let stores = || standing.readable.iter().filter_map(|id| self.map.stores.get(id));
        !stores().any(|store| store.is_of(seat)) && stores().any(|store| store.mates.iter().any(|mate| mate.fit))
    }
}

/// The first shard of these groups that nobody has begun, if it is below `limit`.
pub(crate) fn first_fresh(
    groups: &BTreeSet<u32>,
    shards: &Shards,
    claims_stand: bool,
    limit: ShardIndex,
) -> Option<ShardIndex> {
    let first = |group: &u32| {
        let range = shards_of(*group, shards.total());
        let passed = if claims_stand { None } else { shards.limbo().first_in(range.clone()) };
        passed.or_else(|| Some(range.start.max(shards.next())).filter(|index| *index < range.end))
    };
    groups.iter().filter_map(first).find(|index| *index < limit)
}
