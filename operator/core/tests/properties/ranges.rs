//! Sets of shards, and what a successor makes of them.

use std::collections::{BTreeMap, BTreeSet};

use hyperflow_api::ids::MAX_SHARDS;
use hyperflow_core::{
    history::History,
    invariants,
    ranges::RangeSet,
    shards::{Shards, Waiting},
};
use proptest::{
    collection::{btree_set, vec},
    prelude::*,
};

use super::checks::ranges;

fn set_of(model: &BTreeSet<u32>) -> RangeSet {
    let mut set = RangeSet::default();
    model.iter().for_each(|index| assert!(set.insert(*index)));
    set
}

/// Rising parts that may touch: `(gap, length)`, as the text may have them but is never written.
fn parts() -> impl Strategy<Value = Vec<(u32, u32)>> {
    vec((0_u32..3, 1_u32..5), 0..30).prop_map(|steps| {
        let mut least = 0;
        let part = |(gap, length)| {
            let start = least + gap;
            least = start + length;
            (start, least - 1)
        };
        steps.into_iter().map(part).collect()
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(model in btree_set(prop_oneof![0_u32..100, 0..MAX_SHARDS], 0..100)) {
        let set = set_of(&model);
        let read: RangeSet = set.to_string().parse().unwrap();
        prop_assert!(read.iter().eq(model.iter().copied()));
        prop_assert_eq!(read.len() as usize, model.len());
        prop_assert_eq!(&read, &set);
        ranges::set(set.to_string().as_bytes());
        for index in model.iter().flat_map(|index| [index.saturating_sub(1), *index, index + 1]) {
            prop_assert_eq!(read.contains(index), model.contains(&index));
        }
    }

    #[test]
    fn ranges_that_touch_are_read_as_one(parts in parts(), long in any::<bool>()) {
        let part = |(start, last): &(u32, u32)| match start == last && !long {
            true => start.to_string(),
            false => format!("{start}-{last}"),
        };
        let text = parts.iter().map(part).collect::<Vec<_>>().join(",");
        let model: BTreeSet<u32> = parts.iter().flat_map(|(start, last)| *start..=*last).collect();
        prop_assert_eq!(text.parse::<RangeSet>().unwrap(), set_of(&model));
        ranges::set(text.as_bytes());
    }

    #[test]
    fn no_text_makes_it_panic(text in "[0-9,-]{0,12}|[0-9]{5,7}-[0-9]{5,11}|.{0,20}") {
        ranges::set(text.as_bytes());
    }

    /// Done, failed, waiting and limbo are four sets; a successor's books keep them apart and leave nothing out.
    #[test]
    fn after_a_take_over_every_shard_is_in_the_set_it_was_left_in(
        states in vec(0_u8..4, 0..60),
        reserved in 0_u32..80,
        beyond in 0_u32..20,
    ) {
        let with = |state: u8| -> BTreeSet<u32> {
            (0..).zip(&states).filter(|(_, of)| **of == state).map(|(index, _)| index).collect()
        };
        let (done, failed, waits) = (with(1), with(2), with(3));
        let total = u32::try_from(states.len()).unwrap() + beyond;
        let waiting = |index: &u32| {
            let history = History { failures: index + 1, ..History::default() };
            (*index, Waiting { until: 5, unclaimed: true, history })
        };
        let waiting: BTreeMap<_, _> = waits.iter().map(waiting).collect();
        let shards = Shards::resume(total, reserved, set_of(&done), set_of(&failed), waiting.clone());

        let known: BTreeSet<u32> = done.iter().chain(&failed).chain(&waits).copied().collect();
        let next = reserved.max(known.last().map_or(0, |index| index + 1)).min(total);
        let limbo: BTreeSet<u32> = (0..next).filter(|index| !known.contains(index)).collect();
        prop_assert_eq!((shards.total(), shards.next()), (total, next));
        prop_assert!(shards.done().iter().eq(done) && shards.failed().iter().eq(failed.iter().copied()));
        prop_assert!(shards.limbo().iter().eq(limbo.iter().copied()));
        prop_assert_eq!(shards.waiting(), &waiting);
        prop_assert_eq!(shards.pending() as usize, total as usize - known.len());
        invariants::counts_add_up(&shards).unwrap();
        invariants::settled_shards_rest(&shards).unwrap();
    }
}
