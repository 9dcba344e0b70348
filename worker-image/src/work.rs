//! What every attempt of this process works with: the job as checked, where its files are, the plan, the limit on bytes.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use hyperflow_api::{
    ids::WorkerId,
    message::{FailureClass, PlanRef},
};
use hyperflow_core::{
    job::{Brief, Job, Output, Refusal, file_path},
    layout::Layout,
    pacing::Pace,
    plan::Plan,
};

use crate::{
    attempt::Attempt,
    fault::{self, Fault},
    metrics::Metrics,
    records::Records,
};

/// Longest sleep before an attempt looks whether it was told to stop.
const NAP: Duration = Duration::from_millis(100);
/// Most bytes read at a time.
const CHUNK: u64 = 1 << 20;
/// Fewest bytes read at a time, however low the limit.
const LEAST_CHUNK: u64 = 4 << 10;

/// Shared by all attempts.
#[derive(Debug)]
pub struct Work {
    /// The job as the operator sent it.
    pub brief: Brief,
    /// The same, checked.
    pub job: Job,
    /// Names of our files, relative to the output directory.
    pub layout: Layout,
    /// This process.
    pub worker: WorkerId,
    /// The node it runs on.
    pub node: String,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Who published what (P9).
    pub records: Arc<Records>,
    pace: Option<Mutex<Pace>>,
    started: Instant,
    plan: Mutex<PlanInForce>,
}

#[derive(Debug, Default)]
struct PlanInForce {
    wanted: Option<PlanRef>,
    read: Option<Arc<Plan>>,
}

impl Work {
    /// Checks the job, as the operator did.
    pub fn new(
        brief: Brief,
        worker: WorkerId,
        node: String,
        metrics: Arc<Metrics>,
        records: Arc<Records>,
    ) -> Result<Self, Refusal> {
        let job = Job::check(&brief.spec)?;
        Ok(Self {
            layout: Layout::new(&brief.uid),
            pace: job.bytes_per_second.map(|limit| Mutex::new(Pace::new(limit))),
            started: Instant::now(),
            plan: Mutex::default(),
            brief,
            job,
            worker,
            node,
            metrics,
            records,
        })
    }

    /// Uses this plan from now on.
    pub fn use_plan(&self, plan: PlanRef) {
        let mut force = locked(&self.plan);
        if force.wanted.as_ref() != Some(&plan) {
            *force = PlanInForce { wanted: Some(plan), read: None };
        }
    }

    /// The plan in force and its digest, read from `root` the first time.
    pub fn plan(&self, root: &Path) -> Result<(Arc<Plan>, String), Fault> {
        let mut force = locked(&self.plan);
        let Some(PlanRef { digest, .. }) = force.wanted.clone() else {
            let message = "a shard was leased before the plan was known".into();
            return Err(fault::try_again(FailureClass::WorkerLost, "PlanUnknown", message));
        };
        if let Some(plan) = &force.read {
            return Ok((plan.clone(), digest));
        }
        let path = root.join(self.layout.plan());
        let bytes = fs::read(&path).map_err(fault::output("read the plan", &path))?;
        let plan = Plan::decode(&bytes, Some(&digest)).map_err(|error| {
            let message = format!("'{}' is not the plan that was made: {error}. Create a new ShardJob", path.display());
            fault::end_job(FailureClass::Store, "PlanDamaged", message)
        })?;
        let plan = Arc::new(plan);
        force.read = Some(plan.clone());
        Ok((plan, digest))
    }

    /// The job's output, of which a task that works on files has one.
    pub fn output(&self) -> Result<(&Output, &Path), Fault> {
        let output = self.job.output.as_ref();
        output.and_then(|output| Some((output, Path::new(file_path(&output.url)?)))).ok_or_else(|| {
            let message = "a lease needs `spec.output`, and the job has none".into();
            fault::end_job(FailureClass::Store, "NoOutput", message)
        })
    }

    /// How many bytes to read at a time: fewer under a low limit, so that progress is seen and a stop is noticed.
    pub fn chunk(&self) -> usize {
        let chunk = self.job.bytes_per_second.map_or(CHUNK, |limit| (limit / 10).clamp(LEAST_CHUNK, CHUNK));
        usize::try_from(chunk).unwrap_or(1 << 20)
    }

    /// Waits until `bytes` may be read or written, all attempts of this worker together.
    pub fn pace(&self, bytes: u64, attempt: &Attempt) -> Result<(), Fault> {
        attempt.go_on()?;
        let Some(pace) = &self.pace else { return Ok(()) };
        let now = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let nanos = locked(pace).reserve(now, bytes);
        let until = Instant::now() + Duration::from_nanos(nanos);
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            thread::sleep(left.min(NAP));
            attempt.go_on()?;
        }
        Ok(())
    }

    /// Where `path` really is, if that is on a volume of the job: a link out of it would read or write what is not the
    /// job's.
    pub fn on_volume(&self, class: FailureClass, path: &Path) -> Result<PathBuf, Fault> {
        let real = fs::canonicalize(path).map_err(|error| match class {
            FailureClass::BadInput => fault::input("find", path)(error),
            _ => fault::output("find", path)(error),
        })?;
        let mounts = &self.brief.spec.workers.volume_mounts;
        if mounts
            .iter()
            .filter_map(|mount| fs::canonicalize(&mount.mount_path).ok())
            .any(|mount| real.starts_with(mount))
        {
            return Ok(real);
        }
        let message = format!(
            "'{}' leads to '{}', which is not under the `mountPath` of an entry in `spec.workers.volumeMounts`. \
             Mount the volume it is on, or choose another path",
            path.display(),
            real.display()
        );
        Err(fault::end_job(class, "OutsideVolumes", message))
    }
}

/// A lock whose holder panicked is still good: what it guards is replaced whole, never half.
pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
