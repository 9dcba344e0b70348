//! What the block store of this process holds, and what of that the operator does not know yet.

use std::collections::{BTreeMap, BTreeSet};

use hyperflow_api::replica::{GroupHeld, Holdings, LoadEnd};

/// News of the store. It is told whole in each session, and then what changed.
#[derive(Clone, Debug, Default)]
pub(super) struct Stock {
    plan: String,
    free: u64,
    groups: BTreeMap<u32, GroupHeld>,
    changed: BTreeSet<u32>,
    ended: Vec<LoadEnd>,
    /// The store was looked through for this plan.
    known: bool,
    /// It was told whole in this session.
    told: bool,
}

impl Stock {
    /// A store that another pod may have as well is looked through again first.
    pub(super) fn begin_session(&mut self, shared: bool) {
        (self.told, self.known) = (false, self.known && !shared);
    }

    /// The shell has looked.
    pub(super) fn news(&mut self, Holdings { plan, full, free, groups, ended }: Holdings) {
        if full {
            self.groups.clear();
            (self.known, self.told) = (true, false);
        }
        (self.plan, self.free) = (plan, free);
        for held in groups {
            self.changed.insert(held.group);
            self.groups.insert(held.group, held);
        }
        self.ended.extend(ended);
    }

    /// What is to be said, if anything is.
    pub(super) fn untold(&mut self) -> Option<Holdings> {
        let full = !std::mem::replace(&mut self.told, self.known);
        if !self.known || !(full || !self.changed.is_empty() || !self.ended.is_empty()) {
            return None;
        }
        let changed = std::mem::take(&mut self.changed);
        let told = |held: &&GroupHeld| full || changed.contains(&held.group);
        let groups = self.groups.values().filter(told).copied().collect();
        Some(Holdings {
            plan: self.plan.clone(),
            full,
            free: self.free,
            groups,
            ended: std::mem::take(&mut self.ended),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(group: u32, good: u32) -> GroupHeld {
        GroupHeld { group, blocks: 2, good, ..GroupHeld::default() }
    }

    fn news(full: bool, groups: Vec<GroupHeld>) -> Holdings {
        Holdings { plan: "blake3:0".into(), full, groups, ..Holdings::default() }
    }

    #[test]
    fn all_is_told_once_in_a_session_and_then_what_changed() {
        let mut stock = Stock::default();
        assert_eq!(stock.untold(), None);
        stock.news(news(true, vec![held(0, 2), held(1, 1)]));
        let told = stock.untold().unwrap();
        assert!(told.full && told.groups.len() == 2);
        assert_eq!(stock.untold(), None);
        stock.news(news(false, vec![held(1, 2)]));
        assert_eq!(stock.untold(), Some(news(false, vec![held(1, 2)])));
        stock.begin_session(false);
        assert_eq!(stock.untold(), Some(news(true, vec![held(0, 2), held(1, 2)])));
        // Another worker on the volume has dropped one meanwhile.
        stock.begin_session(true);
        assert_eq!(stock.untold(), None);
        stock.news(news(true, vec![held(0, 2)]));
        assert_eq!(stock.untold(), Some(news(true, vec![held(0, 2)])));
    }
}
