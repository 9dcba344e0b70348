//! Copies of the input on the nodes' disks.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::quantity::Quantity;

/// Copies of the input on the nodes' disks: retries and later shards read there, also when the source is away.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[x_kube(
    validation = Rule::new(
        "!has(self.sizeLimit) || !isQuantity(string(self.sizeLimit)) || \
         quantity(string(self.sizeLimit)).compareTo(quantity('1Mi')) >= 0"
    )
    .message("must be at least 1Mi")
    .field_path(".sizeLimit"),
)]
#[serde(rename_all = "camelCase")]
pub struct Blocks {
    /// On how many nodes each block is kept.
    #[serde(default = "two")]
    #[schemars(range(min = 1, max = 5))]
    pub replicas: i32,
    /// An entry of `workers.volumes` to keep them on. Default: the node-local volume that the administrator named in the
    /// chart's values, or else an emptyDir, which is lost with its pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub volume_name: Option<String>,
    /// Most bytes of them on a node. Default: what the volume has, less a reserve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_limit: Option<Quantity>,
}

fn two() -> i32 {
    2
}
