//! A disk in each node, which outlives pods: all workers go, and the source with them, and the next ones have the copies of the
//! last. Then a disk is lost: what was on it is copied again from the others. When the job is over no copy is left.

use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};

use hyperflow_api::status::BlockCounts;
use hyperflow_e2e::{
    Result,
    cluster::Place,
    command::run,
    ensure,
    fault::finally,
    job::{Job, whole_blocks},
    oracle,
    stores::Moved,
};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::{Value, json};

use super::{gated, open_gate};

const MIB: usize = 1 << 20;
const SHARDS: u32 = 24;
/// Until a disk that is away counts as lost, as the local cluster has it, and time to copy.
const LIMIT: Duration = Duration::from_secs(30 + 60);

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/hyperflow");

pub async fn keeps(place: &Place) -> Result {
    let cluster = &place.cluster;
    let (disks, path) = place.disks()?;
    let revision = cluster.revision("hyperflow").await?;
    let volume = format!("blocks.volume={}", json!({"hostPath": {"path": path, "type": "Directory"}}));
    // Pod Security `restricted`, which places have, knows no hostPath.
    let any = "pod-security.kubernetes.io/enforce=privileged";
    run("kubectl", &["label", "namespace", &place.namespace, any, "--overwrite"]).await?;
    let kept = async {
        cluster.helm(&["upgrade", "hyperflow", CHART, "--reset-then-reuse-values", "--set-json", &volume]).await?;
        on_disks(place, &disks).await
    };
    let as_it_was = async {
        disks.values().try_for_each(fs::remove_dir_all)?;
        cluster.helm(&["rollback", "hyperflow", &revision]).await?;
        cluster.mended().await
    };
    finally(kept, as_it_was).await
}

/// The administrator keeps blocks in these folders of the nodes.
async fn on_disks(place: &Place, disks: &BTreeMap<String, PathBuf>) -> Result {
    place.write_input("input", SHARDS as usize * MIB, 92)?;
    let job = place.apply(on_every_node(u32::try_from(disks.len())?)).await?;
    place.replicated(&job, SHARDS, 2, &[], LIMIT).await?;
    let (BlockCounts { kept_by, .. }, _) = job.wait("two copies of every group", LIMIT, whole_blocks).await?;
    ensure(kept_by == "Node", || format!("disks outlive pods, and status says that copies are kept by '{kept_by}'"))?;

    // Not removed: moved away, as when a file server is gone. Who calls first finds neither the source nor a copy.
    let away = place.path("away");
    fs::rename(place.path("in"), &away)?;
    let first = place.workers().await?;
    for worker in &first {
        place.cluster.delete(worker).await?;
    }
    let second = successors(place, &first, disks.len()).await?;
    let (Moved { copied, loaded, .. }, lost) = lose_a_disk(place, &job, disks, &second).await?;
    let mebibytes = |bytes: f64| bytes / MIB as f64;
    println!("     all workers went, and a disk with {:.1} MiB: {:.1} MiB copied", mebibytes(lost), mebibytes(copied));
    ensure((copied - lost).abs() < 0.5 * MIB as f64, || {
        format!("{copied} bytes were copied for {lost} that were lost")
    })?;
    ensure(loaded < 0.5 * MIB as f64, || format!("{loaded} bytes of copies were read from the source"))?;

    open_gate(place)?;
    job.complete(LIMIT).await?;
    oracle::check_copy(&away.join("input"), &place.path("out"), SHARDS)?;
    is_gone(&job, disks).await
}

/// Empties a disk, and its worker goes. What was moved since the workers before were deleted, when every block has
/// two copies again; and bytes that were on the disk.
async fn lose_a_disk(
    place: &Place,
    job: &Job,
    disks: &BTreeMap<String, PathBuf>,
    workers: &[Pod],
) -> Result<(Moved, f64)> {
    let victim = workers.first().ok_or("no worker")?;
    let node = victim.spec.as_ref().and_then(|spec| spec.node_name.clone()).ok_or("a worker without a node")?;
    let all = place.replicas(job).await?;
    let lost: u64 = all.iter().filter(|replica| replica.node == node).map(|replica| replica.bytes).sum();
    ensure(lost > 0, || format!("there was nothing on the disk of {node}"))?;
    for entry in fs::read_dir(&disks[&node])? {
        let path = entry?.path();
        if path.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
    }
    place.cluster.delete(victim).await?;
    successors(place, std::slice::from_ref(victim), disks.len()).await?;
    place.replicated(job, SHARDS, 2, &[], LIMIT).await?;
    // Whatever else is on its way gets the time to arrive.
    tokio::time::sleep(Duration::from_secs(3)).await;
    Ok((place.block_bytes().await?, lost as f64))
}

/// The workers, when there are so many nodes with one, none of them one of these, and each can be asked.
async fn successors(place: &Place, gone: &[Pod], count: usize) -> Result<Vec<Pod>> {
    let next = async {
        loop {
            let workers = place.workers().await?;
            let new = workers.iter().all(|pod| gone.iter().all(|gone| gone.uid() != pod.uid()));
            if new && place.loaded_by_node().await.is_ok_and(|nodes| nodes.len() == count) {
                return Ok::<_, hyperflow_e2e::Error>(workers);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(LIMIT, next).await.map_err(|_| format!("there were no other workers in {LIMIT:?}"))?
}

async fn is_gone(job: &Job, disks: &BTreeMap<String, PathBuf>) -> Result {
    let uid = job.get().await?.uid().ok_or("a job without UID")?;
    let gone = async {
        while disks.values().any(|disk| disk.join(&uid).exists()) {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    };
    let left = || disks.values().filter(|disk| disk.join(&uid).exists()).collect::<Vec<_>>();
    tokio::time::timeout(LIMIT, gone)
        .await
        .map_err(|_| format!("copies are left of a job that is over: {:?}", left()).into())
}

/// A worker on each node.
fn on_every_node(workers: u32) -> Value {
    let mut manifest = gated("disks", workers, 2);
    manifest["spec"]["workers"]["topologySpreadConstraints"] = json!([{
        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app.kubernetes.io/name": "hyperflow-worker"}},
        "matchLabelKeys": ["hyperflow.dev/shardjob-uid"]
    }]);
    manifest
}
