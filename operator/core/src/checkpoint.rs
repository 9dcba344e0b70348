//! When progress counts, and where recovery starts (P20).
//!
//! A checkpoint is an immutable manifest in the store: the position in the shard's input, and the segments whose bytes,
//! up to the stated length, are the output so far. Everything it names was durable before it was written. Whoever
//! resumes opens a segment of its own and reads older ones only up to the manifest's length, so bytes that a dead or
//! frozen attempt still appends change nothing.

use hyperflow_api::{
    ids::{JobUid, ShardIndex},
    message::Checkpoint,
    shardjob::CheckpointPolicy,
};
use serde::{Deserialize, Serialize};

/// Version of the manifest's form.
const FORMAT: u32 = 1;

/// What a checkpoint says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    format: u32,
    /// Whose it is.
    pub job: JobUid,
    /// Digest of the plan it belongs to.
    pub plan: String,
    /// Digest of the program: another one starts from zero (P4).
    pub program: String,
    /// Which shard.
    pub index: ShardIndex,
    /// Rises by one with each checkpoint of the shard, over all attempts.
    pub number: u64,
    /// Bytes of the shard's input that need not be read again.
    pub position: u64,
    /// The output so far, in order.
    pub segments: Vec<Segment>,
    /// What the task must know to go on; none where the output so far is the input so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

/// A piece of output in a file that one attempt wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Segment {
    /// Name in the shard's staging folder.
    pub name: String,
    /// Bytes that count; the file may be longer.
    pub length: u64,
    /// CRC-32C of those bytes.
    pub crc32c: u32,
}

/// What a manifest must be of to be used.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// The job.
    pub job: &'a JobUid,
    /// The plan's digest.
    pub plan: &'a str,
    /// The program's digest.
    pub program: &'a str,
    /// The shard.
    pub index: ShardIndex,
}

/// A checkpoint that cannot be used; the shard starts from zero.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Torn, damaged, or not the one that status speaks of.
    #[error("the manifest's digest is {found:016x}, status has {wanted:016x}")]
    Digest {
        /// Of the bytes found.
        found: u64,
        /// Of the checkpoint wanted.
        wanted: u64,
    },
    /// Not a manifest.
    #[error("the manifest is not readable")]
    Json(#[from] serde_json::Error),
    /// Of another job, plan, program or shard, or of another version.
    #[error("the manifest is of another {0}")]
    Foreign(&'static str),
    /// The operator knows another position, or the shard is not so long.
    #[error(
        "the manifest is number {number} at byte {position}, which is not what the lease says, or beyond the shard's end"
    )]
    Differs {
        /// Number stated.
        number: u64,
        /// Position stated.
        position: u64,
    },
    /// Position and segments disagree.
    #[error("the manifest's segments hold {segments} bytes, its position is {position}")]
    Length {
        /// Sum of the segments.
        segments: u64,
        /// The position stated.
        position: u64,
    },
}

/// The first 64 bits of the BLAKE3 of `bytes`: what status keeps of a manifest.
#[must_use]
pub fn digest(bytes: &[u8]) -> u64 {
    let hash = blake3::hash(bytes);
    let mut first = [0; 8];
    first.copy_from_slice(&hash.as_bytes()[..8]);
    u64::from_be_bytes(first)
}

impl Manifest {
    /// A manifest of `origin`, whose output so far is its input so far.
    #[must_use]
    pub fn new(origin: Origin<'_>, number: u64, position: u64, segments: Vec<Segment>) -> Self {
        Self {
            format: FORMAT,
            job: origin.job.clone(),
            plan: origin.plan.into(),
            program: origin.program.into(),
            index: origin.index,
            number,
            position,
            segments,
            state: None,
        }
    }

    /// The same of a task whose output is something else than its input.
    #[must_use]
    pub fn with_state(self, state: String) -> Self {
        Self { state: Some(state), ..self }
    }

    /// The bytes to store.
    ///
    /// # Errors
    /// When JSON cannot be written, which no manifest causes.
    pub fn encode(&self) -> Result<Vec<u8>, ManifestError> {
        Ok(serde_json::to_vec(self)?)
    }

    /// Reads what was stored, if it is whole, the one wanted, and of `origin`.
    ///
    /// # Errors
    /// When it is not; the caller then starts from zero.
    pub fn decode(bytes: &[u8], wanted: u64, origin: Origin<'_>) -> Result<Self, ManifestError> {
        let found = digest(bytes);
        if found != wanted {
            return Err(ManifestError::Digest { found, wanted });
        }
        let manifest: Self = serde_json::from_slice(bytes)?;
        let foreign = [
            (manifest.format != FORMAT, "version"),
            (manifest.job != *origin.job, "job"),
            (manifest.plan != origin.plan, "plan"),
            (manifest.program != origin.program, "program"),
            (manifest.index != origin.index, "shard"),
        ];
        if let Some((_, what)) = foreign.into_iter().find(|(differs, _)| *differs) {
            return Err(ManifestError::Foreign(what));
        }
        let segments = manifest.segments.iter().try_fold(0_u64, |sum, segment| sum.checked_add(segment.length));
        match segments {
            Some(segments) if segments == manifest.position || manifest.state.is_some() => Ok(manifest),
            sum => Err(ManifestError::Length { segments: sum.unwrap_or(u64::MAX), position: manifest.position }),
        }
    }

    /// Reads what was stored, if a shard of `length` bytes may go on from it by a lease that names `wanted`.
    ///
    /// # Errors
    /// When it may not; the caller then starts from zero.
    pub fn resume(bytes: &[u8], wanted: Checkpoint, origin: Origin<'_>, length: u64) -> Result<Self, ManifestError> {
        let manifest = Self::decode(bytes, wanted.digest, origin)?;
        let Self { number, position, .. } = manifest;
        if (number, position) != (wanted.number, wanted.position) || position > length {
            return Err(ManifestError::Differs { number, position });
        }
        Ok(manifest)
    }
}

/// The steps of making a checkpoint: output first, then its names, then the manifest, and only then is it said (P20).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saving {
    /// Make the output so far durable.
    SyncOutput,
    /// Make the names of its segments durable.
    SyncNames,
    /// Write the manifest under a name of its own, content durable.
    Write,
    /// Make that name durable.
    SyncName,
    /// Everything that is said by this is durable: say it.
    Report,
}

impl Saving {
    /// Where it begins.
    pub const FIRST: Self = Self::SyncOutput;

    /// The step after this one is done.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        match self {
            Self::SyncOutput => Some(Self::SyncNames),
            Self::SyncNames => Some(Self::Write),
            Self::Write => Some(Self::SyncName),
            Self::SyncName => Some(Self::Report),
            Self::Report => None,
        }
    }
}

/// How often an attempt makes a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cadence {
    /// Most milliseconds between two.
    pub millis: u64,
    /// Most bytes between two.
    pub bytes: u64,
}

impl Cadence {
    /// From the spec; a policy that cannot be read falls back to its default, which the core refuses earlier.
    #[must_use]
    pub fn new(policy: &CheckpointPolicy) -> Self {
        Self {
            millis: u64::try_from(policy.period_seconds).unwrap_or(5).max(1) * 1000,
            bytes: policy.bytes.bytes().unwrap_or(64 << 20).max(1 << 20),
        }
    }

    /// Whether a checkpoint is due, so many milliseconds and bytes after the last one.
    #[must_use]
    pub fn due(&self, millis: u64, bytes: u64) -> bool {
        bytes > 0 && (bytes >= self.bytes || millis >= self.millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: &str = "5b1e0c44";

    fn manifest(job: &JobUid) -> Manifest {
        let segment = |length| Segment { name: format!("s{length}"), length, crc32c: 1 };
        let origin = Origin { job, plan: "blake3:1", program: "copy/1", index: 7 };
        Manifest::new(origin, 3, 30, vec![segment(10), segment(20)])
    }

    #[test]
    fn a_manifest_is_read_back_only_by_its_own_job_plan_program_and_shard() {
        let (job, other) = (JobUid(JOB.into()), JobUid("other".into()));
        let bytes = manifest(&job).encode().unwrap();
        let origin = Origin { job: &job, plan: "blake3:1", program: "copy/1", index: 7 };
        assert_eq!(Manifest::decode(&bytes, digest(&bytes), origin).unwrap(), manifest(&job));
        for foreign in [
            Origin { job: &other, ..origin },
            Origin { plan: "blake3:2", ..origin },
            Origin { program: "copy/2", ..origin },
            Origin { index: 8, ..origin },
        ] {
            assert!(matches!(Manifest::decode(&bytes, digest(&bytes), foreign), Err(ManifestError::Foreign(_))));
        }
    }

    #[test]
    fn a_damaged_or_torn_manifest_is_refused() {
        let job = JobUid(JOB.into());
        let origin = Origin { job: &job, plan: "blake3:1", program: "copy/1", index: 7 };
        let bytes = manifest(&job).encode().unwrap();
        let wanted = digest(&bytes);
        for cut in 0..bytes.len() {
            assert!(matches!(Manifest::decode(&bytes[..cut], wanted, origin), Err(ManifestError::Digest { .. })));
        }
        let mut lying = manifest(&job);
        lying.position += 1;
        let bytes = lying.encode().unwrap();
        assert!(matches!(Manifest::decode(&bytes, digest(&bytes), origin), Err(ManifestError::Length { .. })));
    }

    #[test]
    fn a_manifest_is_used_only_where_the_lease_and_the_shard_agree() {
        let job = JobUid(JOB.into());
        let origin = Origin { job: &job, plan: "blake3:1", program: "copy/1", index: 7 };
        let bytes = manifest(&job).encode().unwrap();
        let wanted = Checkpoint { number: 3, position: 30, digest: digest(&bytes) };
        assert_eq!(Manifest::resume(&bytes, wanted, origin, 30).unwrap(), manifest(&job));
        for (wanted, length) in
            [(wanted, 29), (Checkpoint { number: 4, ..wanted }, 30), (Checkpoint { position: 20, ..wanted }, 30)]
        {
            let refused = Manifest::resume(&bytes, wanted, origin, length);
            assert!(matches!(refused, Err(ManifestError::Differs { number: 3, position: 30 })));
        }
    }

    #[test]
    fn a_checkpoint_is_due_by_time_or_by_bytes_but_never_for_nothing() {
        let cadence = Cadence { millis: 5000, bytes: 100 };
        assert!(!cadence.due(60_000, 0) && !cadence.due(4999, 99));
        assert!(cadence.due(5000, 1) && cadence.due(0, 100));
    }
}
