//! What a ShardJob processes: files, a list of items, or numbers.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::quantity::Quantity;

/// What is processed.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[x_kube(
    validation = Rule::new("[has(self.files), has(self.items), has(self.numbers)].filter(x, x).size() == 1")
        .message("must set exactly one of `files`, `items` and `numbers`")
)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// Files, whole or cut into shards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<Files>,
    /// A list of texts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<Items>,
    /// Whole numbers from `start`; planning them is arithmetic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numbers: Option<Numbers>,
}

/// Files on a volume of the workers.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[x_kube(
    validation = Rule::new("has(self.url) != has(self.manifest)")
        .message("must set exactly one of `url` and `manifest`"),
    validation = Rule::new("self.boundary == 'File' || has(self.bytesPerShard)")
        .message(
            "`bytesPerShard` is required when `boundary` is 'Line' or 'Byte': say how large a shard is, for example 64Mi"
        )
        .field_path(".boundary"),
    validation = Rule::new("self.boundary == 'File' || !has(self.filesPerShard)")
        .message(
            "`filesPerShard` may only be set when `boundary` is 'File': a shard of 'Line' or 'Byte' is a range of one file"
        )
        .field_path(".filesPerShard"),
    validation = Rule::new("self.boundary == 'Line' || !has(self.recordPrefix)")
        .message("`recordPrefix` may only be set when `boundary` is 'Line'")
        .field_path(".recordPrefix"),
    validation = Rule::new("!has(self.manifest) || (!has(self.include) && !has(self.exclude))")
        .message("a manifest names its files one by one: remove `include` and `exclude`")
        .field_path(".manifest"),
    validation = Rule::new(
        "!has(self.bytesPerShard) || !isQuantity(string(self.bytesPerShard)) || \
         (quantity(string(self.bytesPerShard)).compareTo(quantity('4Ki')) >= 0 && \
         quantity(string(self.bytesPerShard)).compareTo(quantity('5Ti')) <= 0)"
    )
    .message("must be between 4Ki and 5Ti")
    .field_path(".bytesPerShard"),
)]
#[serde(rename_all = "camelCase")]
pub struct Files {
    /// One file, or everything beneath a directory when it ends with '/': a path in the worker container, under one of
    /// `workers.volumeMounts`, as `file:///data/in/`. Taken literally, without %-decoding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 1024))]
    #[x_kube(
        validation = Rule::new("self.startsWith('file:///')").message("must start with 'file:///'"),
        validation = Rule::new("!self.matches('(^|/)[.][.](/|$)')").message("must not contain a '..' segment"),
    )]
    pub url: Option<String>,
    /// A list of files instead: one `file://` URL or absolute path a line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Manifest>,
    /// Globs on the path below `url`: '*' stays in a directory, '**' crosses them. Default: all files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 256)))]
    pub include: Vec<String>,
    /// Globs taken out of `include`. `_hyperflow/` and the job's own output are never input.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 256)))]
    pub exclude: Vec<String>,
    /// Where input may be cut: File never cuts a file, Line cuts after a newline, Byte cuts anywhere.
    pub boundary: Boundary,
    /// Size of a shard, 4Ki to 5Ti. Required with Line and Byte; with File a limit on the whole files in a shard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_shard: Option<Quantity>,
    /// With File: most files in a shard. Default: 1, or no limit but 100000 when `bytesPerShard` is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub files_per_shard: Option<i32>,
    /// With Line: cut only before a line that starts with this, for example '>' for FASTA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16))]
    pub record_prefix: Option<String>,
    /// What happens when a file is no longer the one that was planned. Fail: the job fails before a byte of it is used.
    /// UseBlocks: shards go on from copies of the planned content, and the job fails only when there are none.
    #[serde(default, skip_serializing_if = "OnChange::is_fail")]
    pub on_change: OnChange,
}

/// What happens when a file is no longer the one that was planned.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnChange {
    /// The job fails.
    #[default]
    Fail,
    /// Copies of the planned content are used.
    UseBlocks,
    /// A value of a newer schema than this program knows: refused by name, without breaking the watch of other jobs.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

impl OnChange {
    fn is_fail(&self) -> bool {
        *self == Self::Fail
    }
}

/// Where input may be cut.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boundary {
    /// Never within a file.
    File,
    /// After a newline.
    Line,
    /// Anywhere.
    Byte,
    /// A value of a newer schema than this program knows: refused by name, without breaking the watch of other jobs.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// A text file with one entry a line. Empty lines are skipped, everything else is taken literally.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[x_kube(
    validation = Rule::new("has(self.url) != has(self.configMapKeyRef)")
        .message("must set exactly one of `url` and `configMapKeyRef`")
)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// A file in the worker container, under one of `workers.volumeMounts`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 1024))]
    #[x_kube(
        validation = Rule::new("self.startsWith('file:///')").message("must start with 'file:///'"),
        validation = Rule::new("!self.matches('(^|/)[.][.](/|$)')").message("must not contain a '..' segment"),
        validation = Rule::new("!self.endsWith('/')").message("must name one file: it may not end with '/'"),
    )]
    pub url: Option<String>,
    /// A key of a ConfigMap in the job's namespace. It is mounted into the workers; the operator does not read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<ConfigMapKeyRef>,
}

/// A key of a ConfigMap in the job's namespace.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct ConfigMapKeyRef {
    /// Name of the ConfigMap.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key in its data.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

/// A list of texts.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[x_kube(
    validation = Rule::new("has(self.values) != has(self.manifest)")
        .message(
            "must set exactly one of `values` and `manifest`; `values` holds at most 1000 items, use `manifest` beyond that"
        )
)]
#[serde(rename_all = "camelCase")]
pub struct Items {
    /// The items themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1000), inner(length(max = 1024)))]
    pub values: Option<Vec<String>>,
    /// A list with one item a line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Manifest>,
    /// Items in a shard.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 100_000))]
    pub items_per_shard: i32,
}

/// Whole numbers.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[x_kube(
    validation = Rule::new(
        "self.count / self.numbersPerShard < 1000000 || (self.count / self.numbersPerShard == 1000000 && \
         self.count % self.numbersPerShard == 0)"
    )
    .message("makes more than 1000000 shards; raise `numbersPerShard`"),
)]
#[serde(rename_all = "camelCase")]
pub struct Numbers {
    /// First number.
    #[serde(default)]
    #[schemars(range(min = -9_007_199_254_740_991_i64, max = 9_007_199_254_740_991_i64))]
    pub start: i64,
    /// How many numbers.
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub count: i64,
    /// Numbers in a shard.
    #[serde(default = "one_long")]
    #[schemars(range(min = 1, max = 9_007_199_254_740_991_i64))]
    pub numbers_per_shard: i64,
}

fn one() -> i32 {
    1
}

fn one_long() -> i64 {
    1
}
