//! A job from `kubectl apply` to verified output: every part once, together byte for byte the input, and a status that
//! Helm, Flux and `kubectl wait` understand.

use std::time::Duration;

use hyperflow_e2e::{
    Result,
    cluster::Place,
    ensure,
    job::{has, shards},
    oracle,
};

const BYTES: usize = 50_000_123;

pub async fn keeps(place: &Place) -> Result {
    let input = place.write_input("input", BYTES, 1)?;
    let job = place.apply(super::copy("identical", "4Mi", "1G", 2, 2)).await?;
    let status = job.complete(Duration::from_secs(90)).await?;
    let records = oracle::check_copy(&input, &place.path("out"), 12)?;
    ensure(records.iter().all(|record| record.attempt == 1), || format!("no fault, yet retries: {records:?}"))?;

    let counts = shards(&status);
    ensure((counts.total, counts.succeeded, counts.pending) == (12, 12, 0), || format!("{counts:?}"))?;
    ensure(counts.completed_indexes == "0-11", || counts.completed_indexes.clone())?;
    let finished = !has(&status, "Reconciling") && !has(&status, "Stalled") && !has(&status, "Failed");
    ensure(finished && has(&status, "Planned"), || format!("{:?}", status.conditions))?;
    let plan = status.plan.clone().unwrap_or_default();
    ensure((plan.files, plan.bytes) == (1, BYTES as i64), || format!("{plan:?}"))?;
    let notes = status.recovery.clone().unwrap_or_default();
    ensure(notes.attempts.is_empty() && notes.waiting.is_empty(), || format!("{notes:?}"))?;
    ensure(status.completion_time.is_some(), || "no completion time".into())?;

    for _ in 0..100 {
        if place.workers().await?.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err("workers are still there ten seconds after the end".into())
}
