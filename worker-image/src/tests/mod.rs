//! Attempts on a real file system, without a session.

mod calling;
mod copying;
mod finally;
mod planning;
mod programs;
mod running;
mod slots;
mod speaking;
mod tasks;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use hyperflow_api::{
    ids::{Epoch, JobUid, ShardIndex, Takeover, WorkerId},
    message::{Checkpoint, Failure, FailureClass, Grant, PlanRef, Planned, Published, StoredReport, Target},
};
use hyperflow_core::{
    job::Brief,
    worker::{Assignment, Event, Outcome, RunId},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::{
    attempt::{Attempt, StopFlag},
    fault::Fault,
    planner, shard, sweep,
    work::Work,
};

pub const MIB: usize = 1 << 20;

/// A volume with an input file on it, and a job that copies it.
pub struct Volume {
    folder: TempDir,
    pub uid: &'static str,
    pub spec: Value,
}

/// An attempt, and what it says.
pub struct Started {
    pub attempt: Attempt,
    pub stop: Arc<StopFlag>,
    pub reports: mpsc::Receiver<Event>,
}

impl Volume {
    pub fn new(input: &[u8], bytes_per_shard: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().display();
        let spec = json!({
            "source": {"files": {
                "url": format!("file://{at}/in/data"), "boundary": "Byte", "bytesPerShard": bytes_per_shard
            }},
            "task": {"copy": {}},
            "output": {"url": format!("file://{at}/out/")},
            "checkpoint": {"periodSeconds": 3600, "bytes": "1Mi"},
            "workers": {
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
                "volumeMounts": [{"name": "data", "mountPath": folder.path()}]
            }
        });
        fs::create_dir(folder.path().join("in")).unwrap();
        fs::write(folder.path().join("in/data"), input).unwrap();
        Self { folder, uid: "5b1e0c44-0000-4000-8000-000000000001", spec }
    }

    /// Slow enough for a test to act while a shard is copied.
    pub fn slow(mut self) -> Self {
        self.spec["workers"]["bytesPerSecond"] = json!("40M");
        self
    }

    pub fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join(relative)
    }

    pub fn own(&self, relative: &str) -> PathBuf {
        self.path("out/_hyperflow").join(self.uid).join(relative)
    }

    pub fn brief(&self) -> Brief {
        let spec = serde_json::from_value(self.spec.clone()).unwrap();
        Brief { uid: JobUid(self.uid.into()), namespace: "default".into(), name: "copy".into(), run: 1, spec }
    }

    /// What a worker process has.
    pub fn work(&self, nonce: u64) -> Work {
        let worker = WorkerId { pod_uid: "0d1f3c2a-0000-4000-8000-000000000000".into(), nonce };
        Work::new(self.brief(), worker, "node-a".into(), Arc::default(), Arc::default()).unwrap()
    }

    /// A worker process that knows the plan.
    pub fn planned(&self, nonce: u64) -> Work {
        let work = self.work(nonce);
        let Planned { shards, digest, .. } = plan(&work).unwrap();
        work.use_plan(PlanRef { shards, digest });
        work
    }

    pub fn records(&self) -> Vec<Value> {
        let mut records = Vec::new();
        for entry in fs::read_dir(self.own("records")).unwrap() {
            let text = fs::read_to_string(entry.unwrap().path()).unwrap();
            records.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
        }
        records
    }
}

pub fn epoch(sequence: u64) -> Epoch {
    Epoch { takeover: Takeover { term: 1, random: 0xaa }, sequence }
}

pub fn start(target: Target, sequence: u64, resume: Option<Checkpoint>) -> Started {
    let (sender, reports) = mpsc::channel(4096);
    let stop = Arc::new(StopFlag::default());
    let grant = Grant {
        target,
        epoch: epoch(sequence),
        attempt: 1,
        replaces: None,
        probe: target == Target::Sweep,
        resume,
        heir_of: None,
    };
    let attempt = Attempt::new(Assignment { run: RunId(sequence), grant }, stop.clone(), sender);
    Started { attempt, stop, reports }
}

pub fn plan(work: &Work) -> Result<Planned, Fault> {
    match planner::run(work, &start(Target::Plan, 1, None).attempt)? {
        Outcome::Planned(planned) => Ok(planned),
        other => panic!("{other:?}"),
    }
}

pub fn sweep(work: &Work) -> Result<Option<StoredReport>, Fault> {
    sweep::run(work, &start(Target::Sweep, 9000, None).attempt)
}

/// Copies a shard in one go.
pub fn run(work: &Work, index: ShardIndex, sequence: u64, resume: Option<Checkpoint>) -> Result<Published, Fault> {
    shard::run(work, &start(Target::Shard(index), sequence, resume).attempt, index)
}

pub fn refused<T: std::fmt::Debug>(result: Result<T, Fault>) -> Failure {
    match result.unwrap_err().outcome() {
        Outcome::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

/// Bytes without a pattern that a wrong offset could match.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

pub fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
