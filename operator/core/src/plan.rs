//! The frozen plan: which bytes are in which shard (P4).
//!
//! Numbers need no plan file: they are arithmetic. For files one worker lists the input with its versions, and writes the
//! plan create-only; everyone reads the stored one and checks its digest. The form is one JSON line for the plan and one
//! for each file.

use hyperflow_api::{
    ids::{JobUid, MAX_SHARDS, ShardIndex},
    message::Planned,
};
use serde::{Deserialize, Serialize};

/// Version of the plan's form.
const FORMAT: u32 = 1;

/// A plan over files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    head: Head,
    file: InputFile,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    format: u32,
    job: JobUid,
    frozen: String,
    bytes_per_shard: u64,
    shards: u32,
}

/// An input file as it was when the plan was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InputFile {
    /// As the user wrote it.
    pub url: String,
    /// Bytes.
    pub size: u64,
    /// What tells this content from any other the file may have: size, times and inode.
    pub version: String,
}

/// What is in a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Of this file.
    pub file: &'a InputFile,
    /// From this byte.
    pub offset: u64,
    /// So many bytes.
    pub length: u64,
}

/// A plan that cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// More shards than a job may have.
    #[error("{bytes} bytes in shards of {bytes_per_shard} make more than {MAX_SHARDS} shards; raise `bytesPerShard`")]
    TooManyShards {
        /// Of the input.
        bytes: u64,
        /// As asked for.
        bytes_per_shard: u64,
    },
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

impl Plan {
    /// A plan over one file, cut every `bytes_per_shard` bytes. An empty file makes no shards.
    ///
    /// # Errors
    /// When it makes too many shards.
    pub fn of_file(job: &JobUid, frozen: &str, file: InputFile, bytes_per_shard: u64) -> Result<Self, PlanError> {
        let bytes_per_shard = bytes_per_shard.max(1);
        let too_many = || PlanError::TooManyShards { bytes: file.size, bytes_per_shard };
        let shards = u32::try_from(file.size.div_ceil(bytes_per_shard)).map_err(|_| too_many())?;
        if shards > MAX_SHARDS {
            return Err(too_many());
        }
        let head = Head { format: FORMAT, job: job.clone(), frozen: frozen.into(), bytes_per_shard, shards };
        Ok(Self { head, file })
    }

    /// The bytes to store.
    ///
    /// # Errors
    /// When JSON cannot be written, which no plan causes.
    pub fn encode(&self) -> Result<Vec<u8>, PlanError> {
        let mut bytes = serde_json::to_vec(&self.head)?;
        bytes.push(b'\n');
        serde_json::to_writer(&mut bytes, &self.file)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads a stored plan; with `wanted`, only the one with that digest.
    ///
    /// # Errors
    /// When it is damaged or another one.
    pub fn decode(bytes: &[u8], wanted: Option<&str>) -> Result<Self, PlanError> {
        let found = digest(bytes);
        if let Some(wanted) = wanted.filter(|wanted| *wanted != found) {
            return Err(PlanError::Digest { found, wanted: wanted.into() });
        }
        let mut lines = bytes.split(|byte| *byte == b'\n');
        let head: Head = serde_json::from_slice(lines.next().unwrap_or_default())?;
        let file: InputFile = serde_json::from_slice(lines.next().unwrap_or_default())?;
        if head.format != FORMAT {
            return Err(PlanError::Form("it is of another version"));
        }
        if lines.next() != Some(b"") || lines.next().is_some() {
            return Err(PlanError::Form("it does not end after its files"));
        }
        if head.bytes_per_shard == 0 || u64::from(head.shards) != file.size.div_ceil(head.bytes_per_shard) {
            return Err(PlanError::Form("its number of shards is not what its files make"));
        }
        if head.shards > MAX_SHARDS {
            return Err(PlanError::Form("it has more shards than a job may have"));
        }
        Ok(Self { head, file })
    }

    /// Whether it was made for this job and this frozen part of its spec.
    #[must_use]
    pub fn is_of(&self, job: &JobUid, frozen: &str) -> bool {
        self.head.job == *job && self.head.frozen == frozen
    }

    /// Number of shards.
    #[must_use]
    pub fn shards(&self) -> u32 {
        self.head.shards
    }

    /// What is in a shard; nothing beyond the last one.
    #[must_use]
    pub fn piece(&self, index: ShardIndex) -> Option<Piece<'_>> {
        let offset = u64::from(index).checked_mul(self.head.bytes_per_shard)?;
        let length = self.file.size.checked_sub(offset)?.min(self.head.bytes_per_shard);
        (length > 0).then_some(Piece { file: &self.file, offset, length })
    }

    /// What the operator is told of a plan stored at `url` as `bytes`.
    #[must_use]
    pub fn summary(&self, bytes: &[u8], url: String) -> Planned {
        Planned { shards: self.head.shards, files: 1, bytes: self.file.size, digest: digest(bytes), url }
    }
}

/// Content digest of a stored plan.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    format!("blake3:{}", blake3::hash(bytes).to_hex())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plan(size: u64, bytes_per_shard: u64) -> Plan {
        let file = InputFile { url: "file:///data/a b\n\"c\"".into(), size, version: "1".into() };
        Plan::of_file(&JobUid("u".into()), "blake3:f", file, bytes_per_shard).unwrap()
    }

    proptest! {
        #[test]
        fn shards_one_after_the_other_are_the_input(size in 0_u64..1 << 44, shift in 26_u32..40) {
            let plan = plan(size, 1 << shift);
            let mut end = 0;
            for index in 0..plan.shards() {
                let piece = plan.piece(index).unwrap();
                prop_assert_eq!(piece.offset, end);
                prop_assert!(piece.length > 0);
                end += piece.length;
            }
            prop_assert_eq!(end, size);
            prop_assert!(plan.piece(plan.shards()).is_none());
        }

        #[test]
        fn a_damaged_plan_is_never_read(cut in 0_usize..150, flip in 0_usize..150) {
            let bytes = plan(1 << 30, 1 << 26).encode().unwrap();
            let wanted = digest(&bytes);
            prop_assert!(Plan::decode(&bytes[..cut.min(bytes.len() - 1)], Some(&wanted)).is_err());
            let mut damaged = bytes.clone();
            damaged[flip % bytes.len()] ^= 1;
            prop_assert!(Plan::decode(&damaged, Some(&wanted)).is_err());
            prop_assert!(Plan::decode(&bytes, Some(&wanted)).is_ok());
        }
    }

    #[test]
    fn an_empty_file_makes_no_shards() {
        assert_eq!(plan(0, 4096).shards(), 0);
        let bytes = plan(0, 4096).encode().unwrap();
        assert_eq!(Plan::decode(&bytes, None).unwrap(), plan(0, 4096));
    }

    #[test]
    fn too_many_shards_are_refused() {
        let file = InputFile { url: "file:///x".into(), size: u64::MAX, version: "1".into() };
        assert!(matches!(Plan::of_file(&JobUid("u".into()), "f", file, 4096), Err(PlanError::TooManyShards { .. })));
    }
}
