//! What a failure does: to its shard, and to the job.

use std::fmt;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a failure does.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[x_kube(
    validation = Rule::new(
        "!has(self.maxFailedShards) || (type(self.maxFailedShards) == int ? self.maxFailedShards >= 0 : \
         string(self.maxFailedShards).matches('^(100|[0-9]{1,2})%$'))"
    )
    .message("must be a number from 0 on, or a percentage such as '1%'")
    .field_path(".maxFailedShards"),
)]
#[serde(rename_all = "camelCase")]
pub struct FailurePolicy {
    /// Attempts of a shard that end in its own failure; lost workers and nodes do not count. 4 is
    /// `backoffLimitPerIndex` 3 of a Job.
    #[serde(default = "four")]
    #[schemars(range(min = 1, max = 100))]
    pub max_attempts: i32,
    /// Seconds that one attempt may take before it is ended, as a Timeout. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub attempt_deadline_seconds: Option<i32>,
    /// Seconds in which an attempt must read or write a byte or make a checkpoint, or it is ended, as a Timeout. Default:
    /// no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10))]
    pub progress_timeout_seconds: Option<i32>,
    /// The wait before an attempt after a failure. A lost worker's first retry waits for nothing.
    #[serde(default)]
    pub backoff: Backoff,
    /// Shards that may fail for good while the job still ends Complete: a number, or a percentage of the plan.
    /// `maxFailedIndexes` of a Job.
    #[serde(default = "none")]
    pub max_failed_shards: IntOrString,
    /// What happens when more shards than that have failed: Finish the others, then fail, as an Indexed Job does; or Stop
    /// at once. A job whose first 20 shards all fail alike always stops.
    #[serde(default)]
    pub when_exceeded: WhenExceeded,
    /// What is done about some failures; the first rule that matches decides. Without a match: BadInput fails the shard,
    /// OutOfMemory prefers another node, everything else counts as an attempt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub rules: Vec<FailureRule>,
}

impl Default for FailurePolicy {
    fn default() -> Self {
        Self {
            max_attempts: four(),
            attempt_deadline_seconds: None,
            progress_timeout_seconds: None,
            backoff: Backoff::default(),
            max_failed_shards: none(),
            when_exceeded: WhenExceeded::Finish,
            rules: Vec::new(),
        }
    }
}

/// What happens when too many shards have failed.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenExceeded {
    /// The others are finished, then the job fails.
    #[default]
    Finish,
    /// The job fails at once.
    Stop,
    /// A value of a newer schema than this program knows: refused by name, without breaking the watch of other jobs.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// What is done about a kind of failure, in the words of a Job's `podFailurePolicy`. What it says of exit codes, classes and
/// messages must all be so.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[x_kube(
    validation = Rule::new("has(self.onExitCodes) || has(self.onClasses) || has(self.onMessagePattern)")
        .message("must set at least one of `onExitCodes`, `onClasses` and `onMessagePattern`"),
    validation = Rule::new("!has(self.retryOn) || self.action == 'Count' || self.action == 'Ignore'")
        .message("`retryOn` needs an `action` after which there is another attempt: 'Count' or 'Ignore'")
        .field_path(".retryOn"),
)]
#[serde(rename_all = "camelCase")]
pub struct FailureRule {
    /// Count uses up an attempt. Ignore tries again without that. FailShard gives the shard up, FailJob the job.
    pub action: Action,
    /// The program's exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_exit_codes: Option<OnExitCodes>,
    /// One of these classes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub on_classes: Vec<Class>,
    /// A regular expression (RE2) that is found in the failure's message, which has the end of the program's stderr.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub on_message_pattern: Option<String>,
    /// Where the next attempt runs: AnyNode, or OtherNode, which is a preference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_on: Option<RetryOn>,
}

/// What a rule does.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Another attempt, while there are any.
    Count,
    /// Another attempt that does not count.
    Ignore,
    /// No other attempt at this shard.
    FailShard,
    /// No other attempt at any.
    FailJob,
    /// A value of a newer schema than this program knows: refused by name, without breaking the watch of other jobs.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// Exit codes that a rule is about.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct OnExitCodes {
    /// In, or NotIn.
    pub operator: Operator,
    /// The codes. A program that was ended by a signal has none, and neither operator matches.
    #[schemars(length(min = 1, max = 255), inner(range(min = 0, max = 255)))]
    pub values: Vec<i32>,
}

/// How exit codes are compared.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// One of them.
    In,
    /// None of them.
    NotIn,
    /// A value of a newer schema than this program knows: refused by name, without breaking the watch of other jobs.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// Where the next attempt runs.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryOn {
    /// On any node.
    AnyNode,
    /// On another node, if another one has a worker.
    OtherNode,
    /// A value of a newer schema than this program knows: refused by name, without breaking the watch of other jobs.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// What kind of failure, as [`crate::message::FailureClass`] says.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The program itself.
    Application,
    /// The input: exit code 65, or a file that is not what the plan says.
    BadInput,
    /// Too much memory.
    OutOfMemory,
    /// Too long.
    Timeout,
    /// The output store.
    Store,
    /// The worker died or fell silent.
    WorkerLost,
    /// The node is gone.
    NodeLost,
    /// The pod was evicted.
    Evicted,
    /// The pod was preempted.
    Preempted,
    /// The image could not be had.
    ImagePull,
    /// A value of a newer schema than this program knows: refused by name, without breaking the watch of other jobs.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Doubles from `initialSeconds` to `maxSeconds`, with jitter.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[x_kube(
    validation = Rule::new("self.initialSeconds <= self.maxSeconds")
        .message("`initialSeconds` must be less than or equal to `maxSeconds`"),
)]
#[serde(rename_all = "camelCase")]
pub struct Backoff {
    /// Seconds before the second attempt.
    #[serde(default = "five")]
    #[schemars(range(min = 0, max = 3600))]
    pub initial_seconds: i32,
    /// Most seconds between two attempts.
    #[serde(default = "five_minutes")]
    #[schemars(range(min = 1, max = 86400))]
    pub max_seconds: i32,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { initial_seconds: five(), max_seconds: five_minutes() }
    }
}

fn four() -> i32 {
    4
}

fn none() -> IntOrString {
    IntOrString::Int(0)
}

fn five() -> i32 {
    5
}

fn five_minutes() -> i32 {
    300
}
