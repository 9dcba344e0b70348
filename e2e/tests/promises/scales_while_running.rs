//! `kubectl scale` and changes of `workers` while shards are running: more workers come, fewer stay, new pods are made of
//! what is asked for now, none at all is a pause, and no shard fails of it.

use std::time::Duration;

use hyperflow_api::ShardJobStatus;
use hyperflow_e2e::{
    Result,
    cluster::Place,
    ensure,
    job::{self, Job},
    oracle,
};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::json;

const MIB: usize = 1 << 20;
const SOON: Duration = Duration::from_secs(40);
const TEAM: &str = "example.com/team";

pub async fn keeps(place: &Place) -> Result {
    let input = place.write_input("input", 96 * MIB, 64)?;
    // A shard takes each worker two seconds.
    let job = place.apply(super::copy("scaled", "1Mi", "1Mi", 1, 1)).await?;
    workers(&job, 1).await?;

    job.scale(3).await?;
    workers(&job, 3).await?;
    let all_ready = |status: &ShardJobStatus| {
        let said = status.conditions.iter().find(|it| it.type_ == "WorkersAvailable")?;
        (said.reason == "AllReady" && said.message == "3 of 3 workers are ready").then_some(())
    };
    job.wait("3 of 3 workers are ready", SOON, all_ready).await?;
    let foreseen = |status: &ShardJobStatus| {
        let eta = status.display.as_ref().is_some_and(|display| display.eta.ends_with('Z'));
        let throughput = status.throughput.as_ref()?;
        (eta && throughput.shards_per_minute > 0 && throughput.bytes_per_second > 0).then_some(())
    };
    job.wait("an estimate of the end", SOON, foreseen).await?;

    job.scale(1).await?;
    workers(&job, 1).await?;
    goes_on(&job, 2).await?;

    // The pod that is there stays as it is; the next one is made of what is asked for now (P27).
    let stays = place.workers().await?;
    let change = json!({"metadata": {"labels": {TEAM: "b"}}, "bytesPerSecond": "4Mi"});
    job.patch(json!({"spec": {"workers": change}})).await?;
    job.scale(2).await?;
    workers(&job, 2).await?;
    let team = |pod: &Pod| pod.labels().get(TEAM).cloned();
    let both = place.workers().await?;
    let new: Vec<&Pod> = both.iter().filter(|pod| stays.iter().all(|old| old.uid() != pod.uid())).collect();
    ensure(both.len() == 2 && new.len() == 1, || format!("{} workers, {} of them new", both.len(), new.len()))?;
    ensure(both.iter().filter(|pod| team(pod).as_deref() == Some("b")).count() == 1, || "which is new?".into())?;
    ensure(team(new[0]).as_deref() == Some("b"), || "a new pod was made of what was asked for before".into())?;

    job.scale(0).await?;
    let paused = |status: &ShardJobStatus| {
        let waits = status.conditions.iter().find(|it| it.type_ == "Reconciling")?;
        let rests = status.workers.as_ref().is_some_and(|workers| workers.current == 0);
        (rests && waits.reason == "NoParallelism" && waits.message.contains("`spec.parallelism`")).then_some(())
    };
    job.wait("no worker, and why", SOON, paused).await?;
    ensure(place.workers().await?.is_empty(), || "workers of a job without parallelism".into())?;

    job.scale(3).await?;
    let status = job.complete(Duration::from_secs(120)).await?;
    oracle::check_copy(&input, &place.path("out"), 96)?;
    ensure(status.failures.is_empty(), || format!("scaling is no failure: {:?}", status.failures))?;
    ensure(status.estimated_completion_time.is_none(), || "what is complete has no end before it".into())
}

/// So many are in session, and no pod more is there.
async fn workers(job: &Job, count: i32) -> Result {
    let there = |status: &ShardJobStatus| {
        let workers = status.workers.as_ref()?;
        (workers.ready == count && workers.current == count && workers.desired == count).then_some(())
    };
    job.wait(&format!("{count} workers"), SOON, there).await?;
    Ok(())
}

/// So many more shards are done.
async fn goes_on(job: &Job, more: i32) -> Result {
    let done = job::shards(&job.status().await?).succeeded;
    let further = |status: &ShardJobStatus| (job::shards(status).succeeded >= done + more).then_some(());
    job.wait(&format!("{more} more shards"), SOON, further).await?;
    Ok(())
}
