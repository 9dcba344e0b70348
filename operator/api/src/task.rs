//! What a ShardJob does to each shard, and where results go.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::exec::Exec;

/// What is done to each shard.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[x_kube(
    validation = Rule::new("[has(self.exec), has(self.copy), has(self.checksum), has(self.noop)].filter(x, x).size() == 1")
        .message("must set exactly one of `exec`, `copy`, `checksum` and `noop`; write one without fields as 'noop: {}'")
)]
#[serde(rename_all = "camelCase")]
pub struct Task {
    /// Runs a program of yours in its own image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<Exec>,
    /// Writes each shard's bytes, verified, to `output.path`: whole files with boundary File, numbered parts with Byte or
    /// Line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy: Option<Copy>,
    /// Reads whole files and keeps their checksums, in the form that `sha256sum --check` reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<Checksum>,
    /// Does nothing; for measuring. Publishes nothing, so a shard may run more than once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noop: Option<Noop>,
}

/// Copies each shard's bytes.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Copy {
    /// Outputs written at once, each with every byte; more than one needs {copy} in `output.path`.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 8))]
    pub copies: i32,
}

/// Keeps checksums.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Checksum {
    /// Which.
    #[serde(default)]
    pub algorithm: Algorithm,
}

/// A checksum.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// CRC-32 with Castagnoli's polynomial: against damage.
    #[default]
    CRC32C,
    /// SHA-256: against damage and against people.
    SHA256,
    /// A value of a newer schema than this program knows: refused by name, without breaking the watch of other jobs.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// Does nothing.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Noop {}

/// Where results go.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[x_kube(
    validation = Rule::new("self.path.matches('^([^{}]|[{](index|id|run|copy|dir|name|stem|ext)[}])+$')")
        .message("has an unknown placeholder; use {index}, {id}, {run}, {copy}, {dir}, {name}, {stem} or {ext}")
        .field_path(".path"),
    validation = Rule::new(
        "self.path.matches('[{](index|id|name|stem)[}]') || \
         !self.path.matches('^([^{}]|[{](index|id|run|copy|dir|name|stem|ext)[}])+$')"
    )
    .message("must contain {index}, {id}, {name} or {stem}, or every shard would have the same name")
    .field_path(".path"),
    validation = Rule::new("!self.path.startsWith('/') && !self.path.matches('(^|/)[.][.](/|$)')")
        .message("must be relative and must not contain a '..' segment")
        .field_path(".path"),
)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// Directory of the results, under one of `workers.volumeMounts` that is not `readOnly`; ends with '/'.
    #[schemars(length(min = 8, max = 1024))]
    #[x_kube(
        validation = Rule::new("self.startsWith('file:///')").message("must start with 'file:///'"),
        validation = Rule::new("!self.matches('(^|/)[.][.](/|$)')").message("must not contain a '..' segment"),
        validation = Rule::new("self.endsWith('/')").message("must end with '/': it names a directory"),
    )]
    pub url: String,
    /// Name of a shard's result, relative to `url`: {index} (six digits), {id}, {run}, {copy}, and with one file per shard
    /// {dir} ("a/b/" or ""), {name}, {stem} and {ext}.
    #[serde(default = "part_path")]
    #[schemars(length(min = 1, max = 512))]
    pub path: String,
    /// What to do when the output belongs to a ShardJob that was deleted: Fail, or Reuse its results when plan and task are
    /// the same.
    #[serde(default)]
    pub existing: Existing,
}

/// What to do with results that a deleted ShardJob left.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Existing {
    /// The job fails, and nothing is written.
    #[default]
    Fail,
    /// They count as published.
    Reuse,
    /// A value of a newer schema than this program knows: refused by name, without breaking the watch of other jobs.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// Where plan, records and report are kept.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Records {
    /// A directory under one of `workers.volumeMounts` that is not `readOnly`; ends with '/'.
    #[schemars(length(min = 8, max = 1024))]
    #[x_kube(
        validation = Rule::new("self.startsWith('file:///')").message("must start with 'file:///'"),
        validation = Rule::new("!self.matches('(^|/)[.][.](/|$)')").message("must not contain a '..' segment"),
        validation = Rule::new("self.endsWith('/')").message("must end with '/': it names a directory"),
    )]
    pub url: String,
}

fn one() -> i32 {
    1
}

fn part_path() -> String {
    "part-{index}".into()
}
