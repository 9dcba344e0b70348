//! Where everything of ours lies: names only, relative to two folders that may be one. Commits are links to results, so
//! they lie beside them, under `{output}/_hyperflow/`; plan, records and report lie under `records`, by default the same.
//!
//! ```text
//! {output}/part-000017                       a result, linked from pub/17
//!
//! beside results
//! claims/{digest of the name template}       which job owns the names (P8); its successors beside it (P31)
//! {job uid}/pub/17                           the commit of shard 17 (P5)
//!          /pub/17.{epoch}-{worker}/1        of several files: the files, which the commit names
//!          /stage/17/{epoch}-{worker}        an attempt's own segment (P3)
//!          /ckpt/17/{n}-{epoch}-{worker}.{digest}
//!
//! under records
//! {job uid}/plan                             the frozen plan
//!          /records/{worker}.jsonl           what each worker published (P9)
//!          /report.jsonl                     the same for people, shard by shard
//! ```

use hyperflow_api::ids::{Epoch, JobUid, ShardIndex, WorkerId};

/// The folder of ours in an output directory; never listed as input.
pub const FOLDER: &str = "_hyperflow";

/// The folder of claims in it.
pub const CLAIMS: &str = "claims";

/// Paths of one job, relative to the folder that they are listed under.
#[derive(Clone, Debug)]
pub struct Layout {
    root: String,
}

impl Layout {
    /// Paths of `job`.
    #[must_use]
    pub fn new(job: &JobUid) -> Self {
        Self { root: job.to_string() }
    }

    /// The job's own folder.
    #[must_use]
    pub fn root(&self) -> &str {
        &self.root
    }

    /// The claim of a name template: `path` as in `spec.output.path`. Jobs that would write the same names meet here.
    #[must_use]
    pub fn claim(path: &str) -> String {
        let digest = blake3::hash(path.as_bytes()).to_hex();
        format!("{CLAIMS}/{}", &digest.as_str()[..32])
    }

    /// Who comes after the owner `uid` of a claim (P31): whoever creates it.
    #[must_use]
    pub fn successor(path: &str, uid: &JobUid) -> String {
        format!("{}.after-{uid}", Self::claim(path))
    }

    /// The frozen plan.
    #[must_use]
    pub fn plan(&self) -> String {
        format!("{}/plan", self.root)
    }

    /// The commit of a shard: whoever creates it has published (P5).
    #[must_use]
    pub fn commit(&self, index: ShardIndex) -> String {
        format!("{}/pub/{index}", self.root)
    }

    /// Folder of the files that an attempt commits as the results of one shard, before one of them is the commit. Private
    /// to the attempt (P3).
    #[must_use]
    pub fn commit_folder(&self, index: ShardIndex, epoch: Epoch, worker: &WorkerId) -> String {
        format!("{}/pub/{index}.{epoch}-{worker}", self.root)
    }

    /// Folder of a shard's segments.
    #[must_use]
    pub fn stage_folder(&self, index: ShardIndex) -> String {
        format!("{}/stage/{index}", self.root)
    }

    /// Name of an attempt's segment in its folder. Private to the attempt (P3).
    #[must_use]
    pub fn segment(epoch: Epoch, worker: &WorkerId) -> String {
        format!("{epoch}-{worker}")
    }

    /// Name of a probe, of a file before its create-only link, or of an assembled output: private to the attempt (P3).
    #[must_use]
    pub fn private(what: &str, epoch: Epoch, worker: &WorkerId) -> String {
        format!("{what}-{epoch}-{worker}")
    }

    /// Folder of a shard's checkpoints.
    #[must_use]
    pub fn checkpoint_folder(&self, index: ShardIndex) -> String {
        format!("{}/ckpt/{index}", self.root)
    }

    /// Name of a checkpoint in its folder. Who resumes finds it by number and digest, whoever wrote it.
    #[must_use]
    pub fn checkpoint(number: u64, epoch: Epoch, worker: &WorkerId, digest: u64) -> String {
        format!("{number}-{epoch}-{worker}.{digest:016x}")
    }

    /// Whether a name in the checkpoint folder is the checkpoint with this number and digest.
    #[must_use]
    pub fn is_checkpoint(name: &str, number: u64, digest: u64) -> bool {
        name.starts_with(&format!("{number}-")) && name.ends_with(&format!(".{digest:016x}"))
    }

    /// The report.
    #[must_use]
    pub fn report(&self) -> String {
        format!("{}/report.jsonl", self.root)
    }

    /// Folder of all workers' records.
    #[must_use]
    pub fn records_folder(&self) -> String {
        format!("{}/records", self.root)
    }

    /// The record file of one worker: it alone appends.
    #[must_use]
    pub fn records(&self, worker: &WorkerId) -> String {
        format!("{}/{}-{:016x}.jsonl", self.records_folder(), worker.pod_uid, worker.nonce)
    }
}

#[cfg(test)]
mod tests {
    use hyperflow_api::ids::Takeover;

    use super::*;

    #[test]
    fn private_names_tell_attempts_and_processes_apart() {
        let worker = |nonce| WorkerId { pod_uid: "0d1f3c2a-0000-4000-8000-000000000000".into(), nonce };
        let epoch = |sequence| Epoch { takeover: Takeover { term: 1, random: 5 }, sequence };
        let names = [
            Layout::segment(epoch(1), &worker(1)),
            Layout::segment(epoch(2), &worker(1)),
            Layout::segment(epoch(1), &worker(2)),
        ];
        assert!(names[0] != names[1] && names[0] != names[2] && names[1] != names[2]);
    }

    #[test]
    fn a_checkpoint_is_found_by_number_and_digest() {
        let worker = WorkerId { pod_uid: "0d1f3c2a".into(), nonce: 1 };
        let name = Layout::checkpoint(12, Epoch::default(), &worker, 0xab);
        assert!(Layout::is_checkpoint(&name, 12, 0xab));
        assert!(!Layout::is_checkpoint(&name, 1, 0xab) && !Layout::is_checkpoint(&name, 12, 0xac));
    }
}
