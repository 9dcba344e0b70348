//! A worker pod is deleted: the worker makes checkpoints, hands its shards back and leaves within two seconds; nothing is
//! read twice and no failure is counted.

use std::time::{Duration, Instant};

use hyperflow_e2e::{
    Result,
    cluster::{Line, Place},
    ensure, job, oracle,
};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt};

const MIB: u64 = 1 << 20;
/// What a worker may take to leave, of five seconds that it has until it is killed.
const LEAVES: Duration = Duration::from_secs(2);

pub async fn keeps(place: &Place) -> Result {
    let input = place.write_input("input", 32 * MIB as usize, 3)?;
    let job = place.apply(super::copy("deleted", "8Mi", "4Mi", 2, 2)).await?;
    let under_way = |status: &_| {
        let attempts = job::attempts(status).ok()?;
        attempts.into_iter().find(|attempt| attempt.checkpoint.is_some_and(|position| position >= MIB))
    };
    let (attempt, _) = job.wait("a checkpoint", Duration::from_secs(60), under_way).await?;
    let victim = place.worker(&attempt.pod).await?;

    let log = place.follow(&victim).await?;
    let start = Instant::now();
    place.cluster.delete(&victim).await?;
    let pods: Api<Pod> = Api::namespaced(place.cluster.client.clone(), &place.namespace);
    while pods.get_opt(&victim.name_any()).await?.is_some_and(|pod| pod.metadata.uid == victim.metadata.uid) {
        ensure(start.elapsed() < Duration::from_secs(20), || "the pod is still there after 20 s".into())?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let gone = start.elapsed();
    let took = farewell(&log.await?)?;
    println!("     a worker left {took:.1?} after it was asked to, and its pod was gone after {gone:.1?}");
    ensure(took <= LEAVES, || format!("the worker took {took:?} to leave"))?;

    let status = job.complete(Duration::from_secs(120)).await?;
    let records = oracle::check_copy(&input, &place.path("out"), 4)?;
    ensure(records.iter().any(|record| record.resumed_from > 0), || format!("nothing was resumed: {records:?}"))?;
    let again: u64 = records.iter().map(|record| record.bytes_read_again).sum();
    ensure(again == 0, || format!("{again} bytes were read twice, though the worker could say good-bye: {records:?}"))?;
    ensure(status.failures.is_empty(), || format!("a deleted pod is no failure: {:?}", status.failures))
}

/// From the signal to the end of the process, by what it logged itself: a busy kubelet takes seconds to notice either.
fn farewell(log: &[Line]) -> Result<Duration> {
    let at = |message: &str| {
        let line = log.iter().find(|line| line.message == message);
        line.map(|line| line.timestamp).ok_or_else(|| format!("the worker did not log {message:?}: {log:?}"))
    };
    let took = at("the worker ends")?.duration_since(at("the worker is asked to stop")?);
    Ok(Duration::try_from(took)?)
}
