//! Deletes the object of a job that ended so long ago as `spec.ttlSecondsAfterFinished` says. Results stay.

use std::time::Duration;

use hyperflow_api::ShardJob;
use hyperflow_core::{
    expiry::{Expiry, expiry},
    rerun,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Preconditions},
    runtime::controller::Action,
};
use tracing::info;

use crate::{
    client::{CallError, call},
    clock,
};

/// The pause before another look at an object that is newer than the cache.
const SOON: Duration = Duration::from_secs(1);
/// The longest pause: what is years away needs no timer.
const LONGEST: Duration = Duration::from_secs(3600);

/// When a job for which there is nothing else to do gets its next turn. One whose time is over is deleted.
///
/// # Errors
/// When it was not deleted, or nobody knows.
pub async fn mind(client: &Client, job: &ShardJob) -> Result<Action, CallError> {
    if job.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let status = job.status.clone().unwrap_or_default();
    // A job that is to run again has not come to its end.
    let ttl = job.spec.ttl_seconds_after_finished.filter(|_| !rerun::is_asked(&job.spec, &status));
    match expiry(clock::now(), &status, job.metadata.generation.unwrap_or(0), ttl) {
        Expiry::Never => Ok(Action::await_change()),
        Expiry::NotEnded => Ok(Action::requeue(SOON)),
        Expiry::In(seconds) => Ok(Action::requeue(LONGEST.min(Duration::from_secs(seconds)))),
        Expiry::Over => delete(client, job).await,
    }
}

/// Only that very object, as it was seen: somebody may just have given it more time.
async fn delete(client: &Client, job: &ShardJob) -> Result<Action, CallError> {
    let (namespace, name) = (job.namespace().unwrap_or_default(), job.name_any());
    let preconditions = Preconditions { uid: job.uid(), resource_version: job.resource_version() };
    let params = DeleteParams::background().preconditions(preconditions);
    let api: Api<ShardJob> = Api::namespaced(client.clone(), &namespace);
    match call("delete shardjob", &name, api.delete(&name, &params)).await {
        Ok(_) => {
            info!(namespace, job = name, "deleted a job whose time after its end is over");
            Ok(Action::await_change())
        }
        Err(error) if error.is_not_found() => Ok(Action::await_change()),
        Err(error) if error.is_conflict() => Ok(Action::requeue(SOON)),
        Err(error) => Err(error),
    }
}
