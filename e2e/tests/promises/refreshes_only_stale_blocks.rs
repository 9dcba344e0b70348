//! A node is cut off and comes back: nothing is copied. It comes back with one block of another version, one that is
//! damaged and one that is gone: these three move, and no other.

use std::{collections::BTreeSet, fs, time::Duration};

use hyperflow_e2e::{
    Result,
    cluster::Place,
    ensure,
    fault::finally,
    job::Job,
    oracle,
    stores::{Moved, Replica, loaded_since, nodes_of},
};

use super::{gated, open_gate};

const MIB: usize = 1 << 20;
const SHARDS: u32 = 48;
/// Less than what makes a node lost.
const CUT: Duration = Duration::from_secs(12);
const LIMIT: Duration = Duration::from_secs(90);

pub async fn keeps(place: &Place) -> Result {
    let cluster = &place.cluster;
    let input = place.write_input("input", SHARDS as usize * MIB, 96)?;
    let job = place.apply(gated("returns", 3, 2)).await?;
    place.replicated(&job, SHARDS, 2, &[], LIMIT).await?;
    let node = job.busy_on_two(cluster).await?;

    let before = place.block_bytes().await?;
    cluster.harm(&["cut-link", &node]).await?;
    let wait = async {
        tokio::time::sleep(CUT).await;
        Ok(())
    };
    finally(wait, cluster.harm(&["heal-link", &node])).await?;
    cluster.mended().await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let moved = difference(place.block_bytes().await?, before);
    println!("     {node} was cut off for {CUT:?}: {:.1} MiB moved", moved / MIB as f64);
    ensure(moved < 1.0, || format!("{moved} bytes were copied for a node that came back"))?;

    let whole = place.replicas(&job).await?;
    let before = place.loaded_by_node().await?;
    let spoiled = finally(spoil(place, &job, &node), async {
        cluster.harm(&["start-node", &node]).await?;
        cluster.mended().await
    })
    .await?;
    let fresh = async {
        loop {
            let lacks = lacking(&whole, &place.replicas(&job).await?);
            if lacks.is_empty() {
                return Ok::<_, hyperflow_e2e::Error>(());
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    };
    tokio::time::timeout(LIMIT, fresh).await.map_err(|_| "not every block has two good copies again")??;
    // Whatever else is on its way gets the time to arrive.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let moved = loaded_since(&before, &place.loaded_by_node().await?, &node);
    let stale: u64 = spoiled.iter().map(|replica| replica.bytes).sum();
    println!("     {node} came back with three blocks of {stale} bytes spoiled: {moved} bytes moved");
    ensure(moved >= stale as f64 && moved <= 1.1 * stale as f64, || {
        format!("{moved} bytes moved, {stale} were stale")
    })?;
    open_gate(place)?;
    job.complete(LIMIT).await?;
    oracle::check_copy(&input, &place.path("out"), SHARDS).map(drop)
}

/// Takes the power of the node away, and spoils three replicas on its disk.
async fn spoil(place: &Place, job: &Job, node: &str) -> Result<Vec<Replica>> {
    place.cluster.harm(&["stop-node", node]).await?;
    let all = place.replicas(job).await?;
    let mut here = all.into_iter().filter(|replica| replica.node == node);
    let (Some(stale), Some(damaged), Some(gone)) = (here.next(), here.next(), here.next()) else {
        return Err(format!("{node} has fewer than three blocks").into());
    };
    stale.make_stale()?;
    fs::OpenOptions::new().write(true).open(&damaged.path)?.set_len(64 + damaged.bytes / 2)?;
    fs::remove_file(&gone.path)?;
    Ok(vec![stale, damaged, gone])
}

/// Shards with fewer than two copies as they were before.
fn lacking(before: &[Replica], now: &[Replica]) -> BTreeSet<u32> {
    let good = |replica: &&Replica| {
        let same =
            |old: &Replica| (old.shard, &old.version, old.bytes) == (replica.shard, &replica.version, replica.bytes);
        before.iter().any(same)
    };
    let good: Vec<Replica> = now.iter().filter(good).cloned().collect();
    let on = nodes_of(&good, &[]);
    (0..SHARDS).filter(|shard| on.get(shard).map_or(0, BTreeSet::len) < 2).collect()
}

fn difference(after: Moved, before: Moved) -> f64 {
    after.copied + after.loaded - before.copied - before.loaded
}
