//! Every worker and every operator is killed at once: the job goes on from what status and checkpoints say, and nothing
//! that was done before is done again.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use futures::future::try_join_all;
use hyperflow_api::ShardJobStatus;
use hyperflow_e2e::{
    Result,
    cluster::Place,
    diary::term,
    ensure, harness,
    job::{self, shards},
    oracle,
};

const MIB: usize = 1 << 20;

pub async fn keeps(place: &Place) -> Result {
    // Four MiB a second in all.
    let times: u32 = if harness::soak() { 5 } else { 1 };
    let count = 8 + 16 * times;
    let input = place.write_input("input", 2 * count as usize * MIB, 9)?;
    let job = place.apply(super::copy("all-killed", "2Mi", "4Mi", 2, 2)).await?;
    let diary = place.diary(&job).await?;
    let mut kills: Vec<(ShardJobStatus, SystemTime)> = Vec::new();
    for _ in 0..times {
        let done = shards(&job.status().await?).succeeded;
        let more = |status: &ShardJobStatus| (shards(status).succeeded >= done + 6).then(|| status.clone());
        let (before, _) = job.wait("six more shards done", Duration::from_secs(60), more).await?;
        let mut everyone = place.cluster.operator_pods().await?;
        everyone.extend(place.workers().await?);
        kills.push((before, SystemTime::now()));
        try_join_all(everyone.iter().map(|pod| place.cluster.kill(pod))).await?;
    }

    let status = job.complete(Duration::from_secs(120)).await?;
    diary.close().await?;
    let output = place.path("out");
    let records = oracle::check_copy(&input, &output, count)?;
    let parts = oracle::parts(&output)?;
    for (before, killed) in &kills {
        ensure(term(&status) > term(before), || "no other operator took the job over".into())?;
        for (index, part) in (0..count).zip(&parts).filter(|(index, _)| job::is_done(before, *index)) {
            let of_it: Vec<_> = records.iter().filter(|record| record.index == index).collect();
            let untouched = fs::metadata(part)?.modified()? < *killed;
            ensure(of_it.len() == 1 && untouched, || format!("shard {index} was done, and again: {of_it:?}"))?;
        }
    }
    let processes = oracle::recorders(&output)?;
    ensure(processes.len() > 2, || format!("two workers were killed, and these did the work: {processes:?}"))?;
    place.cluster.mended().await
}
