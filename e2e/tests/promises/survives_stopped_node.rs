//! The power of a node fails: its shards are leased to workers of other nodes within the lease and two seconds, and
//! the job ends right without it.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use hyperflow_e2e::{Result, cluster::Place, ensure, fault::finally, harness::soak, job::Job, oracle};

const MIB: usize = 1 << 20;
/// The lease, and two seconds.
const MOVED: Duration = Duration::from_secs(10 + 2);

pub async fn keeps(place: &Place) -> Result {
    for round in 0..if soak() { 5 } else { 1 } {
        place.empty_output()?;
        let input = place.write_input("input", 96 * MIB, 20 + round)?;
        // 48 shards of a second each on two slots a worker, so that the other node soon has room for more.
        let job = place.apply(super::copy(&format!("power-{round}"), "2Mi", "8Mi", 2, 2)).await?;
        let node = job.busy_on_two(&place.cluster).await?;
        let start = Instant::now();
        place.cluster.harm(&["stop-node", &node]).await?;
        let repair = async {
            place.cluster.harm(&["start-node", &node]).await?;
            place.cluster.mended().await
        };
        finally(goes_on_without(place, &job, &node, start, &input), repair).await?;
    }
    Ok(())
}

async fn goes_on_without(place: &Place, job: &Job, node: &str, start: Instant, input: &Path) -> Result {
    let held = job.moved_off(node, MOVED * 3).await?;
    let took = start.elapsed();
    println!("     {} shards of a stopped node elsewhere after {took:.1?}", held.len());
    ensure(took <= MOVED, || format!("the shards ran elsewhere only after {took:?}: {held:?}"))?;

    let status = job.complete(Duration::from_secs(120)).await?;
    oracle::check_copy(input, &place.path("out"), 48)?;
    let own = status.failures.iter().find(|sample| sample.class == "Application");
    ensure(own.is_none(), || format!("a node that is lost is no failure of a shard: {own:?}"))
}
