//! Shards of a job that keeps nothing: no plan is stored, for the spec alone says what is in each of them.

use hyperflow_api::ids::ShardIndex;

use crate::{
    plan::{Numbers, Shard},
    source::{Cut, Listing, Source},
};

/// A shard whose content stands in the spec. None where there is no such shard, or a plan is needed to know it.
#[must_use]
pub fn shard(source: &Source, index: ShardIndex) -> Option<Shard> {
    match (&source.listing, &source.cut) {
        (Listing::Items(values), Cut::Items { items }) => {
            let chunk = values.chunks((*items).max(1) as usize).nth(index as usize)?;
            Some(Shard { items: chunk.to_vec(), ..Shard::default() })
        }
        (Listing::Numbers { start, count }, Cut::Numbers { numbers }) => {
            let before = u64::from(index).checked_mul(*numbers)?;
            let left = count.checked_sub(before).filter(|left| *left > 0)?;
            let start = start.checked_add_unsigned(before)?;
            Some(Shard { numbers: Some(Numbers { start, count: left.min(*numbers) }), ..Shard::default() })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spec_alone_says_what_is_in_a_shard() {
        let listing = Listing::Items(["a", "b", "c"].map(String::from).into());
        let items = Source { listing, cut: Cut::Items { items: 2 } };
        assert_eq!(shard(&items, 0).unwrap().items, ["a", "b"]);
        assert_eq!(shard(&items, 1).unwrap().items, ["c"]);
        assert_eq!(shard(&items, 2), None);
        let numbers = Source { listing: Listing::Numbers { start: -5, count: 7 }, cut: Cut::Numbers { numbers: 3 } };
        let of = |index| shard(&numbers, index).and_then(|shard| shard.numbers).map(|n| (n.start, n.count));
        assert_eq!([of(0), of(1), of(2), of(3)], [Some((-5, 3)), Some((-2, 3)), Some((1, 1)), None]);
    }
}
