//! Our jobs, and how long they take: from the first lease to the last status that was stored, with workers that run
//! already, because a pool serves many shards; and from `kubectl apply` to Complete, which a user sees of one job.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use hyperflow_api::ShardJobStatus;
use hyperflow_e2e::{
    Result,
    cluster::Place,
    diary::Entry,
    ensure,
    image::test_image,
    job::{has, shards},
    oracle,
};
use serde_json::{Value, json};

use crate::{
    bench::{Input, results},
    report::digits,
};

/// Longest that a job of a row may take.
pub const LIMIT: Duration = Duration::from_secs(600);

/// What a job of ours took.
#[derive(Clone, Debug)]
pub struct Taken {
    /// Seconds from the first lease to the last status that was stored.
    pub seconds: f64,
    /// Shards that were done in them.
    pub shards: f64,
    /// What else there is to say.
    pub note: String,
}

/// Shards that do nothing.
pub fn noop(count: u32, workers: u32, slots: u32) -> Value {
    json!({
        "apiVersion": "hyperflow.dev/v1alpha1", "kind": "ShardJob", "metadata": {"name": "noop"},
        "spec": {
            "source": {"numbers": {"count": count}}, "task": {"noop": {}},
            "parallelism": workers, "workers": {"slots": slots}
        }
    })
}

/// A copy of `in/input` to `out/`, in shards of so many bytes, as fast as it can.
pub fn copy(bytes_per_shard: &str, workers: u32, slots: u32) -> Value {
    json!({
        "apiVersion": "hyperflow.dev/v1alpha1", "kind": "ShardJob", "metadata": {"name": "copy"},
        "spec": {
            "source": {"files": {"url": "file:///data/in/input", "boundary": "Byte", "bytesPerShard": bytes_per_shard}},
            "task": {"copy": {}}, "output": {"url": "file:///data/out/"}, "parallelism": workers,
            "workers": {
                "slots": slots, "terminationGracePeriodSeconds": 5,
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
                "volumeMounts": [{"name": "data", "mountPath": "/data"}]
            }
        }
    })
}

/// Shards that each start a process: a shell with this line.
pub fn command(line: &str, count: u32, workers: u32, slots: u32) -> Value {
    let mut job = noop(count, workers, slots);
    job["metadata"]["name"] = json!("command");
    job["spec"]["task"] = json!({
        "exec": {"image": test_image("busybox"), "command": ["sh", "-c", line], "input": "None", "output": "None"}
    });
    job
}

/// What a shell does until the gate is opened: `go` is written.
pub const GATE: &str = "until [ -e /data/go ]; do sleep 0.1; done";

/// Shards that each read so many bytes of `in/input` with a program, once a gate is open. Blocks of it are kept on so many
/// nodes, if on any.
pub fn gated(bytes_per_shard: &str, workers: u32, replicas: Option<u32>) -> Value {
    let mut job = copy(bytes_per_shard, workers, 2);
    job["spec"]["task"] = json!({
        "exec": {
            "image": test_image("busybox"), "command": ["sh", "-c", format!("{GATE}; cat")], "input": "Stdin",
            "output": "Stdout"
        }
    });
    if let Some(replicas) = replicas {
        job["spec"]["blocks"] = json!({"replicas": replicas});
    }
    job
}

/// Shards under way.
pub fn active(status: &ShardJobStatus) -> i32 {
    shards(status).active
}

/// Runs shards that leave nothing in a store. What was done before the first status that speaks of any is not counted, nor
/// its time.
pub async fn run_unstored(place: &Place, manifest: Value) -> Result<(Taken, Vec<Entry>)> {
    let (entries, applied) = run(place, manifest).await?;
    let first = begun(&entries)?;
    let last = ended(&entries)?;
    let seconds = (last.at - first.at).as_secs_f64();
    let counted = shards(&last.status).succeeded - shards(&first.status).succeeded;
    let whole = last.at.saturating_duration_since(applied).as_secs_f64();
    let note = format!("apply to Complete {} s", digits(whole));
    Ok((Taken { seconds, shards: f64::from(counted), note }, entries))
}

/// Runs a copy. The first lease is when the first segment was made, which the file system knows better than a status that
/// is written once a second.
pub async fn run_copy(place: &Place, manifest: Value) -> Result<Taken> {
    let (entries, applied) = run(place, manifest).await?;
    let last = ended(&entries)?;
    let (mut first, mut written) = (None, None);
    for path in results(&place.path("out"))? {
        let found = fs::metadata(&path)?;
        first = first.into_iter().chain([found.created()?]).min();
        written = written.into_iter().chain([found.modified()?]).max();
    }
    let first = first.ok_or("the job left no result")?;
    let written = written.ok_or("the job left no result")?;
    let seconds = on_the_wall(last.at)?.duration_since(first)?.as_secs_f64();
    let note = format!(
        "last byte {} s before the last status; apply to Complete {} s",
        digits(on_the_wall(last.at)?.duration_since(written).unwrap_or_default().as_secs_f64()),
        digits(last.at.saturating_duration_since(applied).as_secs_f64())
    );
    Ok(Taken { seconds, shards: f64::from(shards(&last.status).succeeded), note })
}

/// The copies, part by part, are the input.
pub fn check(input: &Input, output: &Path, copies: usize) -> Result {
    let all = results(output)?;
    let parts = all.len() / copies;
    ensure(parts * copies == all.len(), || format!("{} files are not {copies} copies", all.len()))?;
    for copy in all.chunks(parts.max(1)) {
        let found = oracle::checksum(copy)?;
        let wanted = (input.crc32c, input.bytes);
        ensure(found == wanted, || format!("a copy has CRC-32C and bytes {found:?}, the input {wanted:?}"))?;
    }
    Ok(())
}

async fn run(place: &Place, manifest: Value) -> Result<(Vec<Entry>, Instant)> {
    let applied = Instant::now();
    let job = place.apply(manifest).await?;
    let diary = place.diary(&job).await?;
    job.complete(LIMIT).await?;
    let complete = |status: &ShardJobStatus| has(status, "Complete");
    diary.wait("Complete", applied, LIMIT, complete).await?;
    Ok((diary.close().await?, applied))
}

fn begun(entries: &[Entry]) -> Result<&Entry> {
    let some = |entry: &&Entry| shards(&entry.status).active + shards(&entry.status).succeeded > 0;
    let first = entries.iter().find(some).ok_or("no status spoke of shards")?;
    // One that speaks of shards and of the end at once tells nothing of the time between.
    ensure(!has(&first.status, "Complete"), || "the job was over before its second status".into())?;
    Ok(first)
}

fn ended(entries: &[Entry]) -> Result<&Entry> {
    Ok(entries.iter().find(|entry| has(&entry.status, "Complete")).ok_or("no status said Complete")?)
}

fn on_the_wall(at: Instant) -> Result<SystemTime> {
    Ok(SystemTime::now().checked_sub(at.elapsed()).ok_or("a time before all times")?)
}
