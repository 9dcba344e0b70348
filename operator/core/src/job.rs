//! A spec that has been checked, once, into types that cannot be wrong.
//!
//! The API server's CEL rules say the same and refuse most of it earlier; an object made before a rule, or written
//! around it, meets this check. What is refused gets a reason and a message that says what to do.

use hyperflow_api::{
    exec,
    ids::JobUid,
    quantity::Quantity,
    shardjob::ShardJobSpec,
    speculation::{Speculation, SpeculationMode},
    task::{self, Algorithm},
};
use serde::{Deserialize, Serialize};

use crate::{
    blocks::BlockPolicy, checkpoint::Cadence, layout::FOLDER, limits::AttemptLimits, paths::check_writable,
    policy::Rules, retry::RetryPolicy, source, tolerance::Tolerance,
};
pub use crate::{
    output::{Named, Output},
    program::{Finally, Program},
    source::{Cut, Listing, Source},
};

/// A sound spec.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// What is processed.
    pub source: Source,
    /// What is done to each shard.
    pub task: Task,
    /// What is done once after all of them.
    pub finally: Option<Finally>,
    /// Where results go.
    pub output: Option<Output>,
    /// Where plan, records and report are kept, if it is not `_hyperflow/` in the output: `file:///…/`.
    records: Option<String>,
    /// Most workers at a time.
    pub parallelism: u32,
    /// Shards at a time in one worker.
    pub slots: u32,
    /// When there is another attempt.
    pub retry: RetryPolicy,
    /// What is far behind runs on a second worker as well (P19).
    pub duplicates: bool,
    /// What a failure does.
    pub rules: Rules,
    /// How many shards may fail.
    pub tolerance: Tolerance,
    /// How long an attempt may take.
    pub limits: AttemptLimits,
    /// How often attempts make checkpoints.
    pub cadence: Cadence,
    /// Limit of one worker's reads and writes together.
    pub bytes_per_second: Option<u64>,
    /// Limit of one attempt's scratch space: a slot's share of the worker's.
    pub scratch_bytes: Option<u64>,
    /// How many copies of the input are kept on nodes' disks, if any are.
    pub blocks: Option<BlockPolicy>,
    /// Digest of source, output and records, and of task and finally: what may not change within a run (P4).
    pub frozen: String,
}

/// What is done to each shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Runs a program of the user's.
    Exec(Box<Program>),
    /// Writes the shard's bytes as a result, so many times.
    Copy {
        /// How many results.
        copies: u32,
    },
    /// Writes the checksums of the shard's files as a result.
    Checksum(Sum),
    /// Nothing.
    Noop,
}

/// A checksum of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sum {
    /// CRC-32C.
    Crc32c,
    /// SHA-256.
    Sha256,
}

impl Task {
    /// Digest of the program: a checkpoint of another program is not resumed (P4), and its results are not used again
    /// (P31). Rises when a built-in task changes what it writes.
    #[must_use]
    pub fn program(&self) -> String {
        match self {
            Self::Exec(program) => program.digest.clone(),
            Self::Copy { copies: 1 } => "copy/1".into(),
            Self::Copy { copies } => format!("copy/1x{copies}"),
            Self::Checksum(Sum::Crc32c) => "crc32c/1".into(),
            Self::Checksum(Sum::Sha256) => "sha256/1".into(),
            Self::Noop => "noop/1".into(),
        }
    }
}

/// A spec that is not sound.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct Refusal {
    /// The field, as `spec.source.files.url`.
    pub field: &'static str,
    /// What is wrong with it and what to do.
    pub message: String,
}

pub(crate) fn refuse<T>(field: &'static str, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { field, message: message.into() })
}

impl Job {
    /// Checks a spec.
    ///
    /// # Errors
    /// With the first field that is not sound.
    pub fn check(spec: &ShardJobSpec) -> Result<Self, Refusal> {
        let mounts = &spec.workers.volume_mounts;
        let source = source::check(&spec.source, mounts)?;
        let output = spec.output.as_ref().map(|output| Output::check(output, mounts)).transpose()?;
        let task = check_task(&spec.task, &source, output.as_ref())?;
        let finally =
            spec.finally.as_ref().map(|finally| Finally::check(finally, &task, output.as_ref())).transpose()?;
        if let Some(records) = &spec.records {
            check_writable("spec.records.url", &records.url, mounts)?;
        }
        if let Err(error) = spec.checkpoint.bytes.bytes() {
            return refuse("spec.checkpoint.bytes", error.to_string());
        }
        let slots = u32::try_from(spec.workers.slots).unwrap_or(1).max(1);
        let scratch = spec.workers.scratch.as_ref().and_then(|scratch| scratch.size_limit.as_ref());
        let scratch = amount("spec.workers.scratch.sizeLimit", scratch)?;
        let job = Self {
            frozen: frozen_digest(spec),
            parallelism: u32::try_from(spec.parallelism).unwrap_or(0),
            slots,
            scratch_bytes: scratch.map(|bytes| (bytes / u64::from(slots)).max(1)),
            retry: RetryPolicy::new(&spec.failure_policy),
            duplicates: check_speculation(&spec.speculation, output.as_ref())?,
            rules: Rules::check(&spec.failure_policy.rules)?,
            tolerance: Tolerance::check(&spec.failure_policy)?,
            limits: AttemptLimits::new(&spec.failure_policy),
            cadence: Cadence::new(&spec.checkpoint),
            bytes_per_second: amount("spec.workers.bytesPerSecond", spec.workers.bytes_per_second.as_ref())?,
            records: spec.records.as_ref().map(|records| records.url.clone()),
            source,
            task,
            finally,
            output,
            blocks: BlockPolicy::check(spec)?,
        };
        job.check_places()?;
        Ok(job)
    }

    /// Places that must be there, and apart.
    fn check_places(&self) -> Result<(), Refusal> {
        let place = self.records_folder();
        if place.is_none() && self.source.counted().is_none() {
            return refuse("spec.records", "is required without `output`: the plan and the report need a place");
        }
        if place.is_none() && self.finally.is_some() {
            return refuse("spec.records", "is required by `finally` without `output`: the report needs a place");
        }
        let Source { listing: Listing::File(url) | Listing::Directory(url, _), cut } = &self.source else {
            return Ok(());
        };
        let ours = [self.records_folder(), self.commits_folder()];
        if ours.iter().flatten().any(|folder| url.starts_with(folder.as_str())) {
            let message =
                "must not lie under '_hyperflow/' of the output, or under `records`: they are Hyperflow's own";
            return refuse("spec.source.files.url", message);
        }
        let Some(output) = &self.output else { return Ok(()) };
        if output.url == *url {
            return refuse("spec.output.url", "must not be the source's `url`: results would be read as input");
        }
        if output.names_files() && !cut.is_one_file() {
            return refuse("spec.output.path", ONE_FILE);
        }
        Ok(())
    }

    /// Whether a result is a fact in a store (P5), or only said (P10).
    #[must_use]
    pub fn publishes(&self) -> bool {
        self.task != Task::Noop && self.records_folder().is_some()
    }

    /// Whether each run has names of its own: commits of one are none of another then (P25). Without an output nothing has
    /// a name that could be taken.
    #[must_use]
    pub fn names_runs(&self) -> bool {
        self.output.as_ref().is_none_or(Output::names_runs)
    }

    /// How many shards there are, if no worker is needed to make the plan: where nothing is kept, that is arithmetic.
    #[must_use]
    pub fn counted(&self) -> Option<u32> {
        self.source.counted().filter(|_| !self.publishes())
    }

    /// Directory of plan, records and report: a `file://` URL that ends with '/'. None when nothing is kept.
    #[must_use]
    pub fn records_folder(&self) -> Option<String> {
        self.records.clone().or_else(|| Some(own_folder(self.output.as_ref()?)))
    }

    /// Directory of commits, staging and checkpoints: in the output, for a commit is a link to its result.
    #[must_use]
    pub fn commits_folder(&self) -> Option<String> {
        self.output.as_ref().map(own_folder).or_else(|| self.records.clone())
    }
}

fn own_folder(output: &Output) -> String {
    format!("{}{FOLDER}/", output.url)
}

/// Digest of what is frozen by the plan (P4): what stays for all runs, and what is one run's.
fn frozen_digest(spec: &ShardJobSpec) -> String {
    // Field order in these types is fixed, so equal specs give equal bytes; a value that cannot be written is no spec.
    let digest = |bytes: Vec<u8>| blake3::hash(&bytes).to_hex().to_string();
    let plan = digest(serde_json::to_vec(&(&spec.source, &spec.output, &spec.records)).unwrap_or_default());
    let program = digest(serde_json::to_vec(&(&spec.task, &spec.finally)).unwrap_or_default());
    format!("blake3:{}{PROGRAM}{}", &plan[..32], &program[..16])
}

/// Stands between the digests of what no run may change and of what another run may.
const PROGRAM: char = '+';

/// Whether two digests of what is frozen have one plan: source, output and records are the same.
pub(crate) fn have_one_plan(one: &str, other: &str) -> bool {
    let plan = |frozen: &str| frozen.split(PROGRAM).next().unwrap_or_default().to_owned();
    plan(one) == plan(other)
}

const ONE_FILE: &str =
    "{dir}, {name}, {stem} and {ext} need one file per shard: `source.files.boundary` 'File' and `filesPerShard` 1";

fn check_task(task: &task::Task, source: &Source, output: Option<&Output>) -> Result<Task, Refusal> {
    const TASK: &str = "spec.task";
    let files = Some(&source.cut).filter(|cut| cut.is_of_files());
    if output.is_some_and(|output| output.names_files() && !files.is_some_and(Cut::is_one_file)) {
        return refuse("spec.output.path", ONE_FILE);
    }
    let copies = task.copy.as_ref().map_or(1, |copy| copy.copies);
    if output.is_some_and(|output| output.names_copies() != (copies > 1)) {
        return refuse(
            "spec.output.path",
            "must contain {copy} when `task.copy.copies` is greater than 1, and may not contain it otherwise",
        );
    }
    if let Some(exec) = &task.exec {
        let alone = task.copy.is_none() && task.checksum.is_none() && task.noop.is_none();
        return if alone { check_exec(exec, source, output) } else { refuse(TASK, ONE_TASK) };
    }
    match (&task.copy, &task.checksum, &task.noop) {
        (Some(_), None, None) if output.is_none() => refuse("spec.output", "`output` is required by `task.copy`"),
        (Some(_), None, None) if files.is_none() => refuse(TASK, "`task.copy` needs `source.files`"),
        (Some(_), None, None) => match u32::try_from(copies) {
            Ok(copies @ 1..=8) => Ok(Task::Copy { copies }),
            _ => refuse("spec.task.copy.copies", "must be between 1 and 8"),
        },
        (None, Some(checksum), None) => match (checksum.algorithm, files) {
            (Algorithm::Unknown, _) => refuse(
                "spec.task.checksum.algorithm",
                "is not known to this version of the operator; use 'CRC32C' or 'SHA256'",
            ),
            (Algorithm::CRC32C, Some(Cut::Files { .. })) => Ok(Task::Checksum(Sum::Crc32c)),
            (Algorithm::SHA256, Some(Cut::Files { .. })) => Ok(Task::Checksum(Sum::Sha256)),
            _ => refuse(
                TASK,
                "`task.checksum` needs `source.files` with `boundary` 'File': a checksum is that of a whole file",
            ),
        },
        (None, None, Some(_)) if output.is_none() => Ok(Task::Noop),
        (None, None, Some(_)) => refuse(TASK, "`task.noop` publishes nothing: remove `output`"),
        _ => refuse(TASK, ONE_TASK),
    }
}

/// Whether what is far behind runs twice.
fn check_speculation(speculation: &Speculation, output: Option<&Output>) -> Result<bool, Refusal> {
    const MODE: &str = "spec.speculation.mode";
    match speculation.mode {
        SpeculationMode::Disabled => Ok(false),
        SpeculationMode::Duplicate if output.is_some() => Ok(true),
        SpeculationMode::Duplicate => {
            refuse(MODE, "'Duplicate' needs `output`: without it nothing tells which of two attempts was first")
        }
        SpeculationMode::Unknown => {
            refuse(MODE, "is not known to this version of the operator; use 'Disabled' or 'Duplicate'")
        }
    }
}

const ONE_TASK: &str =
    "must set exactly one of `exec`, `copy`, `checksum` and `noop`; write one without fields as 'noop: {}'";

fn check_exec(exec: &exec::Exec, source: &Source, output: Option<&Output>) -> Result<Task, Refusal> {
    let program = Program::check(exec, source)?;
    if program.has_output() != output.is_some() {
        let message = "is required by `task.exec`, and may not be set only when `task.exec.output` is 'None'";
        return refuse("spec.output", message);
    }
    Ok(Task::Exec(Box::new(program)))
}

pub(crate) fn amount(field: &'static str, quantity: Option<&Quantity>) -> Result<Option<u64>, Refusal> {
    match quantity.map(Quantity::bytes) {
        None => Ok(None),
        Some(Ok(bytes)) if bytes > 0 => Ok(Some(bytes)),
        Some(Ok(_)) => refuse(field, "must be more than 0"),
        Some(Err(error)) => refuse(field, error.to_string()),
    }
}

/// What a worker is told about its job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Brief {
    /// `metadata.uid`.
    pub uid: JobUid,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// Which run of the job this is, from 1.
    #[serde(default = "first_run")]
    pub run: u32,
    /// The spec as it is now; the worker checks it as the operator does.
    pub spec: ShardJobSpec,
}

fn first_run() -> u32 {
    1
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn copy_job() -> Value {
        json!({
            "source": {"files": {"url": "file:///data/in/huge.tar", "boundary": "Byte", "bytesPerShard": "64Mi"}},
            "task": {"copy": {}},
            "output": {"url": "file:///data/out/"},
            "workers": {
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
                "volumeMounts": [{"name": "data", "mountPath": "/data"}]
            }
        })
    }

    fn check(spec: Value) -> Result<Job, Refusal> {
        Job::check(&serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn a_sound_spec_is_taken_with_its_defaults() {
        let job = check(copy_job()).unwrap();
        let listing = Listing::File("file:///data/in/huge.tar".into());
        assert_eq!(job.source, Source { listing, cut: Cut::Bytes { bytes: 64 << 20 } });
        assert_eq!(job.task, Task::Copy { copies: 1 });
        assert_eq!(job.records_folder().unwrap(), "file:///data/out/_hyperflow/");
        assert_eq!((job.parallelism, job.slots, job.bytes_per_second), (1, 1, None));
        assert_eq!(job.output.unwrap().name(Named { index: 17, ..Named::default() }), "part-000017");
        let numbers = check(json!({"source": {"numbers": {"count": 5, "numbersPerShard": 2}}, "task": {"noop": {}}}));
        assert_eq!(numbers.unwrap().counted(), Some(3));
    }

    #[test]
    fn two_attempts_at_a_time_need_an_output() {
        let duplicates = |mut spec: Value| {
            spec["speculation"] = json!({"mode": "Duplicate"});
            check(spec).map(|job| job.duplicates).map_err(|refusal| refusal.field)
        };
        assert_eq!(duplicates(copy_job()), Ok(true));
        assert!(!check(copy_job()).unwrap().duplicates);
        let noop = json!({"source": {"numbers": {"count": 5}}, "task": {"noop": {}}});
        assert_eq!(duplicates(noop), Err("spec.speculation.mode"));
    }

    #[test]
    fn what_is_not_sound_is_refused_by_field() {
        let cases: [(&str, Value, &str); 39] = [
            ("/source", json!({}), "spec.source"),
            ("/speculation", json!({"mode": "Split"}), "spec.speculation.mode"),
            ("/source/numbers", json!({"count": 1}), "spec.source"),
            ("/source/files/url", json!("s3://b/x"), "spec.source.files.url"),
            ("/source/files/url", json!("file:///data/../etc/passwd"), "spec.source.files.url"),
            ("/source/files/url", json!("file:///mnt/x"), "spec.source.files.url"),
            ("/source/files/url", json!("file:///database/x"), "spec.source.files.url"),
            ("/source/files/include", json!(["*.tar"]), "spec.source.files.url"),
            ("/source/files/include", json!(["a["]), "spec.source.files.include"),
            ("/source/files/manifest", json!({"url": "file:///data/list"}), "spec.source.files"),
            ("/source/files/recordPrefix", json!(">"), "spec.source.files.recordPrefix"),
            ("/source/files/filesPerShard", json!(2), "spec.source.files.filesPerShard"),
            ("/source/items", json!({"values": ["a"]}), "spec.source"),
            ("/source", json!({"items": {"values": ["a"]}}), "spec.task"),
            ("/task", json!({"checksum": {}}), "spec.task"),
            ("/task", json!({"copy": {"copies": 3}}), "spec.output.path"),
            ("/task", json!({"copy": {"copies": 9}}), "spec.output.path"),
            ("/output/path", json!("{copy}/{index}"), "spec.output.path"),
            ("/output/path", json!("{dir}{name}"), "spec.output.path"),
            ("/output/path", json!("x{dir}{index}"), "spec.output.path"),
            ("/records", json!({"url": "file:///data/out"}), "spec.records.url"),
            ("/source/files/url", json!("file:///data/out/_hyperflow/x"), "spec.source.files.url"),
            ("/source/files/url", json!("file:///data/out//_hyperflow/x"), "spec.source.files.url"),
            ("/source/files/url", json!("file:///data/./out/_hyperflow/x"), "spec.source.files.url"),
            ("/source/files/boundary", json!("Paragraph"), "spec.source.files.boundary"),
            ("/source/files/bytesPerShard", json!("64 MB"), "spec.source.files.bytesPerShard"),
            ("/source/files/bytesPerShard", json!(0), "spec.source.files.bytesPerShard"),
            ("/source/files/bytesPerShard", json!("1Ki"), "spec.source.files.bytesPerShard"),
            ("/task", json!({"copy": {}, "noop": {}}), "spec.task"),
            ("/output/path", json!("../part-{index}"), "spec.output.path"),
            ("/output/url", json!("file:///data//out/"), "spec.output.url"),
            ("/output/path", json!("part-\0{index}"), "spec.output.path"),
            ("/workers/volumeMounts/0/mountPath", json!(""), "spec.source.files.url"),
            ("/output/path", json!("part"), "spec.output.path"),
            ("/output/path", json!("part-{shard}-{index}"), "spec.output.path"),
            ("/workers/bytesPerSecond", json!("0"), "spec.workers.bytesPerSecond"),
            ("/failurePolicy", json!({"maxFailedShards": "200%"}), "spec.failurePolicy.maxFailedShards"),
            ("/failurePolicy", json!({"whenExceeded": "Pray"}), "spec.failurePolicy.whenExceeded"),
            ("/failurePolicy", json!({"rules": [{"action": "Count"}]}), "spec.failurePolicy.rules"),
        ];
        for (pointer, value, field) in cases {
            let mut spec = copy_job();
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            if let Some(fields) = spec.pointer_mut(parent).and_then(Value::as_object_mut) {
                fields.insert(key.into(), value.clone());
            }
            assert_eq!(check(spec).unwrap_err().field, field, "{pointer} = {value}");
        }
    }

    #[test]
    fn what_is_frozen_has_a_digest_that_other_fields_do_not_touch() {
        let mut spec = copy_job();
        let frozen = check(spec.clone()).unwrap().frozen;
        spec["parallelism"] = json!(7);
        assert_eq!(check(spec.clone()).unwrap().frozen, frozen);
        spec["output"]["path"] = json!("piece-{index}");
        let other = check(spec.clone()).unwrap().frozen;
        assert!(other != frozen && !have_one_plan(&other, &frozen));
        spec["output"]["path"] = json!("part-{index}");
        spec["task"] = json!({"copy": {"copies": 1}});
        spec["source"]["files"]["bytesPerShard"] = json!("64Mi");
        assert!(have_one_plan(&check(spec).unwrap().frozen, &frozen));
    }
}
