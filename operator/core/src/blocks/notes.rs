//! `status.recovery.blocks`: what one operator process leaves for the next of who has which group.
//!
//! ```text
//! d=9f2c07aa01b2c3d4,,51c2aa07;0d1f3c2a-77e1@node-3/n/r0-99,103/s7/c9;5b1e0c44-02aa@node-7/p/r0-99
//! ```
//!
//! Records stand between `;`. First `d=`: for group 0, 1 and so on the digest of its whole copies in hexadecimal, nothing
//! where none is known. Then a store each: its UUID, `@`, the first 63 characters of its node's name, `/n` if it outlives
//! its pod (it is kept by the node) or `/p` if not, and ranges of groups where there are any: `/r` whole, `/s` with
//! replicas of another version, `/c` damaged. What would make it longer than [`BLOCKS_BYTES`] is left out: stores that are
//! heard tell it again.

use std::{collections::BTreeMap, fmt::Write, sync::Arc};

use super::{
    map::Map,
    rules::Copy,
    store::{Life, Store, StoreId},
};
use crate::{ranges::RangeSet, recovery::RecoveryError};
use hyperflow_api::replica::GroupHeld;

/// Most bytes of it: its share of a status.
pub const BLOCKS_BYTES: usize = 24 * 1024;

/// Most bytes of a node's name.
const NODE_BYTES: usize = 63;

/// What was known of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Noted {
    pub(crate) node: String,
    pub(crate) persistent: bool,
    pub(crate) ready: RangeSet,
    pub(crate) stale: RangeSet,
    pub(crate) corrupt: RangeSet,
}

/// What was known of all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Notes {
    pub(crate) digests: BTreeMap<u32, u64>,
    pub(crate) stores: BTreeMap<StoreId, Noted>,
}

impl Notes {
    pub(super) fn of(map: &Map) -> Self {
        let mut notes = Self { digests: map.digests.clone(), stores: BTreeMap::new() };
        for (id, store) in map.stores.iter().filter(|(_, store)| !store.is_lost()) {
            let mut noted = Noted { node: store.node.clone(), persistent: store.persistent, ..Noted::default() };
            for (&group, held) in store.held.iter().filter(|(group, _)| **group < map.groups) {
                match Copy::of(held, map.digests.get(&group).copied()) {
                    _ if store.dropping.contains_key(&group) || !store.speaks_of(&map.plan) => false,
                    Copy::Ready => noted.ready.insert(group),
                    Copy::Corrupt | Copy::Odd => noted.corrupt.insert(group),
                    Copy::Stale => noted.stale.insert(group),
                    Copy::Partial | Copy::Missing => false,
                };
            }
            notes.stores.insert(id.clone(), noted);
        }
        notes
    }

    /// Writes it, at most [`BLOCKS_BYTES`] long.
    pub(crate) fn encode(&self) -> String {
        let mut text = String::from("d=");
        let last = self.digests.keys().next_back().map_or(0, |last| last + 1);
        for group in 0..last {
            let comma = if group == 0 { "" } else { "," };
            // Writing to a String cannot fail.
            let _ = match self.digests.get(&group) {
                Some(digest) => write!(text, "{comma}{digest:x}"),
                None => write!(text, "{comma}"),
            };
        }
        for (id, Noted { node, persistent, ready, stale, corrupt }) in &self.stores {
            let node = node.get(..NODE_BYTES).unwrap_or(node);
            let mut record = format!(";{id}@{node}/{}", if *persistent { 'n' } else { 'p' });
            for (letter, groups) in [('r', ready), ('s', stale), ('c', corrupt)] {
                if !groups.is_empty() {
                    let _ = write!(record, "/{letter}{groups}");
                }
            }
            if text.len() + record.len() <= BLOCKS_BYTES {
                text.push_str(&record);
            }
        }
        if text == "d=" { String::new() } else { text }
    }

    /// Reads it.
    ///
    /// # Errors
    /// When a record is not of the form.
    pub(crate) fn decode(text: &str) -> Result<Self, RecoveryError> {
        let mut notes = Self::default();
        let mut records = text.split(';');
        let first = records.next().filter(|first| !first.is_empty());
        if let Some(first) = first {
            let digests = first.strip_prefix("d=").ok_or_else(|| RecoveryError::of(first))?;
            for (group, digest) in (0_u32..).zip(digests.split(',')).filter(|(_, digest)| !digest.is_empty()) {
                let wrong = |_| RecoveryError::of(digest);
                notes.digests.insert(group, u64::from_str_radix(digest, 16).map_err(wrong)?);
            }
        }
        for record in records {
            let wrong = || RecoveryError::of(record);
            let (id, noted) = read_store(record).ok_or_else(wrong)?;
            if first.is_none() || notes.stores.insert(id, noted).is_some() {
                return Err(wrong());
            }
        }
        Ok(notes)
    }

    /// The stores are silent until they are heard.
    pub(super) fn restore(self, now: u64, map: &mut Map) {
        for (id, noted) in self.stores {
            let mut store = Store::new(noted.node, noted.persistent, Life::Silent(now));
            let held = |group, good, stale, corrupt| {
                let digest = self.digests.get(&group).copied().unwrap_or(0);
                GroupHeld { group, blocks: 1, good, stale, corrupt, digest, bytes: 0 }
            };
            let ready = noted.ready.iter().map(|group| held(group, 1, 0, 0));
            let stale = noted.stale.iter().map(|group| held(group, 0, 1, 0));
            let corrupt = noted.corrupt.iter().map(|group| held(group, 0, 0, 1));
            store.held = ready.chain(stale).chain(corrupt).map(|held| (held.group, held)).collect();
            map.stores.insert(id, store);
        }
        map.digests = self.digests;
    }
}

fn read_store(record: &str) -> Option<(StoreId, Noted)> {
    let mut parts = record.split('/');
    let (id, node) = parts.next()?.split_once('@')?;
    let persistent = match parts.next()? {
        "n" => true,
        "p" => false,
        _ => return None,
    };
    let mut noted = Noted { node: node.into(), persistent, ..Noted::default() };
    for part in parts {
        let (kind, groups) = part.split_at_checked(1)?;
        let place = match kind {
            "r" => &mut noted.ready,
            "s" => &mut noted.stale,
            "c" => &mut noted.corrupt,
            _ => return None,
        };
        let groups: RangeSet = groups.parse().ok()?;
        // More groups than a job has would only be carried along.
        if groups.is_empty() || !place.is_empty() || groups.ranges().last()?.end > super::GROUPS {
            return None;
        }
        *place = groups;
    }
    (!id.is_empty()).then(|| (Arc::from(id), noted))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ranges() -> impl Strategy<Value = RangeSet> {
        prop::collection::btree_set(0_u32..256, 0..40).prop_map(|groups| {
            let mut set = RangeSet::default();
            groups.into_iter().for_each(|group| {
                set.insert(group);
            });
            set
        })
    }

    fn notes() -> impl Strategy<Value = Notes> {
        let noted = ("[a-z0-9.-]{0,20}", any::<bool>(), ranges(), ranges(), ranges())
            .prop_map(|(node, persistent, ready, stale, corrupt)| Noted { node, persistent, ready, stale, corrupt });
        let stores = prop::collection::btree_map("[0-9a-f-]{1,36}".prop_map(StoreId::from), noted, 0..6);
        (prop::collection::btree_map(0_u32..256, any::<u64>(), 0..40), stores)
            .prop_map(|(digests, stores)| Notes { digests, stores })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(notes in notes()) {
            prop_assert_eq!(Notes::decode(&notes.encode()).unwrap(), notes);
        }

        #[test]
        fn no_text_makes_it_panic(text in "(d=)?[0-9a-f,]{0,20}(;[a-z0-9@/,-]{0,30}){0,3}") {
            let _ = Notes::decode(&text);
        }
    }

    #[test]
    fn the_form_is_as_documented_and_what_is_not_is_refused() {
        let text = "d=9f2c07aa01b2c3d4,,51c2aa07;0d1f3c2a-77e1@node-3/n/r0-99,103/s7/c9;5b1e0c44-02aa@node-7/p/r0-99";
        let notes = Notes::decode(text).unwrap();
        assert_eq!((notes.digests[&2], notes.stores["0d1f3c2a-77e1"].stale.to_string()), (0x51c2_aa07, "7".into()));
        assert_eq!(notes.encode(), text);
        assert_eq!((Notes::decode("").unwrap(), Notes::default().encode()), (Notes::default(), String::new()));
        for wrong in
            ["x", "d=g", "d=;a", "d=;a@b", "d=;a@b/q", "d=;a@b/n/r", "d=;a@b/n/r300", "d=;a@b/n/x1", "d=;a@b/n;a@b/n"]
        {
            assert!(Notes::decode(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn ten_stores_take_eight_kibibytes_and_a_thousand_are_cut() {
        let store = |number: u32| {
            let mut ready = RangeSet::default();
            // As rendezvous has it: every fifth group, more or less.
            (0..256).filter(|group| (group * 7 + number).is_multiple_of(5)).for_each(|group| {
                ready.insert(group);
            });
            let id = StoreId::from(format!("{number:08x}-0000-4000-8000-000000000000"));
            (id, Noted { node: "ip-10-0-13-7.eu".into(), persistent: true, ready, ..Noted::default() })
        };
        let notes = |count| Notes {
            digests: (0..256).map(|group| (group, u64::MAX)).collect(),
            stores: (0..count).map(store).collect(),
        };
        let size = notes(10).encode().len();
        assert!(size <= 8 << 10, "{size} bytes");
        let cut = notes(1000).encode();
        assert!(cut.len() <= BLOCKS_BYTES && Notes::decode(&cut).is_ok());
    }
}
