//! Programs that do everything wrong, each beside one that does it right in the same worker: the bad one fails in the right
//! class, with a message that a person understands; the good one is not harmed, and nothing of the bad one is left.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use hyperflow_api::{ShardJobStatus, status::FailureSample};
use hyperflow_e2e::{Result, cluster::Place, ensure, job::shards, oracle};
use serde_json::{Value, json};

use super::{BUSYBOX, STATIC, program};

const LIMIT: Duration = Duration::from_secs(120);
/// Jobs at a time.
const BESIDE: usize = 4;

/// A bad program: its name, its command, what else is said of the job, and what must be said of its failure.
struct Bad {
    name: &'static str,
    command: Value,
    changes: Value,
    class: &'static str,
    reason: &'static str,
    says: &'static str,
}

fn bad(name: &'static str, command: Value, class: &'static str, reason: &'static str, says: &'static str) -> Bad {
    Bad { name, command, changes: json!({}), class, reason, says }
}

pub async fn keeps(place: &Place) -> Result {
    let jobs = shard_by_shard().into_iter().map(|case| fails_alone(place, case));
    stream::iter(jobs.collect::<Vec<_>>()).buffer_unordered(BESIDE).try_collect::<()>().await?;
    let jobs = from_the_start().into_iter().map(|case| ends_the_job(place, case));
    stream::iter(jobs.collect::<Vec<_>>()).buffer_unordered(BESIDE).try_collect::<()>().await?;
    let jobs = harmless().into_iter().map(|case| is_no_failure(place, case));
    stream::iter(jobs.collect::<Vec<_>>()).buffer_unordered(BESIDE).try_collect::<()>().await
}

/// Item `bad` runs the bad program, the other items a good one, by a shell that is told which.
fn shard_by_shard() -> Vec<Bad> {
    vec![
        bad("code", json!("echo 'line 17: no such column' >&2; exit 3"), "Application", "ExitCode", "no such column"),
        bad("bad-input", json!("echo 'not a PDF' >&2; exit 65"), "BadInput", "BadInput", "not a PDF"),
        bad("signal", json!("kill -SEGV $$$$"), "Application", "Signal", "SIGSEGV"),
        bad("no-output", json!("true"), "Application", "NoOutput", "HYPERFLOW_OUTPUT"),
        Bad {
            changes: json!({"/spec/failurePolicy/attemptDeadlineSeconds": 2}),
            ..bad("hangs", json!("trap '' TERM; while :; do sleep 1; done"), "Timeout", "AttemptDeadline", "2 s")
        },
        bad(
            "checkpoint",
            json!("dd if=/dev/zero of=$HYPERFLOW_CHECKPOINT bs=1M count=100 2>/dev/null; sleep 30"),
            "Application",
            "CheckpointTooLarge",
            "may have 4194304",
        ),
        bad(
            "result",
            json!("head -c 5000 /dev/zero | tr '\\0' x > $HYPERFLOW_RESULT; echo > $HYPERFLOW_OUTPUT"),
            "Application",
            "ResultTooLarge",
            "may have 4096",
        ),
        Bad {
            changes: json!({"/spec/workers/scratch": {"sizeLimit": "64Mi"}}),
            ..bad(
                "fills",
                json!("dd if=/dev/zero of=$TMPDIR/much bs=1M count=60 2>/dev/null; sleep 30"),
                "Application",
                "ScratchFull",
                "spec.workers.scratch.sizeLimit",
            )
        },
        bad(
            "noisy",
            json!("dd if=/dev/zero bs=1M count=10000 >&2 2>/dev/null; echo >&2; echo 'the end of it' >&2; exit 4"),
            "Application",
            "ExitCode",
            "the end of it",
        ),
    ]
}

/// One shard of eight fails for good; the other seven are published, whatever it did in the same workers.
async fn fails_alone(place: &Place, case: Bad) -> Result {
    let Bad { name, command, changes, class, reason, says } = case;
    let bad = command.as_str().unwrap_or_default();
    let good = "sleep 1; echo $HYPERFLOW_ITEM > $HYPERFLOW_OUTPUT";
    let script = format!("if [ $HYPERFLOW_ITEM = bad ]; then {bad}; exit; fi; {good}");
    let exec = json!({"command": ["sh", "-c", script], "input": "None", "output": "File"});
    let source = json!({"items": {"values": ["a", "b", "bad", "c", "d", "e", "f", "g"]}});
    let mut job = program(&format!("bad-{name}"), BUSYBOX, source, &exec);
    job["spec"]["output"]["url"] = json!(format!("file:///data/out/{name}/"));
    job["spec"]["parallelism"] = json!(1);
    job["spec"]["failurePolicy"]["maxAttempts"] = json!(2);
    job["spec"]["failurePolicy"]["maxFailedShards"] = json!(1);
    for (pointer, value) in changes.as_object().into_iter().flatten() {
        let (parent, key) = pointer.rsplit_once('/').unwrap_or_default();
        job.pointer_mut(parent).ok_or_else(|| format!("{pointer} is not there"))?[key] = value.clone();
    }
    let job = place.apply(job).await?;
    let status = job.complete(LIMIT).await.map_err(|error| format!("{name}: {error}"))?;
    let counts = shards(&status);
    ensure((counts.failed_indexes.as_str(), counts.succeeded) == ("2", 7), || format!("{name}: {counts:?}"))?;
    let sample = only(name, &status)?;
    ensure(sample.class == class && sample.reason == reason && sample.message.contains(says), || {
        format!("{name}: expected {class} {reason} with '{says}': {sample:?}")
    })?;
    ensure(sample.index == Some(2), || format!("{name}: {sample:?}"))?;
    let results = oracle::tree(&place.path(&format!("out/{name}")))?;
    ensure(results.len() == 7, || format!("{name}: {:?}", results.keys()))?;
    // Bad input is not tried again; everything else is, as often as it may be.
    let failed = &oracle::report(place, &status)?[2];
    let attempts = if class == "BadInput" { 1 } else { 2 };
    ensure(failed["published"] == false && failed["class"] == class && failed["attempts"] == attempts, || {
        format!("{name}: the report says {failed}")
    })
}

/// What no shard can run is known at the first one, and costs no retries.
fn from_the_start() -> Vec<Bad> {
    vec![
        bad("not-found", json!(["/app/convert.py"]), "Application", "ProgramNotFound", "no such file"),
        bad("not-in-path", json!(["convert"]), "Application", "ProgramNotFound", "ENTRYPOINT is not used"),
        bad("not-executable", json!(["/not-executable"]), "Application", "ProgramNotExecutable", "/not-executable"),
        bad("wrong-arch", json!(["/wrong-arch"]), "Application", "ProgramFormat", "x86_64"),
    ]
}

async fn ends_the_job(place: &Place, case: Bad) -> Result {
    let Bad { name, command, reason, says, .. } = case;
    let exec = json!({"command": command, "input": "None", "output": "Stdout"});
    let mut job = program(&format!("bad-{name}"), STATIC, json!({"numbers": {"count": 50}}), &exec);
    job["spec"]["output"]["url"] = json!(format!("file:///data/out/{name}/"));
    let job = place.apply(job).await?;
    let (found, message) = job.failed(LIMIT).await.map_err(|error| format!("{name}: {error}"))?;
    ensure(found == reason && message.contains(says) && message.contains("spec.rerun.nonce"), || {
        format!("{name}: expected {reason} with '{says}': {found}: {message}")
    })
}

/// What looks bad and is not: these are ways in which programs are written.
fn harmless() -> Vec<(&'static str, Value, Value)> {
    vec![
        ("no-read", json!(["/program", "no-read"]), json!("Stdout")),
        ("close-stdout", json!(["/program", "close-stdout"]), json!("Stdout")),
        ("fork-and-exit", json!(["/program", "fork-and-exit"]), json!("Stdout")),
    ]
}

async fn is_no_failure(place: &Place, (name, command, output): (&str, Value, Value)) -> Result {
    let input = place.write_input(&format!("{name}.bin"), 4 << 20, 7)?;
    let exec = json!({"command": command, "input": "Stdin", "output": output});
    let url = format!("file:///data/in/{}", input.file_name().unwrap_or_default().to_string_lossy());
    let source = json!({"files": {"url": url, "boundary": "Byte", "bytesPerShard": "1Mi"}});
    let mut job = program(name, STATIC, source, &exec);
    job["spec"]["output"]["url"] = json!(format!("file:///data/out/{name}/"));
    job["spec"]["parallelism"] = json!(1);
    let job = place.apply(job).await?;
    let status = job.complete(LIMIT).await.map_err(|error| format!("{name}: {error}"))?;
    ensure(shards(&status).succeeded == 4 && status.failures.is_empty(), || format!("{name}: {status:?}"))
}

fn only<'s>(name: &str, status: &'s ShardJobStatus) -> Result<&'s FailureSample> {
    match &status.failures[..] {
        [sample] => Ok(sample),
        samples => Err(format!("{name}: expected one kind of failure, found {samples:?}").into()),
    }
}
