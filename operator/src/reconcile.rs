//! One turn for one job, as a table of contents.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use hyperflow_api::ShardJob;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Client,
    runtime::{controller::Action, reflector::Store},
};
use tokio::sync::watch;

use crate::{
    apply::{self, ApplyError, Plan},
    authority::Authority,
    build::{self, Owner},
    client::CallError,
    desks::{Desks, Opening},
    expire, finalizer,
    handle::HandleError,
    health::Health,
    observe, report,
    settings::Settings,
};

/// A job is looked at so often even if nothing happens: what a watch has missed is found then.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// The pause before pods that the API server did not want are asked for again: a quota may have room again.
const REFUSED: Duration = Duration::from_secs(30);
/// The pause while the cache of pods is being filled.
const CACHES: Duration = Duration::from_millis(100);

/// What a turn works with.
pub struct Context {
    /// Writes pods.
    pub client: Client,
    /// All worker pods.
    pub pods: Store<Pod>,
    /// Decide.
    pub desks: Arc<Desks>,
    /// Its certificate goes to workers.
    pub authority: Arc<Authority>,
    /// What pods are built by.
    pub settings: Settings,
    /// Whether this process leads.
    pub leading: watch::Receiver<bool>,
    /// Knows whether the caches are filled.
    pub health: Arc<Health>,
}

/// A turn that did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The desk is of no help.
    #[error("cannot decide")]
    Desk(#[from] HandleError),
    /// The pool is not what it should be.
    #[error("cannot apply what was decided")]
    Apply(#[from] ApplyError),
    /// What is wrong with the spec could not be said in the status.
    #[error("cannot refuse the job")]
    Refuse(#[source] CallError),
    /// The finalizer is still there.
    #[error("cannot let the job go")]
    Release(#[source] CallError),
    /// The job's time after its end is over, and the object is still there.
    #[error("cannot delete a job that has ended")]
    Expire(#[source] CallError),
    /// The turn took too long.
    #[error("cannot come to an end within {0}s")]
    Deadline(u64),
    /// The turn panicked.
    #[error("cannot go on after a panic: {0}")]
    Panic(String),
}

impl ReconcileError {
    /// For the metric's label.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Desk(error) => error.name(),
            Self::Apply(error) => error.name(),
            Self::Refuse(_) => "refuse",
            Self::Release(_) => "release",
            Self::Expire(_) => "expire",
            Self::Deadline(_) => "deadline",
            Self::Panic(_) => "panic",
        }
    }
}

/// Observes, has it decided, builds and applies. Followers only keep their caches warm.
///
/// # Errors
/// When a step failed; the job gets another turn soon.
pub async fn reconcile(job: &ShardJob, context: &Context) -> Result<Action, ReconcileError> {
    let Context { client, pods, desks, authority, settings, leading, health } = context;
    if !*leading.borrow() {
        return Ok(Action::await_change());
    }
    if !health.caches_synced.load(Ordering::Relaxed) {
        return Ok(Action::requeue(CACHES));
    }
    if !job.spec.is_ours() {
        return Ok(Action::await_change());
    }
    let Some(mut seen) = observe::job(job) else { return Ok(Action::await_change()) };
    seen.abandoned = seen.deleting && finalizer::is_abandoned(client, &seen.namespace).await;
    let pods = observe::pods(pods, &seen.namespace, &seen.uid);
    let desk = match desks.open(&seen, &pods).await? {
        Opening::Open(desk) => desk,
        Opening::Refused(job, status) if job.metadata.deletion_timestamp.is_none() => {
            report::refuse(client, &job, *status).await.map_err(ReconcileError::Refuse)?;
            // Whoever worked by an earlier spec stops.
            apply::clear(client, &seen.namespace, &pods).await?;
            return expire::mind(client, &job).await.map_err(ReconcileError::Expire);
        }
        Opening::Later(pause) => return Ok(Action::requeue(pause)),
        // Nobody is at work for it, and nobody will be: a job that is to go waits for nothing.
        Opening::Nothing | Opening::Refused(..) => {
            if seen.deleting {
                let removed = finalizer::remove(client, &seen.namespace, &seen.name, &seen.uid).await;
                removed.map_err(ReconcileError::Release)?;
            }
            return expire::mind(client, job).await.map_err(ReconcileError::Expire);
        }
    };
    let (name, namespace, uid) = (seen.name.clone(), seen.namespace.clone(), seen.uid.clone());
    let wanted = desk.look(seen, pods).await?;
    let owner = Owner { name: &name, namespace: &namespace, uid: &uid, spec: &job.spec };
    let plan = Plan::new(wanted, build::ca_config_map(&owner, authority.certificate()), |name, run| {
        build::pod(&owner, name, run, settings)
    });
    if let Some(refusal) = apply::apply(client, &namespace, &uid, plan).await? {
        desk.pod_refused(refusal).await?;
        return Ok(Action::requeue(REFUSED));
    }
    Ok(Action::requeue(LOOK_AGAIN))
}
