//! A spec that has been checked, once, into types that cannot be wrong.
//!
//! The API server's CEL rules say the same and refuse most of it earlier; an object made before a rule, or written
//! around it, meets this check. What is refused gets a reason and a message that says what to do.

use hyperflow_api::{
    ids::{JobUid, MAX_SHARDS, ShardIndex},
    quantity::Quantity,
    shardjob::{self, Boundary, ShardJobSpec},
    workers::VolumeMount,
};
use serde::{Deserialize, Serialize};

use crate::{checkpoint::Cadence, retry::RetryPolicy};

/// A sound spec.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// What is processed.
    pub source: Source,
    /// What is done to each shard.
    pub task: Task,
    /// Where results go.
    pub output: Option<Output>,
    /// Most workers at a time.
    pub parallelism: u32,
    /// Shards at a time in one worker.
    pub slots: u32,
    /// What a failure does.
    pub retry: RetryPolicy,
    /// How often attempts make checkpoints.
    pub cadence: Cadence,
    /// Limit of one worker's reads and writes together.
    pub bytes_per_second: Option<u64>,
    /// Digest of source, task and output: what may not change once planned (P4).
    pub frozen: String,
}

/// What is processed.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// One file, cut anywhere.
    File {
        /// As the user wrote it.
        url: String,
        /// Bytes of a shard; the last one is what remains.
        bytes_per_shard: u64,
    },
    /// Whole numbers.
    Numbers {
        /// How many shards they make.
        shards: u32,
    },
}

/// What is done to each shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Writes the shard's bytes as a result.
    Copy,
    /// Nothing.
    Noop,
}

impl Task {
    /// Digest of the program: a checkpoint of another program is not resumed (P4). Rises when a built-in task changes
    /// what it writes.
    #[must_use]
    pub fn program(self) -> &'static str {
        match self {
            Self::Copy => "copy/1",
            Self::Noop => "noop/1",
        }
    }
}

/// Where results go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// `file:///…/`, as the user wrote it.
    pub url: String,
    /// The name template, as the user wrote it.
    pub path: String,
}

impl Output {
    /// Name of a shard's result, relative to the output's directory.
    #[must_use]
    pub fn name(&self, index: ShardIndex) -> String {
        self.path.replace("{index}", &format!("{index:06}"))
    }
}

/// The path of a `file://` URL, taken literally.
#[must_use]
pub fn file_path(url: &str) -> Option<&str> {
    url.strip_prefix("file://").filter(|path| path.starts_with('/'))
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

fn refuse<T>(field: &'static str, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { field, message: message.into() })
}

impl Job {
    /// Checks a spec.
    ///
    /// # Errors
    /// With the first field that is not sound.
    pub fn check(spec: &ShardJobSpec) -> Result<Self, Refusal> {
        let mounts = &spec.workers.volume_mounts;
        let source = check_source(&spec.source, mounts)?;
        let output = spec.output.as_ref().map(|output| check_output(output, mounts)).transpose()?;
        let task = check_task(&spec.task, &source, output.as_ref())?;
        if let (Source::File { url, .. }, Some(output)) = (&source, &output)
            && file_path(url)
                .is_some_and(|path| path.starts_with(&format!("{}{}/", output_path(output), crate::layout::FOLDER)))
        {
            return refuse(
                "spec.source.files.url",
                "must not lie under the output's '_hyperflow/': it is Hyperflow's own",
            );
        }
        if let Err(error) = spec.checkpoint.bytes.bytes() {
            return refuse("spec.checkpoint.bytes", error.to_string());
        }
        Ok(Self {
            frozen: frozen_digest(spec),
            parallelism: u32::try_from(spec.parallelism).unwrap_or(0),
            slots: u32::try_from(spec.workers.slots).unwrap_or(1).max(1),
            retry: RetryPolicy::new(&spec.failure_policy),
            cadence: Cadence::new(&spec.checkpoint),
            bytes_per_second: amount("spec.workers.bytesPerSecond", spec.workers.bytes_per_second.as_ref())?,
            source,
            task,
            output,
        })
    }

    /// Whether a result is a fact in a store (P5), or only said (P10).
    #[must_use]
    pub fn publishes(&self) -> bool {
        self.output.is_some()
    }
}

/// Digest of what is frozen by the plan (P4).
fn frozen_digest(spec: &ShardJobSpec) -> String {
    // Field order in these types is fixed, so equal specs give equal bytes; a value that cannot be written is no spec.
    let bytes = serde_json::to_vec(&(&spec.source, &spec.task, &spec.output)).unwrap_or_default();
    format!("blake3:{}", &blake3::hash(&bytes).to_hex().as_str()[..32])
}

fn check_source(source: &shardjob::Source, mounts: &[VolumeMount]) -> Result<Source, Refusal> {
    match (&source.files, &source.numbers) {
        (Some(files), None) => check_files(files, mounts),
        (None, Some(numbers)) => check_numbers(numbers),
        _ => refuse("spec.source", "must set exactly one of `files` and `numbers`"),
    }
}

fn check_files(files: &shardjob::Files, mounts: &[VolumeMount]) -> Result<Source, Refusal> {
    const URL: &str = "spec.source.files.url";
    const BYTES: &str = "spec.source.files.bytesPerShard";
    check_url(URL, &files.url)?;
    if files.url.ends_with('/') {
        return refuse(URL, "must name one file: it may not end with '/'");
    }
    if !mounts.iter().any(|mount| is_under(&files.url, mount)) {
        return refuse(
            URL,
            format!("'{}' must lie under the `mountPath` of an entry in `workers.volumeMounts`", files.url),
        );
    }
    if files.boundary == Boundary::Unknown {
        return refuse("spec.source.files.boundary", "is not known to this version of the operator; use 'Byte'");
    }
    let Some(bytes_per_shard) = amount(BYTES, files.bytes_per_shard.as_ref())? else {
        return refuse(BYTES, "is required when `boundary` is 'Byte': say how large a shard is, for example 64Mi");
    };
    if !(4 << 10..=5 << 40).contains(&bytes_per_shard) {
        return refuse(BYTES, "must be between 4Ki and 5Ti");
    }
    Ok(Source::File { url: files.url.clone(), bytes_per_shard })
}

fn check_numbers(numbers: &shardjob::Numbers) -> Result<Source, Refusal> {
    const FIELD: &str = "spec.source.numbers";
    let (Ok(count), Ok(per_shard @ 1..)) = (u64::try_from(numbers.count), u64::try_from(numbers.numbers_per_shard))
    else {
        return refuse(FIELD, "`count` must be 0 or more and `numbersPerShard` 1 or more");
    };
    match u32::try_from(count.div_ceil(per_shard)) {
        Ok(shards) if shards <= MAX_SHARDS => Ok(Source::Numbers { shards }),
        _ => refuse(FIELD, format!("makes more than {MAX_SHARDS} shards; raise `numbersPerShard`")),
    }
}

fn check_output(output: &shardjob::Output, mounts: &[VolumeMount]) -> Result<Output, Refusal> {
    const URL: &str = "spec.output.url";
    const PATH: &str = "spec.output.path";
    check_url(URL, &output.url)?;
    if !output.url.ends_with('/') {
        return refuse(URL, "must end with '/': it names a directory");
    }
    if !mounts.iter().any(|mount| is_under(&output.url, mount) && mount.read_only != Some(true)) {
        let message = "must lie under the `mountPath` of an entry in `workers.volumeMounts` that is not `readOnly`";
        return refuse(URL, format!("'{}' {message}", output.url));
    }
    if output.path.starts_with('/') || has_parent_segment(&output.path) {
        return refuse(PATH, "must be relative and must not contain a '..' segment");
    }
    if output.path.replace("{index}", "").contains(['{', '}']) {
        return refuse(PATH, "has an unknown placeholder; use {index}");
    }
    if !output.path.contains("{index}") {
        return refuse(PATH, "must contain {index}, or every shard would have the same name");
    }
    if output.path.contains('\0') {
        return refuse(PATH, "must not contain a NUL character");
    }
    if output.path.split('/').any(|part| part.is_empty() || part == "." || part == crate::layout::FOLDER) {
        return refuse(PATH, "must be a plain relative path: no empty part, no '.', and not under '_hyperflow/'");
    }
    Ok(Output { url: output.url.clone(), path: output.path.clone() })
}

fn check_task(task: &shardjob::Task, source: &Source, output: Option<&Output>) -> Result<Task, Refusal> {
    match (&task.copy, &task.noop, source, output) {
        (Some(_), None, Source::File { .. }, Some(_)) => Ok(Task::Copy),
        (Some(_), None, _, None) => refuse("spec.output", "`output` is required by `task.copy`"),
        (Some(_), None, _, _) => refuse("spec.task", "`task.copy` needs `source.files`"),
        (None, Some(_), Source::Numbers { .. }, None) => Ok(Task::Noop),
        (None, Some(_), _, _) => {
            refuse("spec.task", "`task.noop` takes `source.numbers` and publishes nothing: remove `output`")
        }
        _ => refuse("spec.task", "must set exactly one of `copy` and `noop`; write one without fields as 'noop: {}'"),
    }
}

fn check_url(field: &'static str, url: &str) -> Result<(), Refusal> {
    let Some(path) = file_path(url) else { return refuse(field, "must start with 'file:///'") };
    if has_parent_segment(path) {
        return refuse(field, "must not contain a '..' segment");
    }
    if path.contains('\0') {
        return refuse(field, "must not contain a NUL character");
    }
    // Two spellings of one path would hide what lies under `_hyperflow/`, or in the job's own output.
    let plain = path.strip_suffix('/').unwrap_or(path).split('/').skip(1);
    if plain.into_iter().any(|part| part.is_empty() || part == ".") {
        return refuse(field, "must be a plain path: no empty part and no '.'");
    }
    Ok(())
}

fn has_parent_segment(path: &str) -> bool {
    path.split('/').any(|segment| segment == "..")
}

fn is_under(url: &str, mount: &VolumeMount) -> bool {
    let below = |path: &str| path.strip_prefix(&mount.mount_path).is_some_and(|rest| rest.starts_with('/'));
    mount.mount_path.starts_with('/') && file_path(url).is_some_and(below)
}

fn output_path(output: &Output) -> &str {
    file_path(&output.url).unwrap_or_default()
}

fn amount(field: &'static str, quantity: Option<&Quantity>) -> Result<Option<u64>, Refusal> {
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
    /// The spec as it is now; the worker checks it as the operator does.
    pub spec: ShardJobSpec,
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
        assert_eq!(job.source, Source::File { url: "file:///data/in/huge.tar".into(), bytes_per_shard: 64 << 20 });
        assert_eq!((job.parallelism, job.slots, job.bytes_per_second), (1, 1, None));
        assert_eq!(job.output.unwrap().name(17), "part-000017");
        let numbers = check(json!({"source": {"numbers": {"count": 5, "numbersPerShard": 2}}, "task": {"noop": {}}}));
        assert_eq!(numbers.unwrap().source, Source::Numbers { shards: 3 });
    }

    #[test]
    fn what_is_not_sound_is_refused_by_field() {
        let cases: [(&str, Value, &str); 22] = [
            ("/source", json!({}), "spec.source"),
            ("/source/numbers", json!({"count": 1}), "spec.source"),
            ("/source/files/url", json!("s3://b/x"), "spec.source.files.url"),
            ("/source/files/url", json!("file:///data/../etc/passwd"), "spec.source.files.url"),
            ("/source/files/url", json!("file:///mnt/x"), "spec.source.files.url"),
            ("/source/files/url", json!("file:///database/x"), "spec.source.files.url"),
            ("/source/files/url", json!("file:///data/in/"), "spec.source.files.url"),
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
        assert_ne!(check(spec).unwrap().frozen, frozen);
    }
}
