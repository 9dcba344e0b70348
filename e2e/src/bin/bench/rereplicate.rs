//! Bytes a second while the blocks of a lost store are copied again from the other nodes, beside rsync between the same
//! nodes, as many at a time. Ours are encrypted, checked and made durable; rsync's are made durable.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

use hyperflow_e2e::{Result, cluster::Place, ensure, stores::Replica};
use kube::{Api, api::DeleteParams};

use crate::{
    bench::{Bench, settle},
    ours, peers,
    row::{Of, Reach, Row, Sample},
};

static ROW: Row = Row { name: "rereplicate", unit: "MB/s", reach: Reach::Times(0.8), of: Of::Median };

const MEBIBYTES: usize = 768;
const SHARDS: u32 = 96;
const PORT: u16 = 8730;

pub async fn run(bench: &Bench) -> Result<Vec<Sample>> {
    let (mut note, mut peer) = (String::new(), Err("nothing was there to copy".into()));
    let ours = bench
        .within(async |place| {
            let (rate, copied) = lose_a_store(bench, place).await?;
            note = format!("{} replicas of 8 MiB", copied.len());
            peer = rsync(place, &copied);
            Ok(rate)
        })
        .await?;
    Ok(vec![Sample { row: &ROW, ours: vec![ours], peer: peers::measured("rsync --fsync, two at a time", peer), note }])
}

/// A pod goes, and with it the emptyDir with its store. What was copied then, and how fast.
async fn lose_a_store(bench: &Bench, place: &Place) -> Result<(f64, Vec<Replica>)> {
    let input = bench.input(MEBIBYTES)?;
    input.provide(place)?;
    let job = place.apply(ours::gated("8Mi", 3, Some(2))).await?;
    place.replicated(&job, SHARDS, 2, &[], ours::LIMIT).await?;
    settle(&input).await?;
    let before: BTreeSet<PathBuf> = place.replicas(&job).await?.into_iter().map(|replica| replica.path).collect();
    let victim = place.workers().await?.into_iter().next().ok_or("no worker")?;
    let name = victim.metadata.name.clone().unwrap_or_default();
    let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(place.cluster.client.clone(), &place.namespace);
    pods.delete(&name, &DeleteParams::default().grace_period(0)).await?;
    let uid = victim.metadata.uid.unwrap_or_default();
    let copied = loop {
        let now = place.replicas(&job).await?;
        let alive: Vec<Replica> =
            now.into_iter().filter(|replica| !replica.path.to_string_lossy().contains(&uid)).collect();
        let new: Vec<Replica> = alive.iter().filter(|replica| !before.contains(&replica.path)).cloned().collect();
        if alive.len() >= 2 * SHARDS as usize {
            break new;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    let (mut first, mut last) = (SystemTime::now(), SystemTime::UNIX_EPOCH);
    for replica in &copied {
        let found = fs::metadata(&replica.path)?;
        (first, last) = (first.min(found.created()?), last.max(found.modified()?));
    }
    let bytes: u64 = copied.iter().map(|replica| replica.bytes).sum();
    ensure(bytes > 0, || "nothing was copied".into())?;
    Ok((bytes as f64 / 1e6 / last.duration_since(first)?.as_secs_f64(), copied))
}

/// The same files from the first node to the second and the third, at the same time.
fn rsync(place: &Place, files: &[Replica]) -> Result<f64> {
    let program = peers::install("rsync")?;
    let (from, to) = (place.path("rsync-from"), place.path("rsync-to"));
    fs::create_dir_all(&from)?;
    let mut bytes = 0;
    for (number, file) in files.iter().enumerate() {
        let half = from.join((number % 2).to_string());
        fs::create_dir_all(&half)?;
        bytes += fs::copy(&file.path, half.join(number.to_string()))?;
    }
    ensure(Command::new("sync").status()?.success(), || "sync failed".into())?;
    let config = place.write("rsyncd.conf", daemon(&from).as_bytes())?;
    let mut server = in_node(1, &program)
        .args(["--daemon", "--no-detach", &format!("--port={PORT}"), &format!("--config={}", config.display())])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    std::thread::sleep(Duration::from_millis(300));
    let start = Instant::now();
    let copies: Vec<Child> = [2, 3]
        .into_iter()
        .map(|node| {
            let half = node - 2;
            in_node(node, &program)
                .args(["--archive", "--mkpath", "--fsync", "--inplace", "--whole-file"])
                .arg(format!("rsync://198.18.255.11:{PORT}/blocks/{half}/"))
                .arg(to.join(half.to_string()))
                .stdin(Stdio::null())
                .spawn()
        })
        .collect::<std::io::Result<_>>()?;
    let ended: Vec<bool> =
        copies.into_iter().map(|mut copy| copy.wait().is_ok_and(|status| status.success())).collect();
    let seconds = start.elapsed().as_secs_f64();
    server.kill()?;
    server.wait()?;
    ensure(ended.iter().all(|good| *good), || "rsync failed".into())?;
    Ok(bytes as f64 / 1e6 / seconds)
}

fn in_node(node: u32, program: &Path) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &format!("hf-node-{node}")]).arg(program);
    command
}

fn daemon(from: &Path) -> String {
    format!("use chroot = no\nuid = 0\ngid = 0\n[blocks]\npath = {}\nread only = yes\n", from.display())
}
