//! Bits flip on a disk: no shard gets such a block, another copy takes its place, and the bad one is made anew.

use std::{
    fs,
    time::{Duration, Instant},
};

use hyperflow_e2e::{Result, cluster::Place, ensure, oracle, stores::Replica};

use super::{gated, hold_back, open_gate};

const MIB: usize = 1 << 20;
const SHARDS: u32 = 24;
/// Shards from this one on wait for a gate of their own.
const SECOND: u32 = 12;
const LIMIT: Duration = Duration::from_secs(60);

pub async fn keeps(place: &Place) -> Result {
    let input = place.write_input("input", SHARDS as usize * MIB, 94)?;
    let whole = fs::read(&input)?;
    let mut manifest = gated("flipped", 3, 2);
    hold_back(&mut manifest, SECOND);
    let job = place.apply(manifest).await?;
    place.replicated(&job, SHARDS, 2, &[], LIMIT).await?;

    // One copy of each of the blocks that no shard has opened yet.
    let mut flipped: Vec<Replica> = place.replicas(&job).await?;
    flipped.sort();
    flipped.retain(|replica| replica.shard >= SECOND);
    flipped.sort_by_key(|replica| replica.shard);
    flipped.dedup_by_key(|replica| replica.shard);
    for replica in &flipped {
        replica.flip_a_bit()?;
    }
    open_gate(place)?;
    let start = Instant::now();
    let sound = |replica: &Replica| {
        let begin = replica.shard as usize * MIB;
        fs::read(&replica.path).is_ok_and(|bytes| bytes[64..] == whole[begin..begin + MIB])
    };
    let healed = loop {
        let healed = flipped.iter().filter(|replica| sound(replica)).count();
        if healed > 0 {
            break healed;
        }
        ensure(start.elapsed() < LIMIT, || format!("none of {} damaged copies was made anew", flipped.len()))?;
        tokio::time::sleep(Duration::from_millis(300)).await;
    };
    println!("     {healed} of {} damaged copies healed after {:.1?}", flipped.len(), start.elapsed());
    place.write("go-on", b"")?;
    job.complete(LIMIT).await?;
    oracle::check_copy(&input, &place.path("out"), SHARDS)?;
    Ok(())
}
