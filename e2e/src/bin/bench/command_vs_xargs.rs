//! A process for each shard beside `xargs -P` with as many slots, in the same container: what a lease, a result and a status
//! cost on top of starting a process.

use hyperflow_e2e::{Result, cluster::Place, ensure};
use serde_json::json;

use crate::{
    bench::Bench,
    command_vs_job::LINE,
    ours, peers,
    row::{Of, Reach, Row, Sample},
};

static ROW: Row = Row { name: "command_vs_xargs", unit: "shards/s", reach: Reach::Times(0.8), of: Of::Median };

const SHARDS: u32 = 20_000;
const SLOTS: u32 = 2;

pub async fn run(bench: &Bench) -> Result<Vec<Sample>> {
    let (ours, peer) = bench.in_turn(rate(bench), bench.within(xargs)).await;
    let (ours, note) = ours?;
    let name = format!("xargs -P{SLOTS}");
    Ok(vec![Sample { row: &ROW, ours: vec![ours], peer: peers::measured(name, peer), note }])
}

/// Our shards a second, a shell each, in one worker.
pub async fn rate(bench: &Bench) -> Result<(f64, String)> {
    bench
        .within(async |place| {
            let (taken, _) = ours::run_unstored(place, ours::command(LINE, SHARDS, 1, SLOTS)).await?;
            Ok((taken.shards / taken.seconds, taken.note))
        })
        .await
}

/// Lines a second by `xargs`, which runs in a worker like ours, as the only shard of a job, and is timed by its own shell.
async fn xargs(place: &Place) -> Result<f64> {
    let line = format!("time -p sh -c 'seq {SHARDS} | xargs -P{SLOTS} -n1 sh -c {LINE}' 2>&1");
    let mut job = ours::command(&line, 1, 1, 1);
    job["spec"]["task"]["exec"]["output"] = json!("Stdout");
    job["spec"]["output"] = json!({"url": "file:///data/out/"});
    job["spec"]["workers"] = json!({
        "slots": 1,
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}]
    });
    place.apply(job).await?.complete(std::time::Duration::from_secs(300)).await?;
    let said = std::fs::read_to_string(place.path("out/part-000000"))?;
    let seconds = said.lines().find_map(|line| line.strip_prefix("real")?.trim().parse::<f64>().ok()).unwrap_or(0.0);
    ensure(seconds > 0.0, || format!("time said {said}"))?;
    Ok(f64::from(SHARDS) / seconds)
}
