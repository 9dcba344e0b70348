//! The operator that leads is killed, or stopped where it is, again and again in the middle of a job: workers go on, leases flow
//! again within the leader's lease and three seconds, or before their own run out, and no shard runs twice.

use std::time::{Duration, Instant};

use hyperflow_api::ShardJobStatus;
use hyperflow_e2e::{
    Result,
    cluster::Place,
    diary::term,
    ensure,
    fault::finally,
    harness,
    job::{self, shards},
    oracle,
};
use kube::ResourceExt;

const MIB: usize = 1 << 20;
/// The leader's lease, and three seconds to take the job over and be found by the workers.
const LEADERLESS: Duration = Duration::from_secs(5 + 3);
/// One that is stopped leaves its streams open: workers need six seconds to see that nobody is there. Before their leases run
/// out they have found the next.
const STOPPED: Duration = Duration::from_secs(10);

pub async fn keeps(place: &Place) -> Result {
    // Two MiB a second in all: some twelve seconds for each kill.
    let kills: u32 = if harness::soak() { 10 } else { 3 };
    let megabytes = 24 * kills + 16;
    let input = place.write_input("input", megabytes as usize * MIB, 5)?;
    let job = place.apply(super::copy("orphans", "1Mi", "2Mi", 2, 2)).await?;
    let diary = place.diary(&job).await?;
    let mut took = Vec::new();
    for time in 0..kills {
        let done = shards(&job.status().await?).succeeded;
        let more = |status: &ShardJobStatus| (shards(status).succeeded >= done + 4).then(|| status.clone());
        let (before, _) = job.wait("four more shards done", Duration::from_secs(60), more).await?;
        let leader = place.cluster.leader().await?.ok_or("no operator leads")?;
        let (gone, stopped) = (Instant::now(), is_stopped(time));
        if stopped {
            place.cluster.freeze(&leader).await?;
        } else {
            place.cluster.kill(&leader).await?;
        }
        let flows = |status: &ShardJobStatus| leases_flow_after(&before, status);
        let what = format!("a shard leased anew after {} was gone", leader.name_any());
        let flow = diary.wait(&what, gone, Duration::from_secs(60), flows);
        let thaw = async { if stopped { place.cluster.thaw(&leader).await } else { Ok(()) } };
        took.push(finally(flow, thaw).await?);
    }
    println!("     leases flowed again after {took:.1?}");
    let late = took.iter().zip(0..).any(|(took, time)| *took > if is_stopped(time) { STOPPED } else { LEADERLESS });

    job.complete(Duration::from_secs(180)).await?;
    diary.close().await?;
    let records = oracle::check_copy(&input, &place.path("out"), megabytes)?;
    let again: Vec<_> = records.iter().filter(|record| record.found || record.attempt > 1).collect();
    ensure(again.is_empty(), || format!("shards ran again though their workers lived: {again:?}"))?;
    place.cluster.mended().await?;
    ensure(!late, || format!("leases flowed again only after {took:?}"))
}

/// One that was killed is started again in its pod, and need not wait for itself; for one that is stopped another must.
fn is_stopped(time: u32) -> bool {
    time % 2 == 1
}

/// Another process has taken the job over, and gave out a shard that nobody had before.
fn leases_flow_after(before: &ShardJobStatus, status: &ShardJobStatus) -> bool {
    let (Ok(held), Ok(attempts)) = (job::attempts(before), job::attempts(status)) else { return false };
    let known = |index| held.iter().any(|held| held.index == index) || job::is_done(before, index);
    term(status) > term(before) && attempts.iter().any(|attempt| !known(attempt.index))
}
