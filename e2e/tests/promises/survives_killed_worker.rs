//! A worker is killed in the middle of its shards while others have room: they run elsewhere within three seconds, from
//! their checkpoints, and read again at most one checkpoint's worth.

use std::{collections::BTreeMap, time::Duration};

use hyperflow_api::ShardJobStatus;
use hyperflow_e2e::{
    Result,
    cluster::Place,
    ensure,
    job::{self, Attempt},
    oracle,
};

const MIB: u64 = 1 << 20;
const SLOTS: u32 = 2;

pub async fn keeps(place: &Place) -> Result {
    let input = place.write_input("input", 64 * MIB as usize, 2)?;
    // Eight shards of 8 MiB on six slots, at 2 MiB/s each way and worker: the last two leave room elsewhere.
    let job = place.apply(super::copy("killed", "8Mi", "4Mi", 3, SLOTS)).await?;
    let (victims, _) = job.wait("a shard with two MiB in a checkpoint", Duration::from_secs(60), victims).await?;

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
    let records = oracle::check_copy(&input, &place.path("out"), 8)?;
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

/// All that a worker holds which has got far, when each of its shards has another worker with room to go to: those that
/// may have killed a worker run one to a worker.
fn victims(status: &ShardJobStatus) -> Option<Vec<Attempt>> {
    let attempts = job::attempts(status).ok()?;
    let far = attempts.iter().find(|attempt| attempt.checkpoint.is_some_and(|position| position >= 2 * MIB))?;
    let (held, elsewhere): (Vec<Attempt>, Vec<Attempt>) =
        attempts.iter().cloned().partition(|attempt| attempt.pod == far.pod);
    let mut busy: BTreeMap<String, u32> = BTreeMap::new();
    elsewhere.into_iter().for_each(|attempt| *busy.entry(attempt.pod).or_default() += 1);
    // Status is a second old: what is half done in it is not done when the worker is killed.
    let half_done = held.iter().all(|attempt| attempt.checkpoint.unwrap_or(0) <= 4 * MIB);
    let full = busy.values().filter(|held| **held >= SLOTS).count();
    let ready = usize::try_from(status.workers.as_ref()?.ready).ok()?;
    (half_done && held.len() + full < ready).then_some(held)
}
