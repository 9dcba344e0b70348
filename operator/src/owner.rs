//! Whether the job that a claim on an output speaks of still exists (P31).

use hyperflow_api::{ShardJob, ids::JobUid, message::Owner};
use kube::{Api, Client, ResourceExt};
use tracing::warn;

use crate::{client::call, telemetry::chain};

/// Looks for it by its name, and knows it by its UID. None where nobody can say.
pub async fn lives(client: Client, owner: Owner) -> (JobUid, Option<bool>) {
    let Owner { uid, namespace, name } = owner;
    let api: Api<ShardJob> = Api::namespaced(client, &namespace);
    let lives = match call("get metadata of shardjob", &name, api.get_metadata_opt(&name)).await {
        Ok(found) => Some(found.is_some_and(|found| found.uid().as_deref() == Some(&uid.0))),
        Err(error) => {
            warn!(namespace, job = name, error = chain(&error), "nobody knows whether the owner of an output exists");
            None
        }
    };
    (uid, lives)
}
