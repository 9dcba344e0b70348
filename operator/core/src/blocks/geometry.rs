//! What is in a block, and which group a block is in: arithmetic on the plan.

use std::ops::Range;

use hyperflow_api::ids::ShardIndex;

use crate::plan::Shard;

/// Most bytes of a block.
pub const BLOCK_BYTES: u64 = 64 << 20;

/// Most groups of a job: the status tracks groups.
pub const GROUPS: u32 = 256;

/// Groups of a job with so many shards.
#[must_use]
pub fn groups(shards: u32) -> u32 {
    shards.min(GROUPS)
}

/// The group that a shard's blocks are in.
#[must_use]
pub fn group_of(index: ShardIndex, shards: u32) -> u32 {
    let shards = shards.max(1);
    let group = u64::from(index.min(shards - 1)) * u64::from(groups(shards)) / u64::from(shards);
    u32::try_from(group).unwrap_or(u32::MAX)
}

/// The shards whose blocks are in a group.
#[must_use]
pub fn shards_of(group: u32, shards: u32) -> Range<ShardIndex> {
    let groups = u64::from(groups(shards).max(1));
    let first = |group: u32| (u64::from(group) * u64::from(shards)).div_ceil(groups).min(u64::from(shards));
    let first = |group: u32| u32::try_from(first(group)).unwrap_or(u32::MAX);
    first(group)..first(group.saturating_add(1))
}

/// A piece of one shard's planned input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Block {
    /// Whose.
    pub shard: ShardIndex,
    /// Which of the shard's, from 0.
    pub part: u32,
    /// Digest of which bytes of which versions of which files it is made of: never a counter, so that two leaders cannot
    /// give one number to two contents (P28).
    pub version: u64,
    /// Its first byte in the shard's planned input: the planned pieces, one after the other.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

/// The blocks of a shard. A shard without bytes has none.
#[must_use]
pub fn blocks_of(index: ShardIndex, shard: &Shard) -> Vec<Block> {
    let bytes = shard.bytes();
    let parts = u32::try_from(bytes.div_ceil(BLOCK_BYTES)).unwrap_or(u32::MAX);
    (0..parts)
        .map(|part| {
            let offset = u64::from(part) * BLOCK_BYTES;
            let length = BLOCK_BYTES.min(bytes - offset);
            Block { shard: index, part, version: version(shard, offset..offset + length), offset, length }
        })
        .collect()
}

fn version(shard: &Shard, range: Range<u64>) -> u64 {
    let mut hasher = blake3::Hasher::new();
    let mut start = 0;
    for piece in &shard.pieces {
        let end = start + piece.length;
        let (from, to) = (range.start.max(start), range.end.min(end));
        if from < to {
            for text in [&piece.file.url, &piece.file.version] {
                hasher.update(&(text.len() as u64).to_be_bytes()).update(text.as_bytes());
            }
            hasher.update(&(piece.offset + (from - start)).to_be_bytes()).update(&(to - from).to_be_bytes());
        }
        start = end;
    }
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_be_bytes(first)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::plan::{InputFile, Piece};

    fn piece(path: &str, version: &str, offset: u64, length: u64) -> Piece {
        let file = InputFile {
            url: format!("file:///in/{path}"),
            path: path.into(),
            size: offset + length,
            version: version.into(),
        };
        Piece { file, offset, length }
    }

    fn shard(pieces: Vec<Piece>) -> Shard {
        Shard { pieces, ..Shard::default() }
    }

    proptest! {
        #[test]
        fn every_shard_is_in_one_group_and_the_group_knows_it(shards in 1_u32..3000, index in any::<prop::sample::Index>()) {
            let index = u32::try_from(index.index(shards as usize)).unwrap();
            let group = group_of(index, shards);
            prop_assert!(group < groups(shards));
            prop_assert!(shards_of(group, shards).contains(&index));
            let all: u32 = (0..groups(shards)).map(|group| shards_of(group, shards).len() as u32).sum();
            prop_assert_eq!(all, shards);
        }
    }

    #[test]
    fn a_shard_is_cut_every_64_mib() {
        let shard = shard(vec![piece("a", "1", 7, BLOCK_BYTES), piece("b", "1", 0, 5)]);
        let blocks = blocks_of(3, &shard);
        assert_eq!(
            blocks.iter().map(|block| (block.part, block.offset, block.length)).collect::<Vec<_>>(),
            [(0, 0, BLOCK_BYTES), (1, BLOCK_BYTES, 5)]
        );
        assert!(blocks_of(3, &Shard::default()).is_empty());
    }

    #[test]
    fn a_changed_file_changes_its_own_blocks_alone() {
        let of = |a: &str, b: &str| blocks_of(0, &shard(vec![piece("a", a, 0, BLOCK_BYTES), piece("b", b, 0, 9)]));
        let (old, new) = (of("1", "1"), of("1", "2"));
        assert_eq!(old[0].version, new[0].version);
        assert_ne!(old[1].version, new[1].version);
    }
}
