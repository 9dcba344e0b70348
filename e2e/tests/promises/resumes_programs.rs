//! A program that writes a checkpoint file goes on from it on another worker; one that knows nothing of checkpoints is run
//! again.

use std::time::Duration;

use hyperflow_e2e::{Result, cluster::Place, ensure, job, oracle};
use serde_json::json;

use super::{STATIC, program};

const LIMIT: Duration = Duration::from_secs(120);

pub async fn keeps(place: &Place) -> Result {
    // Counts to 100 in ten seconds.
    let exec = json!({"command": ["/program", "checkpointed", "100", "100"], "input": "None", "output": "Stdout"});
    let mut manifest = program("counts", STATIC, json!({"numbers": {"count": 4}}), &exec);
    manifest["spec"]["workers"]["slots"] = json!(1);
    manifest["spec"]["checkpoint"] = json!({"periodSeconds": 1});
    let job = place.apply(manifest).await?;
    let far = |status: &_| {
        let attempts = job::attempts(status).ok()?;
        attempts.into_iter().find(|attempt| attempt.checkpoint.is_some_and(|position| position >= 5))
    };
    let (victim, _) = job.wait("a shard with five checkpoints", LIMIT, far).await?;
    place.cluster.kill(&place.worker(&victim.pod).await?).await?;
    job.complete(LIMIT).await?;
    for (name, text) in oracle::tree(&place.path("out"))? {
        ensure(text == b"100\n", || format!("{name}: {:?}", String::from_utf8_lossy(&text)))?;
    }
    let records = oracle::records(&place.path("out"))?;
    let again = records.iter().find(|record| record.index == victim.index && record.attempt > 1);
    let again = again.ok_or_else(|| format!("shard {} did not run again: {records:?}", victim.index))?;
    // Five of its ten seconds were done; one that begins anew takes all ten, and longer on a busy machine.
    ensure(again.millis < 10_000, || format!("it did not go on from its checkpoint: {again:?}"))
}
