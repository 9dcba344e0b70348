//! The frozen plan: which bytes, or items, are in which shard (P4).
//!
//! A job that keeps nothing needs no plan file: its numbers are arithmetic. For all others one worker reads the list once and writes the plan
//! create-only; everyone reads the stored one and checks its digest. The form is one JSON line for the head, one for each
//! entry, and one for the foot:
//!
//! ```text
//! {"format":2,"job":"5b1e…","frozen":"blake3:…","base":"file:///data/in/","cut":{"files":{"files":1}}}
//! {"path":"a/report.pdf","size":48213,"version":"48213-1763…"}
//! {"entries":1,"bytes":48213,"shards":1,"content":"blake3:…"}
//! ```
//!
//! Instead of a file an entry may be `{"item":"chr1:1-5000000"}`, or numbers, `{"start":0,"count":1000000}`.
//!
//! It may have millions of lines and is never held in memory: [`Draft`] writes it line by line, [`Reading`] reads it line
//! by line and keeps a mark for each few hundred, and [`Plan`] says from which byte on the lines of a shard are found.

mod reading;
mod walk;

use hyperflow_api::{
    ids::{JobUid, MAX_SHARDS, ShardIndex},
    message::Planned,
};
use serde::{Deserialize, Serialize};

pub use self::{
    reading::Reading,
    walk::{InputFile, Piece, Shard, Walk},
};
use crate::{cutter::Cutter, source::Cut};

/// Version of the plan's form.
const FORMAT: u32 = 2;

/// Entries between two marks.
const STRIDE: u64 = 256;

/// What a plan is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Head {
    format: u32,
    job: JobUid,
    frozen: String,
    /// What the paths of entries are relative to; empty where each entry has a URL.
    base: String,
    cut: Cut,
}

impl Head {
    /// Of a job, its frozen spec, and how it is cut.
    #[must_use]
    pub fn new(job: &JobUid, frozen: &str, base: &str, cut: &Cut) -> Self {
        Self { format: FORMAT, job: job.clone(), frozen: frozen.into(), base: base.into(), cut: cut.clone() }
    }
}

/// A line of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Entry {
    /// An input file as it was when the plan was made.
    File(FileEntry),
    /// A text of the user's.
    Item(ItemEntry),
    /// Whole numbers, one after the other.
    Numbers(Numbers),
}

/// An input file as it was when the plan was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Relative to the source: what its results are named after.
    pub path: String,
    /// Where it is, if not at the base and its path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Bytes.
    pub size: u64,
    /// What tells this content from any other the file may have: size, times and inode.
    pub version: String,
}

/// A text of the user's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ItemEntry {
    /// It.
    pub item: String,
}

/// Whole numbers, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Numbers {
    /// The first.
    pub start: i64,
    /// How many.
    pub count: u64,
}

impl Entry {
    /// What is cut: bytes of a file, or numbers.
    fn size(&self) -> u64 {
        match self {
            Self::File(file) => file.size,
            Self::Item(_) => 0,
            Self::Numbers(numbers) => numbers.count,
        }
    }

    fn bytes(&self) -> u64 {
        if let Self::File(file) = self { file.size } else { 0 }
    }

    fn is_for(&self, cut: &Cut) -> bool {
        match self {
            Self::File(_) => cut.is_of_files(),
            Self::Item(_) => matches!(cut, Cut::Items { .. }),
            Self::Numbers(_) => matches!(cut, Cut::Numbers { .. }),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Foot {
    entries: u64,
    bytes: u64,
    shards: u32,
    /// Digest of the cut and the entries alone: equal for two jobs over the same input (P31).
    content: String,
}

/// A plan that cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// More shards than a job may have.
    #[error("it makes more than {MAX_SHARDS} shards")]
    TooManyShards,
    /// Not the plan that status speaks of.
    #[error("the stored plan's digest is {found}, status has {wanted}")]
    Digest {
        /// Of the bytes found.
        found: String,
        /// Of the plan wanted.
        wanted: String,
    },
    /// Not a plan.
    #[error("the stored plan is not readable")]
    Json(#[from] serde_json::Error),
    /// Not the whole plan, or one of another version.
    #[error("the stored plan is not of this form: {0}")]
    Form(&'static str),
}

/// A plan while it is made.
pub struct Draft {
    cut: Cut,
    cutter: Cutter,
    foot: Foot,
    content: blake3::Hasher,
}

impl Draft {
    /// Begins one, and gives its first line.
    ///
    /// # Errors
    /// When JSON cannot be written, which no head causes.
    pub fn new(head: &Head) -> Result<(Self, Vec<u8>), PlanError> {
        let mut draft = Self {
            cut: head.cut.clone(),
            cutter: Cutter::default(),
            foot: Foot { entries: 0, bytes: 0, shards: 0, content: String::new() },
            content: blake3::Hasher::new(),
        };
        draft.content.update(&serde_json::to_vec(&head.cut)?);
        Ok((draft, line_of(head)?))
    }

    /// Adds an entry: gives its line.
    ///
    /// # Errors
    /// When there are too many shards.
    pub fn add(&mut self, entry: &Entry) -> Result<Vec<u8>, PlanError> {
        let line = line_of(entry)?;
        self.content.update(&line);
        self.cutter.add(&self.cut, entry.size()).ok_or(PlanError::TooManyShards)?;
        self.foot.entries += 1;
        self.foot.bytes = self.foot.bytes.saturating_add(entry.bytes());
        Ok(line)
    }

    /// Ends it: gives the last line.
    ///
    /// # Errors
    /// When JSON cannot be written, which no foot causes.
    pub fn end(self) -> Result<Vec<u8>, PlanError> {
        let foot = Foot { shards: self.cutter.shards(), content: named(&self.content), ..self.foot };
        line_of(&foot)
    }
}

fn line_of(value: &impl Serialize) -> Result<Vec<u8>, PlanError> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(line)
}

fn named(hasher: &blake3::Hasher) -> String {
    format!("blake3:{}", hasher.finalize().to_hex())
}

/// A place in a stored plan from which entries can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    offset: u64,
    cutter: Cutter,
}

/// A stored plan: everything but its entries, which are read from the store when they are needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    head: Head,
    foot: Foot,
    digest: String,
    marks: Vec<Mark>,
}

impl Plan {
    /// Whether it was made for this job and this frozen part of its spec.
    #[must_use]
    pub fn is_of(&self, job: &JobUid, frozen: &str) -> bool {
        self.head.job == *job && self.head.frozen == frozen
    }

    /// Whether it cuts the same content in the same way, whatever job it is of (P31).
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        self.foot.content == other.foot.content
    }

    /// Number of shards.
    #[must_use]
    pub fn shards(&self) -> u32 {
        self.foot.shards
    }

    /// How entries became shards.
    #[must_use]
    pub fn cut(&self) -> &Cut {
        &self.head.cut
    }

    /// Content digest of the stored plan.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// What the operator is told of it, stored at `url`.
    #[must_use]
    pub fn summary(&self, url: String) -> Planned {
        let files = if self.head.cut.is_of_files() { self.foot.entries } else { 0 };
        let Foot { shards, bytes, .. } = self.foot;
        Planned { shards, files, bytes, digest: self.digest.clone(), url }
    }

    /// Begins to go through the shards from `index` on. None where there is no such shard.
    #[must_use]
    pub fn walk(&self, index: ShardIndex) -> Option<Walk> {
        if index >= self.foot.shards {
            return None;
        }
        // No shard at or after `index` has begun before a mark with so few of them.
        let after = self.marks.partition_point(|mark| mark.cutter.shards() <= index);
        let mark = self.marks.get(after.saturating_sub(1))?;
        Some(Walk::new(&self.head.base, &self.head.cut, mark.cutter, mark.offset, index))
    }
}

/// Content digest of what is stored.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    format!("blake3:{}", blake3::hash(bytes).to_hex())
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use proptest::prelude::*;

    use super::*;

    /// A plan over files of these sizes, as it is stored.
    fn stored(cut: &Cut, sizes: &[u64]) -> Vec<u8> {
        let head = Head::new(&JobUid("u".into()), "blake3:f", "file:///data/in/", cut);
        let (mut draft, mut bytes) = Draft::new(&head).unwrap();
        for (number, &size) in sizes.iter().enumerate() {
            let path = format!("a b\n\"{number}\"");
            let entry = Entry::File(FileEntry { path, url: None, size, version: "1".into() });
            bytes.extend(draft.add(&entry).unwrap());
        }
        bytes.extend(draft.end().unwrap());
        bytes
    }

    fn read(bytes: &[u8], wanted: Option<&str>) -> Result<Plan, PlanError> {
        let mut reading = Reading::default();
        bytes.split_inclusive(|byte| *byte == b'\n').try_for_each(|line| reading.line(line))?;
        reading.end(wanted)
    }

    fn shards(plan: &Plan, bytes: &[u8], from: ShardIndex) -> Vec<(ShardIndex, Shard)> {
        let mut all = Vec::new();
        let Some(mut walk) = plan.walk(from) else { return all };
        let lines = bytes[usize::try_from(walk.offset()).unwrap()..].split(|byte| *byte == b'\n');
        for line in lines.filter(|line| !line.is_empty()) {
            let went = walk.line(line, |index, shard| {
                all.push((index, shard.clone()));
                ControlFlow::<()>::Continue(())
            });
            assert_eq!(went.unwrap(), ControlFlow::Continue(()));
        }
        all
    }

    proptest! {
        #[test]
        fn from_wherever_one_begins_the_shards_are_the_same(
            sizes in prop::collection::vec(0_u64..40, 0..700),
            files in 1_u32..5,
            bytes in 1_u64..50,
            kind in 0..4,
            from in any::<prop::sample::Index>(),
        ) {
            let cut = match kind {
                0 => Cut::Files { files, bytes: None },
                1 => Cut::Files { files: 100, bytes: Some(bytes) },
                2 => Cut::Bytes { bytes },
                _ => Cut::Lines { bytes, prefix: String::new() },
            };
            let stored = stored(&cut, &sizes);
            let plan = read(&stored, Some(&digest(&stored))).unwrap();
            let all = shards(&plan, &stored, 0);
            prop_assert_eq!(all.len(), plan.shards() as usize);
            prop_assert_eq!(all.iter().map(|(_, shard)| shard.bytes()).sum::<u64>(), sizes.iter().sum::<u64>());
            let from = from.index(all.len() + 1);
            prop_assert_eq!(&shards(&plan, &stored, u32::try_from(from).unwrap())[..], &all[from.min(all.len())..]);
        }

        #[test]
        fn a_damaged_plan_is_never_read(cut in 0_usize..500, flip in 0_usize..500) {
            let bytes = stored(&Cut::Bytes { bytes: 10 }, &[25, 7]);
            let wanted = digest(&bytes);
            prop_assert!(read(&bytes[..cut.min(bytes.len() - 1)], Some(&wanted)).is_err());
            let mut damaged = bytes.clone();
            damaged[flip % bytes.len()] ^= 1;
            prop_assert!(read(&damaged, Some(&wanted)).is_err());
            prop_assert!(read(&bytes, Some(&wanted)).is_ok());
        }
    }

    #[test]
    fn a_shard_is_known_by_what_it_reads_whatever_the_job() {
        let bytes = stored(&Cut::Bytes { bytes: 10 }, &[25]);
        let plan = read(&bytes, None).unwrap();
        let ids: Vec<String> = shards(&plan, &bytes, 0).iter().map(|(_, shard)| shard.id()).collect();
        assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0].len() == 16);
        let other = String::from_utf8(bytes).unwrap().replace("\"u\"", "\"another\"");
        let other = read(other.as_bytes(), None).unwrap();
        assert!(plan.is_like(&other) && plan.digest() != other.digest());
        assert!(!other.is_of(&JobUid("u".into()), "blake3:f"));
    }

    #[test]
    fn no_files_make_no_shards() {
        let bytes = stored(&Cut::Files { files: 1, bytes: None }, &[]);
        let plan = read(&bytes, None).unwrap();
        assert_eq!((plan.shards(), plan.walk(0).is_none()), (0, true));
    }
}
