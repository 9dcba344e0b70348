//! What people are told of copies.

use hyperflow_api::replica::Trouble;

use super::{
    super::store::{Store, StoreId},
    Keeper,
};
use crate::coordinator::Announcement;

impl Keeper {
    pub(super) fn warn(&mut self, reason: &'static str, message: String) {
        self.news.push(Announcement { warning: true, reason, message });
    }

    pub(super) fn tell(&mut self, reason: &'static str, message: String) {
        self.news.push(Announcement { warning: false, reason, message });
    }

    pub(super) fn tell_of_breaker(&mut self, (open, away, all): (bool, usize, usize)) {
        if open {
            let message = format!("{away} of {all} nodes with blocks are away: copies are not made again meanwhile");
            self.warn("ReplicationPaused", message);
        } else {
            self.tell("ReplicationResumed", format!("{away} of {all} nodes with blocks are away"));
        }
    }

    /// A store that has room for none of the groups that lack copies is told of as one is whose load found no room: it will
    /// not be asked.
    pub(super) fn tell_of_full_stores(&mut self, least: u64) {
        let full = |(_, store): &(&StoreId, &Store)| store.is_confirmed(&self.map.plan) && store.free < least;
        let full: Vec<_> = self.map.stores.iter().filter(full).map(|(id, store)| (id.clone(), store.free)).collect();
        for (id, free) in full {
            self.tell_of_full_store(&id, &format!("a group takes {least} bytes, and {free} are free"));
        }
    }

    /// Once for each store.
    pub(super) fn tell_of_full_store(&mut self, id: &StoreId, why: &str) {
        let Some(store) = self.map.stores.get_mut(id).filter(|store| !store.told_full) else { return };
        store.told_full = true;
        let message = format!("the blocks on node '{}' have no more room: {why}", store.node);
        self.warn(Trouble::FULL, message);
    }
}
