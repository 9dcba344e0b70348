//! Blocks as they lie on the nodes' disks: looked at, and spoiled, from outside.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, Permissions},
    io::{Read, Seek, SeekFrom, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    ResourceExt,
    api::{ListParams, Request},
};

use crate::{Result, cluster::Place, control::Counts, ensure, job::Job};

/// How often the disks are looked at.
const LOOK: Duration = Duration::from_millis(300);
/// The header of a replica, before its data.
const HEADER: u64 = 64;

/// A replica of a block.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Replica {
    /// The node it is on.
    pub node: String,
    /// Of which shard.
    pub shard: u32,
    /// Which of the shard's.
    pub part: u32,
    /// As its name says.
    pub version: String,
    /// The file.
    pub path: PathBuf,
    /// Bytes of data.
    pub bytes: u64,
}

impl Replica {
    fn read(node: &str, path: &Path) -> Option<Self> {
        let mut parts = path.file_name()?.to_str()?.split('.');
        let (shard, part) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let version = parts.next().filter(|version| version.len() == 16)?.to_owned();
        if parts.next().is_some() {
            return None;
        }
        let bytes = fs::metadata(path).ok()?.len().checked_sub(HEADER)?;
        Some(Self { node: node.into(), shard, part, version, path: path.into(), bytes })
    }

    /// Flips a bit of its data, as a disk may.
    ///
    /// # Errors
    /// When the file is not there.
    pub fn flip_a_bit(&self) -> Result {
        let mut file = fs::OpenOptions::new().read(true).write(true).open(&self.path)?;
        let place = SeekFrom::Start(HEADER + self.bytes / 2);
        let mut byte = [0];
        file.seek(place)?;
        file.read_exact(&mut byte)?;
        file.seek(place)?;
        file.write_all(&[byte[0] ^ 0x10])?;
        file.sync_all()?;
        Ok(())
    }

    /// Gives it the name of another version, as if it were a copy of what the input was before.
    ///
    /// # Errors
    /// When the file is not there.
    pub fn make_stale(&self) -> Result {
        let name = format!("{}.{}.{:016x}", self.shard, self.part, 0x5741_1e00_u64);
        fs::rename(&self.path, self.path.with_file_name(name))?;
        Ok(())
    }
}

impl Place {
    /// The replicas of a job's blocks on all nodes, on their disks and in emptyDir volumes of the job's pods.
    ///
    /// # Errors
    /// When the nodes are not on this machine.
    pub async fn replicas(&self, job: &Job) -> Result<Vec<Replica>> {
        let uid = job.get().await?.uid().ok_or("a job without UID")?;
        let mut found = Vec::new();
        for (name, node) in nodes() {
            let pods = folders(&node.join("kubelet/pods")).into_iter();
            let volumes = pods.flat_map(|pod| folders(&pod.join("volumes/kubernetes.io~empty-dir")));
            for group in volumes.chain(folders(&node.join("disk"))).flat_map(|store| folders(&store.join(&uid))) {
                let files = fs::read_dir(&group).into_iter().flatten().flatten();
                found.extend(files.filter_map(|file| Replica::read(&name, &file.path())));
            }
        }
        Ok(found)
    }

    /// Makes a folder for this place on the disk of each node, which any user may write to. By node, where it is here; pods
    /// have it as the hostPath that is returned beside.
    ///
    /// # Errors
    /// When the nodes are not on this machine.
    pub fn disks(&self) -> Result<(BTreeMap<String, PathBuf>, String)> {
        let mut made = BTreeMap::new();
        for (name, node) in nodes() {
            let folder = node.join("disk").join(&self.namespace);
            fs::create_dir(&folder)?;
            fs::set_permissions(&folder, Permissions::from_mode(0o1777))?;
            made.insert(name, folder);
        }
        ensure(!made.is_empty(), || "no node is on this machine".into())?;
        Ok((made, format!("/var/lib/hyperflow/{}", self.namespace)))
    }

    /// Waits until each block of `shards` shards is on `copies` nodes, none of them in `without`; how long it took.
    ///
    /// # Errors
    /// After `limit`, with what is missing.
    pub async fn replicated(
        &self,
        job: &Job,
        shards: u32,
        copies: usize,
        without: &[String],
        limit: Duration,
    ) -> Result<Duration> {
        let start = Instant::now();
        loop {
            let on = nodes_of(&self.replicas(job).await?, without);
            let lacks: Vec<u32> = (0..shards).filter(|shard| on.get(shard).map_or(0, BTreeSet::len) < copies).collect();
            if lacks.is_empty() {
                return Ok(start.elapsed());
            }
            ensure(start.elapsed() < limit, || {
                format!("shards without {copies} copies of their blocks after {limit:?}: {lacks:?}; on disks: {on:?}")
            })?;
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Bytes of blocks that the job's workers have read since they started: sums by `(from, for)`. Those that are being deleted
    /// do not count any more, though they answer for a while.
    ///
    /// # Errors
    /// When the API server does not answer. A worker that cannot be asked is left out.
    pub async fn block_bytes(&self) -> Result<Moved> {
        let mut moved = Moved::default();
        for pod in self.workers().await? {
            if let Ok(counts) = self.worker_counts(&pod).await {
                moved.add(&counts);
            }
        }
        Ok(moved)
    }

    /// Bytes of blocks that workers have put into their stores since they started, by node.
    ///
    /// # Errors
    /// When one of them cannot be asked.
    pub async fn loaded_by_node(&self) -> Result<BTreeMap<String, f64>> {
        let mut loaded = BTreeMap::new();
        for pod in self.workers().await? {
            let mut moved = Moved::default();
            moved.add(&self.worker_counts(&pod).await?);
            let node = pod.spec.and_then(|spec| spec.node_name).unwrap_or_default();
            *loaded.entry(node).or_default() += moved.copied + moved.loaded;
        }
        Ok(loaded)
    }

    async fn worker_counts(&self, pod: &Pod) -> Result<Counts> {
        let path = format!("/api/v1/namespaces/{}/pods/{}:8080/proxy/metrics", self.namespace, pod.name_any());
        let request = Request::new(path).list(&ListParams::default())?;
        let asked = tokio::time::timeout(Duration::from_secs(3), self.cluster.client.request_text(request)).await;
        Ok(Counts::read(&asked.map_err(|_| format!("{} did not answer", pod.name_any()))??))
    }
}

/// Bytes of blocks, by where they came from.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moved {
    /// Read from the store of the same node, for tasks.
    pub local: f64,
    /// From another worker, for tasks.
    pub peer: f64,
    /// From the source, for tasks.
    pub source: f64,
    /// From another worker, into a store.
    pub copied: f64,
    /// From the source, into a store.
    pub loaded: f64,
}

impl Moved {
    fn add(&mut self, counts: &Counts) {
        let sum = |from: &str, purpose: &str| {
            let labels = [format!("from=\"{from}\""), format!("for=\"{purpose}\"")];
            counts.sum("hyperflow_worker_block_bytes_total", &[&labels[0], &labels[1]])
        };
        self.local += sum("local", "task");
        self.peer += sum("peer", "task");
        self.source += sum("source", "task");
        self.copied += sum("peer", "load");
        self.loaded += sum("source", "load");
    }

    /// What tasks read locally, of all they read.
    #[must_use]
    pub fn share_local(&self) -> f64 {
        self.local / (self.local + self.peer + self.source).max(1.0)
    }
}

/// Bytes that were put into stores between two looks, by node. The worker of the node that came back is another process, and
/// counts from nothing.
#[must_use]
pub fn loaded_since(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>, came_back: &str) -> f64 {
    let earlier = |node: &String| if node == came_back { 0.0 } else { before.get(node).copied().unwrap_or(0.0) };
    after.iter().map(|(node, bytes)| bytes - earlier(node)).sum()
}

/// The nodes that have blocks of each shard.
#[must_use]
pub fn nodes_of(replicas: &[Replica], without: &[String]) -> BTreeMap<u32, BTreeSet<String>> {
    let mut on: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
    for replica in replicas.iter().filter(|replica| !without.contains(&replica.node)) {
        on.entry(replica.shard).or_default().insert(replica.node.clone());
    }
    on
}

/// The nodes of the local cluster, and where it keeps each.
fn nodes() -> impl Iterator<Item = (String, PathBuf)> {
    let state = std::env::var("HYPERFLOW_CLUSTER_DIR").unwrap_or_else(|_| "/var/lib/hyperflow-cluster".into());
    let named = |node: PathBuf| (node.file_name().unwrap_or_default().to_string_lossy().into_owned(), node);
    folders(&Path::new(&state).join("nodes")).into_iter().map(named)
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}
