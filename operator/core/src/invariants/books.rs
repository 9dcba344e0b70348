//! What one coordinator can check of itself.

use std::collections::BTreeSet;

use hyperflow_api::ShardJobStatus;

use super::{Broken, demand, hold};
use crate::{
    coordinator::{Coordinator, STATUS_BYTES, WINDOW},
    shards::{Leased, Seat, Shards},
};

/// I14. Every shard is in exactly one state: the counts add up to the plan, and only what is beyond the last lease was
/// never leased.
///
/// # Errors
/// When they do not.
pub fn counts_add_up(shards: &Shards) -> Result<(), Broken> {
    let settled = u64::from(shards.done().len()) + u64::from(shards.failed().len());
    let sum = settled + u64::from(shards.pending()) + shards.holes() as u64;
    hold("I14 counts add up", sum == u64::from(shards.total()), || {
        format!("states add up to {sum} of {} shards: {shards:?}", shards.total())
    })
}

/// I15. A settled shard has no attempt, and none is settled twice.
///
/// # Errors
/// When one has, or is.
pub fn settled_shards_rest(shards: &Shards) -> Result<(), Broken> {
    let restless = shards.leased().keys().chain(shards.waiting().keys()).find(|index| shards.is_settled(**index));
    let twice = || shards.failed().iter().find(|index| shards.done().contains(*index));
    hold("I15 settled shards rest", restless.is_none() && twice().is_none(), || {
        format!("shard {restless:?} is settled and has an attempt, or {:?} is settled twice", twice())
    })
}

/// I16. An epoch is held once: no two leases share it (P1).
///
/// # Errors
/// When two do.
pub fn epochs_are_unique(shards: &Shards) -> Result<(), Broken> {
    let leases = || shards.leased().values().flat_map(Leased::leases);
    let epochs: BTreeSet<_> = leases().map(|lease| lease.epoch).collect();
    hold("I16 epochs are unique", epochs.len() == leases().count(), || "two leases have one epoch".into())
}

/// I17. Every lease belongs to a worker that is known (P2).
///
/// # Errors
/// When one does not.
pub fn leases_have_workers(shards: &Shards, known: impl Fn(Seat) -> bool) -> Result<(), Broken> {
    let orphan = shards.leased().iter().find(|(_, leased)| leased.leases().any(|lease| !known(lease.seat)));
    hold("I17 leases have workers", orphan.is_none(), || format!("{orphan:?} is leased to nobody"))
}

/// I27. Of one shard there are two attempts at most, of two workers, and none is given up or waits while one of them runs
/// (P19).
///
/// # Errors
/// When a worker has one shard twice, or a shard that has an attempt waits.
pub fn twins_are_apart(shards: &Shards) -> Result<(), Broken> {
    let same = |leased: &Leased| leased.twin.is_some_and(|twin| twin.seat == leased.lease.seat);
    let wrong = shards.leased().iter().find(|(index, leased)| same(leased) || shards.waiting().contains_key(index));
    hold("I27 twins are apart", wrong.is_none(), || format!("{wrong:?} has its two attempts on one worker, or waits"))
}

/// I18. Status fits: not more holes than the window, and not more bytes than etcd is asked to keep (P14, P15). Leases that
/// workers re-present after a take-over are not new holes: their records were in the status before.
///
/// # Errors
/// When there are more.
pub fn status_fits(shards: &Shards, status: &ShardJobStatus) -> Result<(), Broken> {
    let bytes = serde_json::to_vec(status).map_or(usize::MAX, |bytes| bytes.len());
    hold("I18 status fits", shards.holes() <= WINDOW && bytes <= STATUS_BYTES, || {
        format!("{} holes in a window of {WINDOW}, {bytes} bytes", shards.holes())
    })
}

/// I4. A lease that has ended changes nothing: of all that is said under its epoch only "published" is believed (P7).
///
/// # Errors
/// When something changed.
pub fn stale_epochs_change_nothing(before: &Shards, after: &Shards) -> Result<(), Broken> {
    hold("I4 stale epochs change nothing", before == after, || {
        format!("what was said under an epoch that is not live made {after:?} of {before:?}")
    })
}

/// Everything that one coordinator can check of itself after every event.
///
/// # Panics
/// When a promise is broken.
pub fn check(coordinator: &Coordinator) {
    let shards = coordinator.shards();
    demand(counts_add_up(shards));
    demand(settled_shards_rest(shards));
    demand(epochs_are_unique(shards));
    demand(twins_are_apart(shards));
    demand(super::blocks::reservations_add_up(coordinator.blocks.loads()));
    demand(leases_have_workers(shards, |seat| coordinator.workers.contains_key(&seat)));
}
