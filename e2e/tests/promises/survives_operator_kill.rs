//! The operator is killed in the middle of a job: workers go on, the next operator process takes over with a higher term,
//! the job ends right, and no shard that status called done runs again.

use std::time::Duration;

use hyperflow_e2e::{Result, cluster::Place, ensure, job, oracle};

const MIB: usize = 1 << 20;

pub async fn keeps(place: &Place) -> Result {
    let input = place.write_input("input", 64 * MIB, 5)?;
    let job = place.apply(super::copy("orphans", "2Mi", "8Mi", 2, 2)).await?;
    let some_done = |status: &_| (job::shards(status).succeeded >= 6).then(|| term(status));
    let (before, _) = job.wait("six shards done", Duration::from_secs(90), some_done).await?;

    let operators = place.cluster.operator_pods().await?;
    ensure(!operators.is_empty(), || "there is no operator to kill".into())?;
    for operator in &operators {
        place.cluster.kill(operator).await?;
    }
    let taken_over = |status: &_| (term(status) > before).then_some(());
    let ((), took) = job.wait("the next operator process", Duration::from_secs(60), taken_over).await?;

    let status = job.complete(Duration::from_secs(120)).await?;
    ensure(term(&status) > before, || "the term did not rise".into())?;
    let records = oracle::check_copy(&input, &place.path("out"), 32)?;
    let again: Vec<_> = records.iter().filter(|record| record.found || record.attempt > 1).collect();
    ensure(again.is_empty(), || format!("shards ran again though their workers lived: {again:?}"))?;
    ensure(took < Duration::from_secs(20), || format!("the next operator took {took:?}"))
}

fn term(status: &hyperflow_api::ShardJobStatus) -> i64 {
    status.recovery.as_ref().map_or(0, |notes| notes.term)
}
