//! A job is suspended in the middle of its shards: workers write checkpoints and leave, nothing runs and nothing fails,
//! whatever becomes of the operator meanwhile. Resumed, it goes on where it was.

use std::{collections::BTreeMap, time::Duration};

use hyperflow_api::ShardJobStatus;
use hyperflow_e2e::{
    Result,
    cluster::Place,
    diary::term,
    ensure,
    fault::finally,
    job::{self, Job},
    oracle,
};
use serde_json::json;

const MIB: u64 = 1 << 20;

pub async fn keeps(place: &Place) -> Result {
    let input = place.write_input("input", 64 * MIB as usize, 70)?;
    // 16 shards of four seconds each on two slots a worker.
    let job = place.apply(super::copy("suspended", "4Mi", "4Mi", 2, 2)).await?;
    let under_way = |status: &ShardJobStatus| {
        let far = |it: &job::Attempt| it.checkpoint.is_some_and(|position| position >= MIB);
        (job::shards(status).succeeded >= 4 && job::attempts(status).ok()?.iter().any(far)).then_some(())
    };
    job.wait("four shards done and one with a checkpoint", Duration::from_secs(60), under_way).await?;

    let rested = finally(rests(place, &job), place.cluster.mended()).await?;
    job.patch(json!({"spec": {"suspend": false}})).await?;
    let status = job.complete(Duration::from_secs(120)).await?;
    ensure(!job::has(&status, "Suspended"), || format!("{:?}", status.conditions))?;
    let records = oracle::check_copy(&input, &place.path("out"), 16)?;
    let mut times: BTreeMap<u32, u32> = BTreeMap::new();
    for record in &records {
        *times.entry(record.index).or_default() += 1;
    }
    let twice = times.iter().find(|(index, times)| **times > 1 && job::is_done(&rested, **index));
    ensure(twice.is_none(), || format!("what was done was done again: {twice:?}"))?;
    ensure(records.iter().any(|record| record.resumed_from > 0), || format!("nothing was resumed: {records:?}"))?;
    let again: u64 = records.iter().map(|record| record.bytes_read_again).sum();
    ensure(again <= 2 * MIB, || format!("{again} bytes were read twice: {records:?}"))?;
    ensure(status.failures.is_empty(), || format!("suspending is no failure: {:?}", status.failures))
}

/// Suspends the job, starts the operators anew, and looks whether it rests all the while.
async fn rests(place: &Place, job: &Job) -> Result<ShardJobStatus> {
    job.patch(json!({"spec": {"suspend": true}})).await?;
    let suspended = |status: &ShardJobStatus| job::has(status, "Suspended").then(|| status.clone());
    let (before, took) = job.wait("Suspended", Duration::from_secs(20), suspended).await?;
    println!("     suspended after {took:.1?}");
    at_rest(place, &before).await?;
    for operator in place.cluster.operator_pods().await? {
        place.cluster.kill(&operator).await?;
    }
    let taken_over = |status: &ShardJobStatus| (term(status) > term(&before)).then(|| status.clone());
    let (after, _) = job.wait("the next operator", Duration::from_secs(60), taken_over).await?;
    at_rest(place, &after).await?;
    let done = |status: &ShardJobStatus| job::shards(status).completed_indexes;
    ensure(done(&before) == done(&after), || format!("{} done, then {}", done(&before), done(&after)))?;
    Ok(after)
}

async fn at_rest(place: &Place, status: &ShardJobStatus) -> Result {
    let running = place.workers().await?;
    ensure(running.is_empty(), || format!("{} workers of a suspended job", running.len()))?;
    let leased = job::attempts(status)?;
    ensure(job::has(status, "Suspended") && leased.is_empty(), || format!("leases of a suspended job: {leased:?}"))
}
