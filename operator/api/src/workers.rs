//! What a user may say about worker pods: a typed allow-list, not a pod template.
//!
//! Everything else is fixed to Pod Security `restricted`. There is no `hostPath` and no raw patch: other projects needed
//! several CVEs to take those back.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::quantity::Quantity;

/// The worker pods.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[x_kube(
    validation = Rule::new(
        "!has(self.volumeMounts) || self.volumeMounts.all(m, has(self.volumes) && self.volumes.exists(v, v.name == m.name))"
    )
    .message("each `name` must be the name of an entry in `volumes`")
    .field_path(".volumeMounts"),
    validation = Rule::new(
        "!has(self.volumeMounts) || self.volumeMounts.all(m, m.mountPath != '/hyperflow' && \
         !m.mountPath.startsWith('/hyperflow/'))"
    )
    .message("'/hyperflow' is used by the worker; mount somewhere else")
    .field_path(".volumeMounts"),
    validation = Rule::new(
        "!has(self.scratch) || !has(self.scratch.volumeName) || (has(self.volumes) && self.volumes.exists(v, v.name == \
         self.scratch.volumeName))"
    )
    .message("must be the name of an entry in `volumes`")
    .field_path(".scratch.volumeName"),
)]
#[serde(rename_all = "camelCase")]
pub struct Workers {
    /// Shards at a time in one worker; `resources` are for all of them together.
    #[serde(default = "one_slot")]
    #[schemars(range(min = 1, max = 256))]
    pub slots: i32,
    /// Added to the worker pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<PodMetadata>,
    /// Limit of one worker: the bytes it reads and the bytes it writes, together, in a second. New pods take a new value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<Quantity>,
    /// As in a container.
    #[serde(default)]
    pub resources: Resources,
    /// Where programs may write: TMPDIR, and the files that HYPERFLOW_INPUT and HYPERFLOW_OUTPUT name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scratch: Option<Scratch>,
    /// As in a pod, without the types that reach into the node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub volumes: Vec<Volume>,
    /// As in a container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["mountPath".into()]))]
    pub volume_mounts: Vec<VolumeMount>,
    /// The pods' identity for image pulls and identity webhooks; its token is never mounted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_account_name: Option<String>,
    /// Who owns files that are read and written. The rest is fixed to Pod Security `restricted`.
    #[serde(default)]
    pub security_context: SecurityContext,
    /// As in a pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Vec<SecretName>,
    /// As in a pod.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub node_selector: BTreeMap<String, String>,
    /// As in a pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub tolerations: Vec<core::Toleration>,
    /// As in a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<core::Affinity>,
    /// As in a pod. Default: workers of a job spread over nodes where they can.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub topology_spread_constraints: Vec<core::TopologySpreadConstraint>,
    /// As in a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
    /// As in a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub runtime_class_name: Option<String>,
    /// As in a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub scheduler_name: Option<String>,
    /// How long a worker may take to checkpoint and leave.
    #[serde(default = "half_a_minute")]
    #[schemars(range(min = 1, max = 600))]
    pub termination_grace_period_seconds: i64,
}

impl Default for Workers {
    fn default() -> Self {
        Self {
            slots: one_slot(),
            metadata: None,
            bytes_per_second: None,
            resources: Resources::default(),
            scratch: None,
            volumes: Vec::new(),
            volume_mounts: Vec::new(),
            service_account_name: None,
            security_context: SecurityContext::default(),
            image_pull_secrets: Vec::new(),
            node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            affinity: None,
            topology_spread_constraints: Vec::new(),
            priority_class_name: None,
            runtime_class_name: None,
            scheduler_name: None,
            termination_grace_period_seconds: half_a_minute(),
        }
    }
}

/// Labels and annotations for worker pods.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[x_kube(
    validation = Rule::new(
        "(!has(self.labels) || self.labels.all(k, !k.startsWith('hyperflow.dev/') && !k.startsWith('kueue.x-k8s.io/'))) && \
         (!has(self.annotations) || self.annotations.all(k, !k.startsWith('hyperflow.dev/')))"
    )
    .message("keys starting with 'hyperflow.dev/' and labels starting with 'kueue.x-k8s.io/' must not be set on workers"),
)]
pub struct PodMetadata {
    /// At most 64.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub labels: BTreeMap<String, String>,
    /// At most 64.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub annotations: BTreeMap<String, String>,
}

/// What a worker pod asks for and may use.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(default)]
pub struct Resources {
    /// As in a container.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub limits: BTreeMap<String, Quantity>,
    /// As in a container.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub requests: BTreeMap<String, Quantity>,
}

/// Where programs may write.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[x_kube(
    validation = Rule::new("has(self.sizeLimit) || has(self.volumeName)")
        .message("must set `sizeLimit`, `volumeName` or both"),
)]
#[serde(rename_all = "camelCase")]
pub struct Scratch {
    /// Most bytes in a worker. Each slot has its share; an attempt that writes more is ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_limit: Option<Quantity>,
    /// The name of an entry in `volumes`; default: an emptyDir of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub volume_name: Option<String>,
}

/// A volume of the worker pods.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[x_kube(
    validation = Rule::new(
        "[has(self.configMap),has(self.secret),has(self.persistentVolumeClaim),has(self.emptyDir),has(self.ephemeral),\
         has(self.projected),has(self.csi)].filter(x,x).size() == 1"
    )
    .message(
        "must set exactly one of `configMap`, `secret`, `persistentVolumeClaim`, `emptyDir`, `ephemeral`, `projected` and \
         `csi`; other volume types are not allowed in a ShardJob"
    ),
)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    /// What `volumeMounts` call it.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// As in a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<core::ConfigMapVolumeSource>,
    /// As in a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<core::SecretVolumeSource>,
    /// As in a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<core::PersistentVolumeClaimVolumeSource>,
    /// As in a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty_dir: Option<core::EmptyDirVolumeSource>,
    /// As in a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ephemeral: Option<core::EphemeralVolumeSource>,
    /// As in a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub projected: Option<core::ProjectedVolumeSource>,
    /// As in a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csi: Option<core::CSIVolumeSource>,
}

/// Where a volume is in the worker container.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct VolumeMount {
    /// The name of an entry in `volumes`.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// An absolute path, without a '/' at its end.
    #[schemars(length(min = 2, max = 256), regex(pattern = "^/[^:]*[^/:]$"))]
    pub mount_path: String,
    /// As in a container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub sub_path: Option<String>,
    /// As in a container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
}

/// Who the workers are on a file system.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct SecurityContext {
    /// Never root.
    #[schemars(range(min = 1, max = 2_147_483_647_i64))]
    pub run_as_user: i64,
    /// As in a pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_147_483_647_i64))]
    pub run_as_group: Option<i64>,
    /// As in a pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_147_483_647_i64))]
    pub fs_group: Option<i64>,
    /// As in a pod.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub supplemental_groups: Vec<i64>,
}

impl Default for SecurityContext {
    fn default() -> Self {
        Self { run_as_user: 65_532, run_as_group: None, fs_group: None, supplemental_groups: Vec::new() }
    }
}

/// A Secret of the job's namespace.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct SecretName {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

fn one_slot() -> i32 {
    1
}

fn half_a_minute() -> i64 {
    30
}
