//! A worker is frozen for longer than its lease and comes back: its shards were published by others meanwhile, its own
//! late publish changes nothing, and every shard has one result.

use std::time::{Duration, Instant};

use hyperflow_e2e::{
    Result,
    cluster::Place,
    ensure,
    job::{self, Attempt},
    oracle,
};

const MIB: u64 = 1 << 20;
/// The lease and what it takes to notice, a shard that the others finish first, and a status write.
const SILENT: Duration = Duration::from_secs(10 + 2 + 4 + 1);

pub async fn keeps(place: &Place) -> Result {
    let input = place.write_input("input", 48 * MIB as usize, 4)?;
    // 24 shards of some four seconds each on six slots.
    let job = place.apply(super::copy("frozen", "2Mi", "2Mi", 3, 2)).await?;
    let under_way = |status: &_| {
        let attempts = job::attempts(status).ok()?;
        let pod = attempts.iter().find(|attempt| attempt.checkpoint.is_some())?.pod.clone();
        Some(attempts.into_iter().filter(|attempt| attempt.pod == pod).collect::<Vec<Attempt>>())
    };
    let (victims, _) = job.wait("a checkpoint", Duration::from_secs(60), under_way).await?;
    let victim = place.worker(&victims[0].pod).await?;
    place.cluster.freeze(&victim).await?;
    let frozen = Instant::now();

    let moved = |status: &_| {
        let attempts = job::attempts(status).ok()?;
        let left = |victim: &Attempt| {
            let elsewhere = |attempt: &Attempt| attempt.index == victim.index && attempt.pod != victim.pod;
            attempts.iter().any(elsewhere) || job::is_done(status, victim.index)
        };
        victims.iter().all(left).then_some(())
    };
    let outcome = job.wait("the frozen worker's shards to move", SILENT + Duration::from_secs(10), moved).await;
    let took = frozen.elapsed();
    // Thawed while others work on its shards, so that both publish.
    place.cluster.thaw(&victim).await?;
    outcome?;
    ensure(took <= SILENT, || format!("the shards ran elsewhere only after {took:?}"))?;

    job.complete(Duration::from_secs(120)).await?;
    oracle::check_copy(&input, &place.path("out"), 24)?;
    Ok(())
}
