//! Where everything of ours lies: names only, relative to two folders that may be one. Commits are links to results, so
//! they lie beside them, under `{output}/_hyperflow/`; plan, records and report lie under `records`, by default the same.
//!
//! ```text
//! {output}/part-000017                       a result, linked from pub/17
//!
//! beside results
//! claims/{digest of the name template}       which job owns the names (P8); its successors beside it (P31)
//! {job uid}/pub/17                           the commit of shard 17 (P5)
//!          /pub/17.run2                      of its second run, where names have {run} in them (P25)
//!          /pub/17.{epoch}-{worker}/1        of several files: the files, which the commit names
//!          /finally-1                        the result of the last command of run 1 (P5); never an earlier owner's
//!          /stage/17/{epoch}-{worker}        an attempt's own segment (P3)
//!          /ckpt/17/{n}-{epoch}-{worker}.{digest}
//!          /stage.run2/…, /ckpt.run2/…       of the second run, for a sweep takes the first run's away
//!
//! under records
//! {job uid}/plan                             the frozen plan
//!          /records/{worker}.jsonl           what each worker published (P9)
//!          /report.jsonl                     the same for people, shard by shard
//!          /run-2/report.jsonl               of the second run
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
    /// Which run, from 1.
    run: u32,
    /// Each run has names of its own.
    names_runs: bool,
}

impl Layout {
    /// Paths of `job`.
    #[must_use]
    pub fn new(job: &JobUid) -> Self {
        Self { root: job.to_string(), run: 1, names_runs: false }
    }

    /// The same in a run of the job; `names_runs` as [`crate::job::Job::names_runs`] says.
    #[must_use]
    pub fn in_run(self, run: u32, names_runs: bool) -> Self {
        Self { run, names_runs, ..self }
    }

    /// What tells a run's own from the first run's.
    fn suffix(&self) -> String {
        if self.run > 1 { format!(".run{}", self.run) } else { String::new() }
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

    /// The commit of a shard: whoever creates it has published (P5). Where names do not say which run they are of, a shard
    /// has one commit for all runs.
    #[must_use]
    pub fn commit(&self, index: ShardIndex) -> String {
        let suffix = if self.names_runs { self.suffix() } else { String::new() };
        format!("{}/pub/{index}{suffix}", self.root)
    }

    /// Folder of the files that an attempt commits as the results of one shard, before one of them is the commit. Private
    /// to the attempt (P3).
    #[must_use]
    pub fn commit_folder(&self, index: ShardIndex, epoch: Epoch, worker: &WorkerId) -> String {
        format!("{}/pub/{index}.{epoch}-{worker}", self.root)
    }

    /// The result of the last command in this run: whoever creates it has published.
    #[must_use]
    pub fn finally(&self) -> String {
        format!("{}/finally-{}", self.root, self.run)
    }

    /// Folder of everything that is not committed yet.
    #[must_use]
    pub fn stage(&self) -> String {
        format!("{}/stage{}", self.root, self.suffix())
    }

    /// Names of the folders of segments and of checkpoints of all shards, in the job's own: what a sweep takes away.
    #[must_use]
    pub fn temporary(&self) -> [String; 2] {
        [format!("stage{}", self.suffix()), format!("ckpt{}", self.suffix())]
    }

    /// Folder of a shard's segments.
    #[must_use]
    pub fn stage_folder(&self, index: ShardIndex) -> String {
        format!("{}/{index}", self.stage())
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
        format!("{}/ckpt{}/{index}", self.root, self.suffix())
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

    /// The report of this run.
    #[must_use]
    pub fn report(&self) -> String {
        match self.run {
            ..2 => format!("{}/report.jsonl", self.root),
            run => format!("{}/run-{run}/report.jsonl", self.root),
        }
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
    fn runs_share_a_commit_where_their_results_share_a_name_and_nothing_else() {
        let layout = |run, named| Layout::new(&JobUid("u".into())).in_run(run, named);
        assert_eq!((layout(1, true).commit(17), layout(2, false).commit(17)), ("u/pub/17".into(), "u/pub/17".into()));
        assert_eq!(layout(2, true).commit(17), "u/pub/17.run2");
        assert_eq!(layout(1, true).report(), "u/report.jsonl");
        assert_eq!(layout(2, false).report(), "u/run-2/report.jsonl");
        assert_eq!(layout(1, true).stage_folder(3), "u/stage/3");
        assert_eq!(layout(2, false).stage_folder(3), "u/stage.run2/3");
        assert_eq!(layout(3, true).temporary(), ["stage.run3", "ckpt.run3"]);
    }

    #[test]
    fn a_checkpoint_is_found_by_number_and_digest() {
        let worker = WorkerId { pod_uid: "0d1f3c2a".into(), nonce: 1 };
        let name = Layout::checkpoint(12, Epoch::default(), &worker, 0xab);
        assert!(Layout::is_checkpoint(&name, 12, 0xab));
        assert!(!Layout::is_checkpoint(&name, 1, 0xab) && !Layout::is_checkpoint(&name, 12, 0xac));
    }
}
