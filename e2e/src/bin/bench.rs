//! `make bench`: our figures beside the peers', interleaved in one run on one cluster; medians.
//!
//! Prints a table and writes `bench.jsonl`, a line for each row. A reach that is missed is printed, not hidden.

#![allow(clippy::print_stdout, reason = "a benchmark speaks to people")]

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use clap::Parser;
use hyperflow_e2e::{
    Result,
    cluster::{Cluster, Place},
    ensure,
    job::{has, shards},
    oracle,
};
use k8s_openapi::api::batch::v1::Job as IndexedJob;
use kube::{Api, ResourceExt, api::PostParams};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(300);
/// Indexes of the peer: a pod each.
const INDEXES: i32 = 40;
/// Shards of a run of ours.
const SHARDS: i32 = 1_000_000;

/// Measures on the cluster of KUBECONFIG and on this machine's file system.
#[derive(Parser)]
struct Settings {
    /// The file to copy.
    #[arg(long)]
    input: PathBuf,
    /// Runs of each, ours and the peer's in turn.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// An image that is on the nodes and exits at once with --version.
    #[arg(long, default_value = "hyperflow.dev/worker:0.1.0")]
    image: String,
}

/// One figure beside a peer's. A ratio above 1 means that ours is better.
struct Row {
    name: &'static str,
    unit: &'static str,
    peer_name: &'static str,
    /// The ratio to reach.
    reach: f64,
    ours: Vec<f64>,
    peer: Vec<f64>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match bench(&Settings::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("the benchmark failed: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn bench(settings: &Settings) -> Result {
    let cluster = Cluster::connect().await?;
    let mut noop = Row {
        name: "noop_shards",
        unit: "shards/s",
        peer_name: "Indexed Job",
        reach: 5000.0,
        ours: Vec::new(),
        peer: Vec::new(),
    };
    let mut copy = Row {
        name: "copy_file",
        unit: "GB/s",
        peer_name: "cp && sync",
        reach: 0.8,
        ours: Vec::new(),
        peer: Vec::new(),
    };
    for run in 1..=settings.runs {
        println!("run {run} of {}", settings.runs);
        let place = cluster.place("bench").await?;
        noop.peer.push(indexed_job(&place, &settings.image).await?);
        noop.ours.push(noop_shards(&place).await?);
        copy.peer.push(cp_and_sync(&settings.input, &place.path("in/peer"))?);
        copy.ours.push(copy_file(&place, &settings.input).await?);
        place.remove().await?;
    }
    report(&[noop, copy])
}

/// No-op shards a second on the full path: TLS, lease, result, status. From the first stored result to the last, with
/// workers that run already.
async fn noop_shards(place: &Place) -> Result<f64> {
    let job = place
        .apply(json!({
            "apiVersion": "hyperflow.dev/v1alpha1", "kind": "ShardJob", "metadata": {"name": "noop"},
            "spec": {
                "source": {"numbers": {"count": SHARDS}}, "task": {"noop": {}},
                "parallelism": 2, "workers": {"slots": 16}
            }
        }))
        .await?;
    let some = |status: &_| Some(shards(status).succeeded).filter(|succeeded| *succeeded > 0);
    let (first, _) = job.wait("results", LIMIT, some).await?;
    let start = Instant::now();
    job.complete(LIMIT).await?;
    Ok(f64::from(SHARDS - first) / start.elapsed().as_secs_f64())
}

/// Indexes a second of a Job that does nothing, from its creation to its completion, all pods at a time.
async fn indexed_job(place: &Place, image: &str) -> Result<f64> {
    let api: Api<IndexedJob> = Api::namespaced(place.cluster.client.clone(), &place.namespace);
    let restricted = json!({
        "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": true, "runAsUser": 65532,
        "seccompProfile": {"type": "RuntimeDefault"}
    });
    let job: IndexedJob = serde_json::from_value(json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "peer"},
        "spec": {
            "completionMode": "Indexed", "completions": INDEXES, "parallelism": INDEXES,
            "template": {"spec": {
                "restartPolicy": "Never", "automountServiceAccountToken": false,
                "containers": [{
                    "name": "nothing", "image": image, "imagePullPolicy": "IfNotPresent", "args": ["--version"],
                    "securityContext": restricted
                }]
            }}
        }
    }))?;
    let start = Instant::now();
    let name = api.create(&PostParams::default(), &job).await?.name_any();
    while start.elapsed() < LIMIT {
        let succeeded = api.get(&name).await?.status.and_then(|status| status.succeeded).unwrap_or(0);
        if succeeded == INDEXES {
            return Ok(f64::from(INDEXES) / start.elapsed().as_secs_f64());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err("the Indexed Job did not end in five minutes".into())
}

/// Verified, durable bytes a second of our copy in parts, unthrottled, from the first lease to the last status.
async fn copy_file(place: &Place, input: &Path) -> Result<f64> {
    let copied = place.path("in/input");
    if fs::hard_link(input, &copied).is_err() {
        fs::copy(input, &copied)?;
    }
    let bytes = fs::metadata(&copied)?.len();
    let job = place
        .apply(json!({
            "apiVersion": "hyperflow.dev/v1alpha1", "kind": "ShardJob", "metadata": {"name": "copy"},
            "spec": {
                "source": {"files": {"url": "file:///data/in/input", "boundary": "Byte", "bytesPerShard": "64Mi"}},
                "task": {"copy": {}}, "output": {"url": "file:///data/out/"}, "parallelism": 2,
                "workers": {
                    "slots": 2,
                    "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
                    "volumeMounts": [{"name": "data", "mountPath": "/data"}]
                }
            }
        }))
        .await?;
    let leased = |status: &_| (shards(status).active > 0 || has(status, "Complete")).then_some(());
    job.wait("a lease", LIMIT, leased).await?;
    let start = Instant::now();
    job.complete(LIMIT).await?;
    let seconds = start.elapsed().as_secs_f64();
    let found = oracle::checksum(&oracle::parts(&place.path("out"))?)?;
    ensure(found == oracle::checksum(&[copied])?, || "the copy differs from its input".into())?;
    Ok(bytes as f64 / 1e9 / seconds)
}

/// What people do without us: neither resumable nor verified.
fn cp_and_sync(input: &Path, output: &Path) -> Result<f64> {
    let bytes = fs::metadata(input)?.len();
    let start = Instant::now();
    let copied = Command::new("cp").arg(input).arg(output).status()?;
    let synced = Command::new("sync").arg(output).status()?;
    let seconds = start.elapsed().as_secs_f64();
    ensure(copied.success() && synced.success(), || "cp or sync failed".into())?;
    fs::remove_file(output)?;
    Ok(bytes as f64 / 1e9 / seconds)
}

fn report(rows: &[Row]) -> Result {
    let mut lines = fs::File::create("bench.jsonl")?;
    println!("\n{:<14}{:>14} {:<9}{:>12} {:<14}{:>9}{:>9}", "row", "ours", "", "peer", "", "ratio", "reach");
    for row in rows {
        let (ours, peer) = (median(&row.ours), median(&row.peer));
        let ratio = ours / peer;
        let missed = if ratio < row.reach { "  MISSED" } else { "" };
        println!(
            "{:<14}{ours:>14.2} {:<9}{peer:>12.2} {:<14}{ratio:>9.2}{:>9.1}{missed}",
            row.name, row.unit, row.peer_name, row.reach
        );
        println!("{:<14}ours {:.2?}, {} {:.2?}", "  runs", row.ours, row.peer_name, row.peer);
        let line = json!({
            "name": row.name, "unit": row.unit, "ours": ours, "peer": peer, "peer_name": row.peer_name,
            "ratio": ratio, "reach": row.reach, "runs": row.ours.len()
        });
        writeln!(lines, "{line}")?;
    }
    Ok(())
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
