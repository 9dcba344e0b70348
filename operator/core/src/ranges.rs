//! Sets of shard indexes as ranges: small in memory and in status, in the syntax of an Indexed Job (`0-811,813`).

use std::{collections::BTreeMap, fmt, ops::Range, str::FromStr};

use hyperflow_api::ids::{MAX_SHARDS, ShardIndex};

/// A set of indexes below [`MAX_SHARDS`], kept as ranges that neither touch nor overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeSet {
    /// Start of each range, to the index after its end.
    ranges: BTreeMap<ShardIndex, ShardIndex>,
    len: u32,
}

/// A text that is no set of indexes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' must be rising indexes below 1000000 such as '0-811,813'")]
pub struct RangeError(String);

impl RangeSet {
    /// All of a range.
    #[must_use]
    pub fn of(range: Range<ShardIndex>) -> Self {
        let mut set = Self::default();
        if !range.is_empty() {
            set.len = range.end - range.start;
            set.ranges.insert(range.start, range.end);
        }
        set
    }

    /// How many indexes.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether `index` is one of them.
    #[must_use]
    pub fn contains(&self, index: ShardIndex) -> bool {
        self.range_around(index).is_some()
    }

    /// The lowest index.
    #[must_use]
    pub fn first(&self) -> Option<ShardIndex> {
        self.ranges.keys().next().copied()
    }

    /// The lowest index that is also in `range`.
    #[must_use]
    pub fn first_in(&self, range: Range<ShardIndex>) -> Option<ShardIndex> {
        let here = self.contains(range.start).then_some(range.start);
        let next = || self.ranges.range(range.start..).next().map(|(&start, _)| start);
        here.or_else(next).filter(|index| *index < range.end)
    }

    /// How many of the indexes are in `range`.
    #[must_use]
    pub fn count_in(&self, range: Range<ShardIndex>) -> u32 {
        let before = self.ranges.range(..range.start).next_back();
        let all = before.into_iter().chain(self.ranges.range(range.start..range.end.max(range.start)));
        all.map(|(&start, &end)| end.min(range.end).saturating_sub(start.max(range.start))).sum()
    }

    /// How many ranges they are.
    #[must_use]
    pub fn pieces(&self) -> usize {
        self.ranges.len()
    }

    /// Adds an index; false if it was there.
    pub fn insert(&mut self, index: ShardIndex) -> bool {
        if self.contains(index) {
            return false;
        }
        let mut start = index;
        let mut end = index + 1;
        if let Some((&before, &before_end)) = self.ranges.range(..index).next_back()
            && before_end == index
        {
            start = before;
        }
        if let Some(after_end) = self.ranges.remove(&end) {
            end = after_end;
        }
        self.ranges.insert(start, end);
        self.len += 1;
        true
    }

    /// Takes an index out; false if it was not there.
    pub fn remove(&mut self, index: ShardIndex) -> bool {
        let Some(Range { start, end }) = self.range_around(index) else { return false };
        self.ranges.remove(&start);
        if start < index {
            self.ranges.insert(start, index);
        }
        if index + 1 < end {
            self.ranges.insert(index + 1, end);
        }
        self.len -= 1;
        true
    }

    /// The ranges, lowest first.
    pub fn ranges(&self) -> impl Iterator<Item = Range<ShardIndex>> + '_ {
        self.ranges.iter().map(|(&start, &end)| start..end)
    }

    /// The indexes, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = ShardIndex> + '_ {
        self.ranges().flatten()
    }

    fn range_around(&self, index: ShardIndex) -> Option<Range<ShardIndex>> {
        let (&start, &end) = self.ranges.range(..=index).next_back()?;
        (index < end).then_some(start..end)
    }
}

impl fmt::Display for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, range) in self.ranges().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            match range.end - range.start {
                1 => write!(f, "{comma}{}", range.start)?,
                _ => write!(f, "{comma}{}-{}", range.start, range.end - 1)?,
            }
        }
        Ok(())
    }
}

impl FromStr for RangeSet {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let error = || RangeError(text.chars().take(64).collect());
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse::<u32>().ok()).flatten().filter(|index| *index < MAX_SHARDS).ok_or_else(error)
        };
        let mut set = Self::default();
        let mut least = 0;
        for part in text.split(',').filter(|_| !text.is_empty()) {
            let (start, last) = match part.split_once('-') {
                Some((start, last)) => (number(start)?, number(last)?),
                None => (number(part)?, number(part)?),
            };
            if start < least || last < start {
                return Err(error());
            }
            set.len += last + 1 - start;
            // A gap of at least one index: ranges that touch are one range.
            match set.ranges.last_entry() {
                Some(mut entry) if *entry.get() == start => *entry.get_mut() = last + 1,
                _ => {
                    set.ranges.insert(start, last + 1);
                }
            }
            least = last + 1;
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_the_set_it_claims_to_be(steps in prop::collection::vec((any::<bool>(), 0_u32..40), 0..200)) {
            let mut set = RangeSet::default();
            let mut model = BTreeSet::new();
            for (add, index) in steps {
                if add {
                    prop_assert_eq!(set.insert(index), model.insert(index));
                } else {
                    prop_assert_eq!(set.remove(index), model.remove(&index));
                }
                prop_assert_eq!(set.len() as usize, model.len());
                prop_assert_eq!(set.first(), model.first().copied());
                prop_assert_eq!(set.first_in(7..20), model.range(7..20).next().copied());
                prop_assert_eq!(set.count_in(7..20) as usize, model.range(7..20).count());
                prop_assert_eq!(set.pieces(), set.ranges().count());
            }
            prop_assert!(set.iter().eq(model.iter().copied()));
            prop_assert_eq!(set.to_string().parse::<RangeSet>().unwrap(), set);
        }

        #[test]
        fn no_text_makes_it_panic(text in "[0-9,-]{0,30}") {
            if let Ok(set) = text.parse::<RangeSet>() {
                prop_assert_eq!(set.to_string().parse::<RangeSet>().unwrap(), set);
            }
        }
    }

    #[test]
    fn it_is_written_as_an_indexed_job_writes_it() {
        let set: RangeSet = "0-811,813,900-901".parse().unwrap();
        assert_eq!((set.len(), set.to_string()), (815, "0-811,813,900-901".into()));
        assert_eq!(RangeSet::default().to_string(), "");
        for text in ["3-1", "5,4", "1,1", "x", "1-", "1000000", "-1", "1,,2", "+1"] {
            assert!(text.parse::<RangeSet>().is_err(), "{text}");
        }
    }
}
