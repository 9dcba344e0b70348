//! What every attempt of this process works with: the job as checked, where its files are, the plan, the limit on bytes.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use hyperflow_api::{
    ids::{JobUid, WorkerId},
    message::{FailureClass, PlanRef},
};
use hyperflow_core::{
    job::{Brief, Job, Refusal},
    layout::Layout,
    pacing::Pace,
    paths::file_path,
};

use crate::{
    attempt::Attempt,
    blocks::{Keeper, error::BlockError},
    exec::{ear, find::Found, scratch::Spare, slot},
    fault::{self, Fault},
    metrics::Metrics,
    plan_file::PlanFile,
    records::Records,
    store,
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
    /// Names of our files, relative to the folders in [`Places`].
    pub layout: Layout,
    /// This process.
    pub worker: WorkerId,
    /// The node it runs on.
    pub node: String,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Who published what (P9).
    pub records: Arc<Records>,
    /// Directories for programs.
    pub scratch: Spare,
    /// Pipes for their stderr.
    pub ears: ear::Spare,
    /// Where they are.
    pub found: Found,
    /// Programs that live for many shards.
    pub slots: slot::Pool,
    keeper: Option<Arc<Keeper>>,
    pace: Option<Mutex<Pace>>,
    started: Instant,
    plan: Mutex<PlanInForce>,
    commits: Mutex<Option<Layout>>,
    opened: Mutex<bool>,
}

#[derive(Debug, Default)]
struct PlanInForce {
    wanted: Option<PlanRef>,
    read: Option<Arc<PlanFile>>,
}

/// Where a job's folders really are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// Results, if the job has any.
    pub output: Option<PathBuf>,
    /// Commits, staging and checkpoints, of all jobs with this output.
    pub commits: PathBuf,
    /// Plans, records and reports.
    pub records: PathBuf,
}

/// The path of a `file://` URL of a directory.
pub fn directory(url: &str) -> &Path {
    Path::new(file_path(url).unwrap_or(url))
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
            layout: Layout::new(&brief.uid).in_run(brief.run, job.names_runs()),
            pace: job.bytes_per_second.map(|limit| Mutex::new(Pace::new(limit))),
            keeper: None,
            started: Instant::now(),
            plan: Mutex::default(),
            scratch: Spare::default(),
            ears: ear::Spare::default(),
            found: Found::default(),
            commits: Mutex::default(),
            slots: slot::Pool::default(),
            opened: Mutex::default(),
            brief,
            job,
            worker,
            node,
            metrics,
            records,
        })
    }

    /// The same, whose tasks may read blocks.
    pub fn with_keeper(self, keeper: Option<Arc<Keeper>>) -> Self {
        Self { keeper, ..self }
    }

    /// Who keeps blocks of this job, if the job has any and this worker keeps them.
    pub fn keeper(&self) -> Option<&Arc<Keeper>> {
        self.keeper.as_ref().filter(|_| self.job.blocks.is_some())
    }

    /// Uses this plan from now on.
    pub fn use_plan(&self, plan: PlanRef) {
        let mut force = locked(&self.plan);
        if force.wanted.as_ref() != Some(&plan) {
            *force = PlanInForce { wanted: Some(plan), read: None };
        }
    }

    /// The plan in force, read the first time.
    pub fn plan(&self, places: &Places) -> Result<Arc<PlanFile>, Fault> {
        let mut force = locked(&self.plan);
        let Some(PlanRef { digest, .. }) = force.wanted.clone() else {
            let message = "a shard was leased before the plan was known".into();
            return Err(fault::try_again(FailureClass::WorkerLost, "PlanUnknown", message));
        };
        if let Some(plan) = &force.read {
            return Ok(plan.clone());
        }
        let plan = Arc::new(PlanFile::open(&places.records.join(self.layout.plan()), Some(&digest))?);
        force.read = Some(plan.clone());
        Ok(plan)
    }

    /// The same, wherever the job's files are.
    pub fn plan_in_force(&self) -> Result<Arc<PlanFile>, Fault> {
        if let Some(plan) = &locked(&self.plan).read {
            return Ok(plan.clone());
        }
        self.plan(&self.places()?)
    }

    /// Where the job's files really are, once its folders are made.
    pub fn places(&self) -> Result<Places, Fault> {
        let real = |path: &Path| self.on_volume(FailureClass::Store, path);
        let output = self.job.output.as_ref().map(|output| real(directory(&output.url))).transpose()?;
        let (commits, records) = (self.commits_directory()?, self.records_directory()?);
        Ok(Places { output, commits: real(&commits)?, records: real(&records)? })
    }

    /// Directory of commits, as the user wrote it: it need not be there yet.
    pub fn commits_directory(&self) -> Result<PathBuf, Fault> {
        self.job.commits_folder().map(|url| directory(&url).into()).ok_or_else(no_place)
    }

    /// Directory of plans and records, as the user wrote it: it need not be there yet.
    pub fn records_directory(&self) -> Result<PathBuf, Fault> {
        self.job.records_folder().map(|url| directory(&url).into()).ok_or_else(no_place)
    }

    /// URL of a file of ours beside the plan, by its name in the layout.
    pub fn records_url(&self, name: &str) -> String {
        format!("{}{name}", self.job.records_folder().unwrap_or_default())
    }

    /// Names of files of another job, in this one's run.
    pub fn layout_of(&self, owner: &JobUid) -> Layout {
        Layout::new(owner).in_run(self.brief.run, self.job.names_runs())
    }

    /// Makes the folders of a run after the first: the plan is made once, and a sweep took the first run's away. A process
    /// makes them once, so that it does not make again what a sweep of its own run has renamed (P24).
    pub fn open_run(&self, places: &Places) -> Result<(), Fault> {
        let mut opened = locked(&self.opened);
        if self.brief.run > 1 && !*opened {
            for name in self.layout.temporary() {
                store::make_folders(&places.commits.join(self.layout.root()).join(name))?;
            }
        }
        *opened = true;
        Ok(())
    }

    /// Remembers under which job's folder commits are: the first owner of the names (P31).
    pub fn commit_under(&self, owner: &JobUid) {
        *locked(&self.commits) = Some(self.layout_of(owner));
    }

    /// The layout of the folder with the commits, if it is known.
    pub fn commits(&self) -> Option<Layout> {
        locked(&self.commits).clone()
    }

    /// How many bytes to read at a time: fewer under a low limit, so that progress is seen and a stop is noticed.
    pub fn chunk(&self) -> usize {
        let chunk = self.job.bytes_per_second.map_or(CHUNK, |limit| (limit / 10).clamp(LEAST_CHUNK, CHUNK));
        // Whole pages, which can be written directly.
        let chunk = chunk - chunk % LEAST_CHUNK;
        usize::try_from(chunk).unwrap_or(1 << 20)
    }

    /// Waits until `bytes` may be read or written, all attempts of this worker together.
    pub fn pace(&self, bytes: u64, attempt: &Attempt) -> Result<(), Fault> {
        self.pace_while(bytes, &|| attempt.go_on())
    }

    /// The same for blocks that are loaded.
    pub fn pace_load(&self, bytes: u64, go_on: &dyn Fn() -> Result<(), BlockError>) -> Result<(), BlockError> {
        self.pace_while(bytes, go_on)
    }

    fn pace_while<E>(&self, bytes: u64, go_on: &dyn Fn() -> Result<(), E>) -> Result<(), E> {
        go_on()?;
        let Some(pace) = &self.pace else { return Ok(()) };
        let now = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let nanos = locked(pace).reserve(now, bytes);
        let until = Instant::now() + Duration::from_nanos(nanos);
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            thread::sleep(left.min(NAP));
            go_on()?;
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

fn no_place() -> Fault {
    let message = "a lease needs `spec.output` or `spec.records`, and the job has neither".into();
    fault::end_job(FailureClass::Store, "NoOutput", message)
}

/// A lock whose holder panicked is still good: what it guards is replaced whole, never half.
pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
