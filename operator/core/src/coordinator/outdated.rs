//! Pods that were made of another `spec.workers`, or another program, than there is now. Those that work go on (P27); one that has never come
//! to that, and cannot, would stand in the way of the very change that was to help it.

use hyperflow_api::ShardJobSpec;

use super::{Coordinator, Pod};

/// Digest of what worker pods are made of: each pod carries it.
#[must_use]
pub fn workers_digest(spec: &ShardJobSpec) -> String {
    // What came from JSON can be written as JSON, and its maps are in order.
    let bytes = match &spec.blocks {
        None => serde_json::to_vec(&(&spec.workers, &spec.task.exec)),
        // How many copies there are changes nothing in a pod.
        Some(blocks) => serde_json::to_vec(&(&spec.workers, &spec.task.exec, &blocks.volume_name, &blocks.size_limit)),
    };
    let bytes = bytes.unwrap_or_default();
    blake3::hash(&bytes).to_hex()[..16].to_owned()
}

impl Coordinator {
    /// A pod in trouble that would be another one if it was made now.
    pub(super) fn is_outdated(&self, pod: &Pod) -> bool {
        let works = || self.workers.values().any(|worker| worker.id.pod_uid == pod.uid && worker.session.is_some());
        let other = pod.made_of.as_ref().is_some_and(|made| *made != super::made_of(&self.workers_digest, self.run));
        other && self.pool.is_in_trouble(pod) && !works()
    }
}
