//! Shards that take much longer than others.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is done about shards that take much longer than others.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Speculation {
    /// Disabled, or Duplicate: when nothing is left to lease, a shard that is far behind runs on a second worker too; the
    /// first result counts.
    #[serde(default)]
    pub mode: SpeculationMode,
}

/// Whether slow shards are run twice.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpeculationMode {
    /// They are not.
    #[default]
    Disabled,
    /// They are.
    Duplicate,
    /// A value of a newer schema than this program knows: refused by name, without breaking the watch of other jobs.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}
