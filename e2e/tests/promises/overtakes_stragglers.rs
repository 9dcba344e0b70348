//! One of three workers is ten times slower. When nothing else is left, what it holds runs on another one too; the first
//! result counts, it is there once, and the job is done in a fraction of the time.

use std::time::{Duration, Instant};

use hyperflow_e2e::{Result, cluster::Place, ensure, job::shards, oracle};
use serde_json::{Value, json};

use super::{BUSYBOX, close_gate, open_gate, program};

const LIMIT: Duration = Duration::from_secs(180);

pub async fn keeps(place: &Place) -> Result {
    let without = runs(place, "waits", "Disabled").await?;
    let with = runs(place, "overtakes", "Duplicate").await?;
    println!("     one slow worker: {with:.1?} with speculation, {without:.1?} without");
    ensure(with.as_secs_f64() <= 0.7 * without.as_secs_f64(), || format!("{with:?}, and {without:?} without"))
}

/// Two workers with a slot each, one to a node, that begin when the gate opens. On the node that first writes its name down
/// a shard takes 20 s, not 2.
fn slow(name: &str, mode: &str) -> Value {
    let node = json!({"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}});
    let script = format!(
        "until [ -e /data/go ]; do sleep 0.2; done; (set -C; echo $NODE > /data/slow-{name}) 2>&-; \
         case $(cat /data/slow-{name}) in $NODE) sleep 20;; *) sleep 2;; esac; echo $HYPERFLOW_START"
    );
    let exec = json!({"command": ["sh", "-c", script], "env": [node], "input": "None", "output": "Stdout"});
    let mut job = program(name, BUSYBOX, json!({"numbers": {"count": 4}}), &exec);
    job["spec"]["output"]["url"] = json!(format!("file:///data/out/{name}/"));
    job["spec"]["workers"]["slots"] = json!(1);
    job["spec"]["speculation"] = json!({"mode": mode});
    job
}

async fn runs(place: &Place, name: &str, mode: &str) -> Result<Duration> {
    let job = place.apply(slow(name, mode)).await?;
    // Pods start as fast as they can; the shards are what is measured.
    job.wait("a shard on each worker", LIMIT, |status| (shards(status).active > 1).then_some(())).await?;
    open_gate(place)?;
    let start = Instant::now();
    let status = job.complete(LIMIT).await?;
    let took = start.elapsed();
    close_gate(place)?;
    let results = oracle::tree(&place.path(&format!("out/{name}")))?;
    ensure(results.len() == 4 && shards(&status).succeeded == 4, || format!("{:?}", results.keys()))?;
    for (index, text) in (0..).zip(results.values()) {
        ensure(*text == format!("{index}\n").into_bytes(), || format!("shard {index}: {text:?}"))?;
    }
    ensure(status.failures.is_empty(), || format!("{:?}", status.failures))?;
    Ok(took)
}
