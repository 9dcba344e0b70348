//! A worker is killed in the middle of its shards: they run elsewhere within three seconds, from their checkpoints, and
//! read again at most one checkpoint's worth.

use std::time::Duration;

use hyperflow_e2e::{
    Result,
    cluster::Place,
    ensure,
    job::{self, Attempt},
    oracle,
};

const MIB: u64 = 1 << 20;

pub async fn keeps(place: &Place) -> Result {
    let input = place.write_input("input", 48 * MIB as usize, 2)?;
    // Four shards of 12 MiB at 2 MiB/s each way and worker: some 24 s for two slots, so that the kill lands half-way.
    let job = place.apply(super::copy("killed", "12Mi", "4Mi", 3, 2)).await?;
    let busy = |attempts: &[Attempt]| {
        let far = attempts.iter().find(|attempt| attempt.checkpoint.is_some_and(|position| position >= 2 * MIB))?;
        let pod = far.pod.clone();
        Some(attempts.iter().filter(|attempt| attempt.pod == pod).cloned().collect::<Vec<_>>())
    };
    let find = |status: &_| job::attempts(status).ok().and_then(|attempts| busy(&attempts));
    let (victims, _) = job.wait("a shard with two MiB in a checkpoint", Duration::from_secs(60), find).await?;

    let victim = place.worker(&victims[0].pod).await?;
    place.cluster.kill(&victim).await?;

    let moved = |status: &_| {
        let attempts = job::attempts(status).ok()?;
        let elsewhere = |victim: &Attempt| {
            attempts.iter().any(|attempt| attempt.index == victim.index && attempt.epoch != victim.epoch)
        };
        victims.iter().all(elsewhere).then_some(())
    };
    let ((), took) = job.wait("the shards to run elsewhere", Duration::from_secs(20), moved).await?;
    ensure(took <= Duration::from_secs(3), || format!("the shards ran elsewhere only after {took:?}"))?;

    job.complete(Duration::from_secs(120)).await?;
    let records = oracle::check_copy(&input, &place.path("out"), 4)?;
    for victim in &victims {
        let record = records.iter().find(|record| record.index == victim.index && record.attempt > 1);
        let record = record.ok_or("a shard without a record")?;
        let kept = victim.checkpoint.unwrap_or(0);
        ensure(record.resumed_from >= kept, || format!("{record:?} lost its checkpoint at {kept}"))?;
        // A checkpoint every MiB, and one buffer of a MiB that was read and not yet written.
        ensure(record.bytes_read_again <= 2 * MIB, || format!("{record:?} read too much again"))?;
    }
    let resumed = records.iter().any(|record| record.resumed_from >= 2 * MIB && record.attempt > 1);
    ensure(resumed, || format!("nothing was resumed: {records:?}"))
}
