//! What all rows share: the cluster, the input, and whose turn it is.

use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use hyperflow_e2e::{
    Result,
    cluster::{Cluster, Place},
    diagnosis::diagnose,
    ensure,
    fault::finally,
    oracle,
};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::ListParams};

const MIB: usize = 1 << 20;
/// The input is made in pieces of so much.
const PIECE: usize = 64 * MIB;
/// Pods that take longer to end are not waited for: a peer's may have no handler for SIGTERM.
const GONE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(200);
/// After a sync the disk may still be freeing what was removed.
const REST: Duration = Duration::from_secs(1);

/// What all rows share.
pub struct Bench {
    /// The cluster.
    pub cluster: Cluster,
    /// Number of this run, from 1.
    pub run: usize,
    /// Where inputs are kept from one benchmark to the next.
    kept: PathBuf,
}

/// A file to copy, and what its bytes sum to.
#[derive(Clone, Debug)]
pub struct Input {
    /// Where it is kept.
    pub path: PathBuf,
    /// How long it is.
    pub bytes: u64,
    /// Its CRC-32C.
    pub crc32c: u64,
}

impl Bench {
    /// Reaches the cluster.
    pub async fn begin(kept: PathBuf) -> Result<Self> {
        Ok(Self { cluster: Cluster::connect().await?, run: 0, kept })
    }

    /// Acts in a namespace and a volume of its own, and removes them whatever came of it: gigabytes would stay.
    pub async fn within<T>(&self, act: impl AsyncFnOnce(&Place) -> Result<T>) -> Result<T> {
        let place = self.cluster.place("bench").await?;
        let acted = match Box::pin(act(&place)).await {
            Ok(value) => Ok(value),
            Err(error) => Err(format!("{error}\n{}", diagnose(&place).await).into()),
        };
        let pods: Api<Pod> = Api::namespaced(self.cluster.client.clone(), &place.namespace);
        let remove = async {
            place.remove().await?;
            // Pods that are on their way out would take their share of what is measured next.
            let start = Instant::now();
            while start.elapsed() < GONE && !pods.list(&ListParams::default()).await?.items.is_empty() {
                tokio::time::sleep(LOOK).await;
            }
            Ok(())
        };
        finally(async { acted }, remove).await
    }

    /// Ours and the peer's, one after the other. Who begins changes from run to run: what is left of one (dirty pages, a
    /// warm disk) then meets both alike.
    pub async fn in_turn<A, B>(&self, ours: impl Future<Output = A>, peer: impl Future<Output = B>) -> (A, B) {
        // A whole measurement is large, and would be part of every future that it is in.
        let (ours, peer) = (Box::pin(ours), Box::pin(peer));
        if self.run.is_multiple_of(2) {
            let peer = peer.await;
            (ours.await, peer)
        } else {
            let ours = ours.await;
            (ours, peer.await)
        }
    }

    /// The input of so many MiB, made when it is not there, and in the page cache: neither side reads the disk.
    pub fn input(&self, mebibytes: usize) -> Result<Input> {
        let path = self.kept.join(format!("bench-input-{mebibytes}"));
        if fs::metadata(&path).map(|found| found.len()).ok() != Some((mebibytes * MIB) as u64) {
            println!("making an input of {mebibytes} MiB as {}", path.display());
            make(&path, mebibytes)?;
        }
        let (crc32c, bytes) = oracle::checksum(std::slice::from_ref(&path))?;
        Ok(Input { path, bytes, crc32c })
    }
}

impl Input {
    /// Puts it into a volume, as `in/input`. Only its link is new: the pages are those that the peer reads.
    pub fn provide(&self, place: &Place) -> Result<PathBuf> {
        let inside = place.path("in/input");
        if fs::hard_link(&self.path, &inside).is_err() {
            fs::copy(&self.path, &inside)?;
        }
        Ok(inside)
    }
}

/// Repeats nothing, so that no layer below can save anything; written aside, because half an input is none.
fn make(path: &Path, mebibytes: usize) -> Result {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let aside = path.with_extension("part");
    let mut file = fs::File::create(&aside).map_err(|error| format!("{}: {error}", aside.display()))?;
    let mut left = mebibytes * MIB;
    for seed in 0.. {
        let bytes = left.min(PIECE);
        if bytes == 0 {
            break;
        }
        file.write_all(&oracle::noise(bytes, seed))?;
        left -= bytes;
    }
    file.sync_all()?;
    fs::rename(&aside, path)?;
    Ok(())
}

/// Nothing of what went before is still on its way to the disk, and the input is in memory.
pub async fn settle(input: &Input) -> Result {
    ensure(Command::new("sync").status()?.success(), || "sync failed".into())?;
    let mut file = fs::File::open(&input.path)?;
    let mut buffer = vec![0; MIB];
    while file.read(&mut buffer)? > 0 {}
    tokio::time::sleep(REST).await;
    Ok(())
}

/// All result files beneath an output folder, but for ours.
pub fn results(output: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in oracle::parts(output)? {
        if fs::metadata(&path)?.is_dir() {
            found.extend(results(&path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}
