//! A node is cut off while its workers run on: their shards are leased to workers of the other node within the lease and
//! two seconds, and when the node is back, what both published is there once.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use hyperflow_e2e::{Result, cluster::Place, ensure, fault::finally, harness::soak, job::Job, oracle};

const MIB: usize = 1 << 20;
/// The lease, and two seconds.
const MOVED: Duration = Duration::from_secs(10 + 2);

pub async fn keeps(place: &Place) -> Result {
    let cluster = &place.cluster;
    for round in 0..if soak() { 5 } else { 1 } {
        place.empty_output()?;
        let input = place.write_input("input", 96 * MIB, 30 + round)?;
        // 48 shards of a second each on two slots a worker, so that the other node soon has room for more.
        let job = place.apply(super::copy(&format!("cut-{round}"), "2Mi", "8Mi", 2, 2)).await?;
        let node = job.busy_on_two(cluster).await?;
        let start = Instant::now();
        cluster.harm(&["cut-link", &node]).await?;
        finally(is_cut_off(place, &job, &node, start), cluster.harm(&["heal-link", &node])).await?;
        finally(ends_right(place, &job, &input), cluster.mended()).await?;
    }
    Ok(())
}

async fn is_cut_off(place: &Place, job: &Job, node: &str, start: Instant) -> Result {
    let published = || published_on(place, node);
    let before = published()?;
    let held = job.moved_off(node, MOVED * 3).await?;
    let took = start.elapsed();
    let alone = published()? - before;
    println!("     {} shards of a cut-off node elsewhere after {took:.1?}; it published {alone} meanwhile", held.len());
    ensure(took <= MOVED, || format!("the shards ran elsewhere only after {took:?}: {held:?}"))?;
    ensure(alone > 0, || "the workers that were cut off did not go on".into())
}

async fn ends_right(place: &Place, job: &Job, input: &Path) -> Result {
    let status = job.complete(Duration::from_secs(120)).await?;
    oracle::check_copy(input, &place.path("out"), 48)?;
    let own = status.failures.iter().find(|sample| sample.class == "Application");
    ensure(own.is_none(), || format!("a link that is cut is no failure of a shard: {own:?}"))
}

/// How many shards workers of this node have recorded, as winners or not.
fn published_on(place: &Place, node: &str) -> Result<usize> {
    Ok(oracle::records(&place.path("out"))?.iter().filter(|record| record.node == node).count())
}
