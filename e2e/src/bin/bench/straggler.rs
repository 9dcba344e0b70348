//! One worker of two is ten times slower: with speculation beside without.

use std::time::{Duration, Instant};

use hyperflow_e2e::{Result, cluster::Place, job::shards};
use serde_json::json;

use crate::{
    bench::Bench,
    ours, peers,
    row::{Of, Reach, Row, Sample},
};

/// At most 0.7 of the time.
static ROW: Row = Row { name: "straggler", unit: "jobs/min", reach: Reach::Times(1.0 / 0.7), of: Of::Median };

const LIMIT: Duration = Duration::from_secs(300);
/// So few that the fast worker has done the others while the slow one is at its first: more would hide the straggler.
const SHARDS: u32 = 4;
/// On one of the nodes a shard takes 20 s, not 2: the first that writes its name down when the gate is open.
const LINE: &str = "until [ -e /data/go ]; do sleep 0.2; done; (set -C; echo $NODE > /data/slow) 2>&-; \
                    case $(cat /data/slow) in $NODE) sleep 20;; *) sleep 2;; esac; echo $HYPERFLOW_START";

pub async fn run(bench: &Bench) -> Result<Vec<Sample>> {
    let with = bench.within(async |place| seconds(place, "Duplicate").await);
    let without = bench.within(async |place| seconds(place, "Disabled").await);
    let (ours, peer) = bench.in_turn(with, without).await;
    let (ours, peer) = (60.0 / ours?, peer.map(|seconds| 60.0 / seconds));
    let note = format!("{:.1} s", 60.0 / ours);
    Ok(vec![Sample { row: &ROW, ours: vec![ours], peer: peers::measured("without speculation", peer), note }])
}

/// From the moment that both workers have a shard and may begin to Complete.
async fn seconds(place: &Place, mode: &str) -> Result<f64> {
    let mut job = ours::command(LINE, SHARDS, 2, 1);
    let node = json!({"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}});
    job["spec"]["task"]["exec"]["env"] = json!([node]);
    job["spec"]["task"]["exec"]["output"] = json!("Stdout");
    job["spec"]["output"] = json!({"url": "file:///data/out/"});
    job["spec"]["speculation"] = json!({"mode": mode});
    job["spec"]["workers"] = json!({
        "slots": 1,
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}]
    });
    let job = place.apply(job).await?;
    job.wait("two shards", LIMIT, |status| (shards(status).active > 1).then_some(())).await?;
    place.write("go", b"")?;
    let start = Instant::now();
    job.complete(LIMIT).await?;
    Ok(start.elapsed().as_secs_f64())
}
