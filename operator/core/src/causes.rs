//! Why a pod or a process ended, from what the cluster says of it, in the words of the API.

use hyperflow_api::message::{Failure, FailureClass};

use crate::reasons::OUTPUT_FULL;

/// Why something ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// Decides what it costs.
    pub class: FailureClass,
    /// The cluster's own word for it.
    pub reason: String,
    /// For people.
    pub message: String,
}

impl Cause {
    fn new(class: FailureClass, (reason, message): &(String, String)) -> Self {
        Self { class, reason: reason.clone(), message: message.clone() }
    }

    /// Why a pod ends: the reason of its condition `DisruptionTarget`, or of a pod that has failed its own
    /// (kubernetes.io/docs/concepts/workloads/pods/disruptions, "Pod disruption conditions").
    #[must_use]
    pub fn of_disruption(says: &(String, String)) -> Self {
        let class = match says.0.as_str() {
            "PreemptionByScheduler" | "Preempting" => FailureClass::Preempted,
            "DeletionByTaintManager" | "DeletionByPodGC" | "NodeLost" => FailureClass::NodeLost,
            "EvictionByEvictionAPI" | "TerminationByKubelet" | "Evicted" | "Terminated" | "NodeShutdown" => {
                FailureClass::Evicted
            }
            _ => FailureClass::WorkerLost,
        };
        Self::new(class, says)
    }

    /// How a container ended.
    #[must_use]
    pub fn of_termination(says: &(String, String)) -> Self {
        let class = if says.0 == "OOMKilled" { FailureClass::OutOfMemory } else { FailureClass::WorkerLost };
        Self::new(class, says)
    }

    /// Its node is not what it was.
    #[must_use]
    pub fn of_node(reason: &str, node: &str) -> Self {
        let message = format!("node '{node}' is gone or does not answer");
        Self { class: FailureClass::NodeLost, reason: reason.into(), message }
    }

    /// What happened to the machine or by somebody's wish is no sign that the shard is to blame.
    #[must_use]
    pub fn acquits(&self) -> bool {
        matches!(self.class, FailureClass::NodeLost | FailureClass::Evicted | FailureClass::Preempted)
    }
}

/// A reason for which a container waits that has to do with its image.
#[must_use]
pub fn is_image_pull(reason: &str) -> bool {
    matches!(reason, "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull")
}

/// The output store has no room: the shard is not to blame, and another attempt meets the same until somebody makes some.
#[must_use]
pub fn is_full(failure: &Failure) -> bool {
    failure.class == FailureClass::Store && failure.reason == OUTPUT_FULL && !failure.ends_job
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(reason: &str) -> (String, String) {
        (reason.into(), "as the cluster says".into())
    }

    #[test]
    fn infrastructure_is_told_from_what_a_shard_may_have_done() {
        for (reason, class) in [
            ("PreemptionByScheduler", FailureClass::Preempted),
            ("EvictionByEvictionAPI", FailureClass::Evicted),
            ("TerminationByKubelet", FailureClass::Evicted),
            ("DeletionByTaintManager", FailureClass::NodeLost),
        ] {
            let cause = Cause::of_disruption(&says(reason));
            assert_eq!(cause.class, class, "{reason}");
            assert!(cause.acquits());
        }
        assert!(!Cause::of_disruption(&says("UnexpectedAdmissionError")).acquits());
        assert_eq!(Cause::of_termination(&says("OOMKilled")).class, FailureClass::OutOfMemory);
        assert!(!Cause::of_termination(&says("Error")).acquits());
    }
}
