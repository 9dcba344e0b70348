//! From entries, one after the other, to shards. What it does next depends on what it did and on the entry's size alone,
//! so it can begin anywhere in a plan from what was noted there.

use std::ops::Range;

use hyperflow_api::ids::{MAX_SHARDS, ShardIndex};

use crate::source::Cut;

/// How far the cutting is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cutter {
    shards: ShardIndex,
    /// Entries and bytes in the newest shard, while it may take more.
    open: Option<(u32, u64)>,
}

impl Cutter {
    /// Shards so far. The newest may not be full.
    #[must_use]
    pub fn shards(self) -> ShardIndex {
        self.shards
    }

    /// Adds an entry of `size` bytes, or numbers. Gives the shards that it is in; none when there would be too many.
    pub fn add(&mut self, cut: &Cut, size: u64) -> Option<Range<ShardIndex>> {
        match *cut {
            Cut::Bytes { bytes } | Cut::Lines { bytes, .. } => {
                let parts = u32::try_from(size.div_ceil(bytes.max(1))).ok()?;
                self.begin(parts)
            }
            Cut::Numbers { numbers } => self.begin(u32::try_from(size.div_ceil(numbers.max(1))).ok()?),
            Cut::Items { items } => self.pack(items, u64::MAX, 0),
            Cut::Files { files, bytes } => self.pack(files, bytes.unwrap_or(u64::MAX), size),
        }
    }

    fn pack(&mut self, most: u32, most_bytes: u64, size: u64) -> Option<Range<ShardIndex>> {
        let fits = |(entries, bytes): &(u32, u64)| {
            *entries < most && bytes.checked_add(size).is_some_and(|bytes| bytes <= most_bytes)
        };
        let (range, (entries, bytes)) = match self.open.filter(fits) {
            Some(open) => (self.shards - 1..self.shards, open),
            None => (self.begin(1)?, (0, 0)),
        };
        self.open = Some((entries + 1, bytes.saturating_add(size)));
        Some(range)
    }

    fn begin(&mut self, count: u32) -> Option<Range<ShardIndex>> {
        let first = self.shards;
        self.shards = first.checked_add(count).filter(|shards| *shards <= MAX_SHARDS)?;
        self.open = None;
        Some(first..self.shards)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(cut: &Cut, sizes: &[u64]) -> Vec<Range<ShardIndex>> {
        let mut cutter = Cutter::default();
        sizes.iter().map(|size| cutter.add(cut, *size).unwrap()).collect()
    }

    #[test]
    fn whole_files_are_packed_while_there_is_room() {
        let by_number = Cut::Files { files: 2, bytes: None };
        assert_eq!(cut(&by_number, &[9, 0, 9, 9, 9]), [0..1, 0..1, 1..2, 1..2, 2..3]);
        let by_bytes = Cut::Files { files: 100, bytes: Some(10) };
        assert_eq!(cut(&by_bytes, &[4, 6, 1, 11, 0, 10]), [0..1, 0..1, 1..2, 2..3, 3..4, 3..4]);
        assert_eq!(cut(&Cut::Files { files: 1, bytes: None }, &[0, 5]), [0..1, 1..2]);
    }

    #[test]
    fn files_are_cut_each_for_itself_and_empty_ones_make_nothing() {
        assert_eq!(cut(&Cut::Bytes { bytes: 10 }, &[25, 0, 10, 1]), [0..3, 3..3, 3..4, 4..5]);
    }

    #[test]
    fn more_shards_than_a_job_may_have_are_none() {
        let mut cutter = Cutter::default();
        assert_eq!(cutter.add(&Cut::Bytes { bytes: 1 }, u64::from(MAX_SHARDS)), Some(0..MAX_SHARDS));
        assert_eq!(cutter.add(&Cut::Bytes { bytes: 1 }, 1), None);
        assert_eq!(Cutter::default().add(&Cut::Bytes { bytes: 1 }, u64::MAX), None);
    }
}
