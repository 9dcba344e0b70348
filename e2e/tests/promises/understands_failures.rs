//! What a failure does is what the job says: rules, partial success, the end when everything fails alike, and the list of
//! what failed, which is the next job's input as it stands.

use std::{fs, time::Duration};

use hyperflow_e2e::{Result, cluster::Place, ensure, job::shards, oracle};
use serde_json::{Value, json};

use super::{BUSYBOX, program};

const LIMIT: Duration = Duration::from_secs(120);

pub async fn keeps(place: &Place) -> Result {
    for number in 0..12 {
        place.write(&format!("in/n/{number:02}.txt"), format!("{number}\n").as_bytes())?;
    }
    tokio::try_join!(
        tolerates_some(place),
        finishes_the_rest(place),
        stops_at_once(place),
        follows_rules(place),
        stops_when_all_fail_alike(place),
        runs_out_of_memory_alone(place),
    )?;
    Ok(())
}

/// A shell line for each of the twelve files, `$n` its number.
fn numbers(name: &str, line: &str, policy: &Value) -> Value {
    let script = format!("n=$(cat); {line}");
    let exec = json!({"command": ["sh", "-c", script], "input": "Stdin", "output": "Stdout"});
    let source = json!({"files": {"url": "file:///data/in/n/", "boundary": "File"}});
    let mut job = program(name, BUSYBOX, source, &exec);
    job["spec"]["output"] = json!({"url": format!("file:///data/out/{name}/"), "path": "{stem}"});
    if let (Some(all), Some(more)) = (job["spec"]["failurePolicy"].as_object_mut(), policy.as_object()) {
        all.extend(more.clone());
    }
    job
}

/// Two of twelve may fail; what failed is fed to another job, which does it.
async fn tolerates_some(place: &Place) -> Result {
    let job = place
        .apply(numbers(
            "tolerates",
            "[ $n = 3 ] || [ $n = 7 ] && { echo bad number $n >&2; exit 65; }; echo $n",
            &json!({"maxFailedShards": "20%"}),
        ))
        .await?;
    let status = job.complete(LIMIT).await?;
    let complete = status.conditions.iter().find(|condition| condition.type_ == "Complete");
    let complete = complete.ok_or("no condition Complete")?;
    ensure(complete.reason == "SucceededWithFailures" && complete.message.contains("3,7"), || format!("{complete:?}"))?;
    let counts = shards(&status);
    ensure((counts.succeeded, counts.failed_indexes.as_str()) == (10, "3,7"), || format!("{counts:?}"))?;
    let report = oracle::report(place, &status)?;
    let failed = &report[3];
    ensure(
        failed["class"] == "BadInput"
            && failed["exitCode"] == 65
            && failed["attempts"] == 1
            && failed["message"].as_str().is_some_and(|message| message.contains("bad number 3")),
        || format!("{failed}"),
    )?;
    let url = status.report.ok_or("no report")?.url.replace("report.jsonl", "failed.txt");
    ensure(fs::read_to_string(place.path_of(&url)?)?.lines().count() == 2, || format!("{url} has other lines"))?;

    let mut rest = numbers("the-rest", "echo again $n", &json!({}));
    rest["spec"]["source"] = json!({"files": {"manifest": {"url": url}, "boundary": "File"}});
    let status = place.apply(rest).await?.complete(LIMIT).await?;
    ensure(shards(&status).total == 2, || format!("{:?}", status.shards))?;
    let results = oracle::tree(&place.path("out/the-rest"))?;
    ensure(results["03"] == b"again 3\n" && results["07"] == b"again 7\n", || format!("{results:?}"))
}

/// Without tolerance the others are finished all the same, as an Indexed Job does it; then the job has failed.
async fn finishes_the_rest(place: &Place) -> Result {
    let job = numbers("finishes", "[ $n = 0 ] && exit 65; sleep 1; echo $n", &json!({}));
    let job = place.apply(job).await?;
    let (reason, message) = job.failed(LIMIT).await?;
    ensure(reason == "FailedShards" && message.contains("1 of 12"), || format!("{reason}: {message}"))?;
    let counts = shards(&job.status().await?);
    ensure((counts.succeeded, counts.failed) == (11, 1), || format!("{counts:?}"))
}

/// With `whenExceeded: Stop` they are not.
async fn stops_at_once(place: &Place) -> Result {
    let policy = json!({"maxFailedShards": 1, "whenExceeded": "Stop"});
    let mut job = numbers("stops", "[ $n = 0 ] || [ $n = 1 ] && exit 65; sleep 3; echo $n", &policy);
    job["spec"]["parallelism"] = json!(1);
    let job = place.apply(job).await?;
    let (reason, message) = job.failed(LIMIT).await?;
    ensure(reason == "MaxFailedShardsExceeded", || format!("{reason}: {message}"))?;
    let counts = shards(&job.status().await?);
    ensure(counts.failed == 2 && counts.succeeded < 10, || format!("{counts:?}"))
}

/// Code 7 is tried again without counting, code 8 fails its shard at once, and a message fails the job.
async fn follows_rules(place: &Place) -> Result {
    let rules = json!({"maxAttempts": 2, "maxFailedShards": 1, "rules": [
        {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [7]}, "retryOn": "OtherNode"},
        {"action": "FailShard", "onExitCodes": {"operator": "In", "values": [8]}},
    ]});
    // Four attempts of number 5 end with 7, which is more than may fail; and each leaves a mark of its own.
    let line =
        "if [ $n = 5 ] && [ $HYPERFLOW_ATTEMPT -le 4 ]; then exit 7; fi; [ $n = 6 ] && exit 8; echo $HYPERFLOW_ATTEMPT";
    let status = place.apply(numbers("rules", line, &rules)).await?.complete(LIMIT).await?;
    let results = oracle::tree(&place.path("out/rules"))?;
    ensure(results["05"] == b"5\n", || format!("number 5 ended with attempt {:?}", results["05"]))?;
    let failed = &oracle::report(place, &status)?[6];
    ensure(failed["attempts"] == 1 && failed["exitCode"] == 8, || format!("{failed}"))?;

    let rules = json!({"rules": [{"action": "FailJob", "onMessagePattern": "licen[cs]e .* expired"}]});
    let line = "[ $n = 4 ] && { echo 'the licence of today has expired' >&2; exit 1; }; sleep 1; echo $n";
    let job = place.apply(numbers("fail-job", line, &rules)).await?;
    let (reason, message) = job.failed(LIMIT).await?;
    ensure(reason == "FailurePolicy" && message.contains("expired"), || format!("{reason}: {message}"))
}

/// Two hundred shards of a broken program: after the first twenty nobody believes in the others.
async fn stops_when_all_fail_alike(place: &Place) -> Result {
    let exec =
        json!({"command": ["sh", "-c", "echo cannot import numpy >&2; exit 1"], "input": "None", "output": "None"});
    let mut job = program("alike", BUSYBOX, json!({"numbers": {"count": 200}}), &exec);
    job["spec"]["failurePolicy"] = json!({"maxAttempts": 1, "maxFailedShards": "100%"});
    let job = place.apply(job).await?;
    let (reason, message) = job.failed(LIMIT).await?;
    ensure(reason == "AllShardsFailAlike" && message.contains("cannot import numpy"), || {
        format!("{reason}: {message}")
    })?;
    let counts = shards(&job.status().await?);
    // When nineteen had failed no slot of the four had more than one other.
    ensure((20..=23).contains(&counts.failed) && counts.succeeded == 0, || format!("{counts:?}"))
}

/// A program that wants more memory than its container may have is ended by the kernel; the worker beside it is not, and
/// its other shards go on.
async fn runs_out_of_memory_alone(place: &Place) -> Result {
    let policy = json!({"maxAttempts": 2, "maxFailedShards": 1});
    let line = "[ $n = 2 ] && exec tail /dev/zero; sleep 1; echo $n";
    let mut job = numbers("memory", line, &policy);
    job["spec"]["workers"]["resources"] = json!({"limits": {"memory": "96Mi"}});
    let job = place.apply(job).await?;
    let status = job.complete(LIMIT).await?;
    let sample = status.failures.iter().find(|sample| sample.class == "OutOfMemory");
    let sample = sample.ok_or_else(|| format!("no failure of class OutOfMemory: {:?}", status.failures))?;
    ensure(sample.index == Some(2) && sample.reason == "OOMKilled", || format!("{sample:?}"))?;
    let counts = shards(&status);
    ensure((counts.succeeded, counts.failed_indexes.as_str()) == (11, "2"), || format!("{counts:?}"))
}
