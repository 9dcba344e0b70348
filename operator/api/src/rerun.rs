//! Another run of a job that has a plan.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Runs shards of a job again, without another object.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[x_kube(
    validation = Rule::new("(self.scope == 'Indexes') == has(self.indexes)")
        .message("`indexes` is required with `scope` 'Indexes', and may not be set otherwise")
        .field_path(".indexes"),
)]
#[serde(rename_all = "camelCase")]
pub struct Rerun {
    /// Another text than before begins another run. What it is at the job's creation begins none.
    #[schemars(length(min = 1, max = 63))]
    pub nonce: String,
    /// Which shards: Failed, those that are not published; All; or some Indexes. What was published is never replaced:
    /// to run it again, `output.path` must contain {run}.
    #[serde(default)]
    pub scope: Scope,
    /// With Indexes: `3,7-9`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536), regex(pattern = r"^[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*$"))]
    pub indexes: Option<String>,
}

/// Which shards run again.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Those that are not published.
    #[default]
    Failed,
    /// All of them.
    All,
    /// Those in `indexes`.
    Indexes,
    /// A value of a newer schema than this program knows: refused by name, without breaking the watch of other jobs.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}
