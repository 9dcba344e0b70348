//! Seconds from the moment a node is cut off until all its shards are under way elsewhere or done. Kubernetes is not
//! waited for: what it is told to do by default is stated.

use std::time::{Duration, Instant};

use hyperflow_e2e::{Result, cluster::Place, fault::finally};
use serde_json::json;

use crate::{
    bench::Bench,
    ours,
    row::{Of, Peer, Reach, Row, Sample},
};

/// The lease of ten seconds, and two more.
static ROW: Row = Row { name: "node_silent", unit: "s", reach: Reach::Within(12.0), of: Of::Median };

/// Both are older defaults or today's: 40 s (50 s since Kubernetes 1.32) until a node counts as lost, and 300 s that
/// its pods are tolerated there. The smaller sum is the one that flatters us less.
const KUBERNETES: f64 = 40.0 + 300.0;
const LIMIT: Duration = Duration::from_secs(60);
const MIB: usize = 1 << 20;

pub async fn run(bench: &Bench) -> Result<Vec<Sample>> {
    let (seconds, shards) = bench.within(cut).await?;
    let name = "Kubernetes' defaults (40 s node grace + 300 s toleration), stated, not measured".into();
    let note = format!("{shards} shards moved");
    Ok(vec![Sample { row: &ROW, ours: vec![seconds], peer: Peer::Stated { name, value: KUBERNETES }, note }])
}

/// Status tells when: it is written once a second, so this is up to a second too much.
async fn cut(place: &Place) -> Result<(f64, usize)> {
    let cluster = &place.cluster;
    place.write_input("input", 96 * MIB, 30)?;
    // Shards of a second or two on two slots a worker, so that the other node soon has room for more.
    let mut manifest = ours::copy("2Mi", 2, 2);
    manifest["spec"]["workers"]["bytesPerSecond"] = "8Mi".into();
    manifest["spec"]["checkpoint"] = json!({"periodSeconds": 1, "bytes": "1Mi"});
    let job = place.apply(manifest).await?;
    let node = job.busy_on_two(cluster).await?;
    let start = Instant::now();
    cluster.harm(&["cut-link", &node]).await?;
    let moved = async {
        let held = job.moved_off(&node, LIMIT).await?;
        Ok((start.elapsed().as_secs_f64(), held.len()))
    };
    let moved = finally(moved, cluster.harm(&["heal-link", &node])).await?;
    let ended = async { job.complete(LIMIT * 3).await.map(drop) };
    finally(ended, cluster.mended()).await?;
    Ok(moved)
}
