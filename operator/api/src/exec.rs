//! A program of the user's, in the user's image.

use k8s_openapi::api::core::v1 as core;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Runs a program for each shard, unchanged, in its own image. The image needs nothing of ours: no shell, no root.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[x_kube(
    validation = Rule::new("!has(self.env) || self.env.all(e, !e.name.startsWith('HYPERFLOW_'))")
        .message("names starting with 'HYPERFLOW_' are set by the worker; use others")
        .field_path(".env"),
    validation = Rule::new("self.lifetime == 'Shard' || self.input != 'Stdin'")
        .message("with `lifetime` 'Slot' stdin carries the shards, as JSON lines: use 'File', 'Directory', 'Range' or 'None'")
        .field_path(".input"),
    validation = Rule::new("self.lifetime == 'Shard' || self.output != 'Stdout'")
        .message("with `lifetime` 'Slot' stdout carries the answers, as JSON lines: use 'File', 'Directory' or 'None'")
        .field_path(".output"),
)]
#[serde(rename_all = "camelCase")]
pub struct Exec {
    /// The program's image, as in a container. Its ENTRYPOINT is not used.
    #[schemars(length(min = 1, max = 1024))]
    pub image: String,
    /// As in a container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<PullPolicy>,
    /// The program and its arguments, started without a shell. $(NAME) becomes the value of an environment variable, as in
    /// a container's `command`, and $$(NAME) the text $(NAME).
    #[schemars(length(min = 1, max = 256), inner(length(max = 8192)))]
    pub command: Vec<String>,
    /// As in a container; names starting with HYPERFLOW_ are the worker's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub env: Vec<core::EnvVar>,
    /// As in a container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub env_from: Vec<core::EnvFromSource>,
    /// As in a container; default: the image's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub working_dir: Option<String>,
    /// How the program gets its shard: Stdin, a File or a Directory named by HYPERFLOW_INPUT, a Range of a mounted file
    /// (HYPERFLOW_INPUT, HYPERFLOW_INPUT_OFFSET, HYPERFLOW_INPUT_LENGTH), or None: HYPERFLOW_ITEM, or HYPERFLOW_START and
    /// HYPERFLOW_COUNT.
    pub input: InputMode,
    /// Where the program's result comes from: Stdout, a File or a Directory that it makes at HYPERFLOW_OUTPUT, or None.
    pub output: OutputMode,
    /// Shard starts the program for each shard. Slot starts it once for each slot and sends it shards as JSON lines.
    #[serde(default)]
    pub lifetime: Lifetime,
    /// Exit codes that mean success.
    #[serde(default = "zero")]
    #[schemars(length(min = 1, max = 16), inner(range(min = 0, max = 255)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub success_exit_codes: Vec<i32>,
}

/// When an image is pulled.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPolicy {
    /// At each start of a pod.
    Always,
    /// Never.
    Never,
    /// When the node has it not.
    IfNotPresent,
    /// A value of a newer schema than this program knows: refused by name, without breaking the watch of other jobs.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

impl PullPolicy {
    /// As Kubernetes writes it.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Always => Some("Always"),
            Self::Never => Some("Never"),
            Self::IfNotPresent => Some("IfNotPresent"),
            Self::Unknown => None,
        }
    }
}

/// How a program gets its shard.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputMode {
    /// The bytes of the shard; several files one after the other; items and numbers one a line.
    Stdin,
    /// A file with those bytes: the mounted file itself if the shard is a whole one.
    File,
    /// A directory with the shard's files under their relative paths.
    Directory,
    /// The mounted file, and which bytes of it.
    Range,
    /// An item, or a range of numbers, in the environment.
    None,
    /// A value of a newer schema than this program knows: refused by name, without breaking the watch of other jobs.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// Where the result of a program comes from.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputMode {
    /// What it writes to stdout.
    Stdout,
    /// A file that it makes.
    File,
    /// A directory that it makes; published as one unit.
    Directory,
    /// It has none: the job has no `spec.output`.
    None,
    /// A value of a newer schema than this program knows: refused by name, without breaking the watch of other jobs.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// How long a process lives.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lifetime {
    /// For one shard.
    #[default]
    Shard,
    /// As long as the worker, for one shard after the other.
    Slot,
    /// A value of a newer schema than this program knows: refused by name, without breaking the watch of other jobs.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// A command that runs once when all shards are done, in the image of `task.exec`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[x_kube(
    validation = Rule::new("(self.output == 'None') != has(self.path)")
        .message("`path` names the result: it is required with `output` 'Stdout' and 'File', and may not be set with 'None'")
        .field_path(".path"),
)]
#[serde(rename_all = "camelCase")]
pub struct Finally {
    /// The program and its arguments, as in `task.exec.command`. The report is its stdin, and the file HYPERFLOW_REPORT.
    #[schemars(length(min = 1, max = 256), inner(length(max = 8192)))]
    pub command: Vec<String>,
    /// Where its result comes from: Stdout, a File that it makes at HYPERFLOW_OUTPUT, or None.
    #[serde(default = "no_output")]
    pub output: FinallyOutput,
    /// Name of its result, relative to `output.url`; {run} is the number of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub path: Option<String>,
}

/// Where the result of the last command comes from.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinallyOutput {
    /// What it writes to stdout.
    Stdout,
    /// A file that it makes.
    File,
    /// It has none.
    None,
    /// A value of a newer schema than this program knows: refused by name, without breaking the watch of other jobs.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

fn zero() -> Vec<i32> {
    vec![0]
}

fn no_output() -> FinallyOutput {
    FinallyOutput::None
}
