//! `kubectl rollout restart` of the operator in the middle of a job: no worker notices more than a new session, nothing
//! runs twice, and status goes on.

use std::time::Duration;

use hyperflow_e2e::{
    Result,
    cluster::Place,
    control::restarts,
    diary::{longest_silence, term},
    ensure, harness,
    job::{self, shards},
    oracle,
};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

const MIB: usize = 1 << 20;
/// As long as a leader that is killed may leave the job alone; one that says good-bye should need much less.
const SILENT: Duration = Duration::from_secs(8);

pub async fn keeps(place: &Place) -> Result {
    // Two MiB a second in all: a version of status every second, for half a minute a roll-out.
    let rollouts: u32 = if harness::soak() { 5 } else { 1 };
    let megabytes = 64 * rollouts;
    let input = place.write_input("input", megabytes as usize * MIB, 7)?;
    let job = place.apply(super::copy("rolled", "1Mi", "2Mi", 2, 2)).await?;
    let diary = place.diary(&job).await?;
    let some_done = |status: &_| (shards(status).succeeded >= 3).then(|| term(status));
    let (before, _) = job.wait("three shards done", Duration::from_secs(60), some_done).await?;
    let workers = place.workers().await?;
    for _ in 0..rollouts {
        let took = place.cluster.roll_operators().await?;
        println!("     the operator rolled out in {took:.1?}");
    }
    // The pods are ready before one of them leads.
    let taken_over = |status: &_| (term(status) > before).then(|| status.clone());
    let (status, _) = job.wait("another operator's term", SILENT, taken_over).await?;
    ensure(!job::has(&status, "Complete"), || "the job was over before the roll-out was".into())?;
    let after = place.workers().await?;
    let identities = |pods: &[Pod]| pods.iter().map(|pod| (pod.uid(), restarts(pod))).collect::<Vec<_>>();
    ensure(identities(&workers) == identities(&after), || format!("workers were {workers:?}, now {after:?}"))?;

    job.complete(Duration::from_secs(120)).await?;
    let silent = longest_silence(&diary.close().await?);
    println!("     status stood still for {silent:.1?} at most");
    let records = oracle::check_copy(&input, &place.path("out"), megabytes)?;
    let again: Vec<_> = records.iter().filter(|record| record.found || record.attempt > 1).collect();
    ensure(again.is_empty(), || format!("shards ran again though their workers lived: {again:?}"))?;
    ensure(silent <= SILENT, || format!("status stood still for {silent:?}"))
}
