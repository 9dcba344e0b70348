//! A line of the report, as `docs/formats.md` describes it.

use hyperflow_api::ids::ShardIndex;
use hyperflow_core::{
    job::Job,
    plan::{Numbers, Piece, Shard},
};
use serde::Serialize;

use super::recorded::Entry;
use crate::{
    names,
    records::{Failed, Record},
};

/// A line of the report.
#[derive(Serialize)]
pub struct Line<'a> {
    index: ShardIndex,
    id: &'a str,
    inputs: Vec<Input<'a>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    items: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    numbers: Option<Numbers>,
    outputs: Vec<Output<'a>>,
    published: bool,
    #[serde(flatten)]
    done: Option<Done<'a>>,
    #[serde(flatten)]
    last: Option<Last<'a>>,
}

impl<'a> Line<'a> {
    /// Of a shard, with the stable name `id`, of which `entry` is recorded.
    pub fn new(
        job: &'a Job,
        program: &'a str,
        (index, id, shard): (ShardIndex, &'a str, &'a Shard),
        entry: Option<&'a Entry>,
    ) -> Self {
        let (record, failed) = match entry {
            Some(Entry::Published(record)) => (Some(record), None),
            Some(Entry::Failed(failed)) => (None, Some(failed)),
            None => (None, None),
        };
        Self {
            index,
            id,
            inputs: shard.pieces.iter().map(Input::new).collect(),
            items: &shard.items,
            numbers: shard.numbers,
            outputs: record.map_or_else(Vec::new, |record| Output::all(job, record, id, shard)),
            published: record.is_some(),
            done: record.map(|record| Done::new(record, program)),
            last: failed.map(Last::new),
        }
    }
}

#[derive(Serialize)]
struct Input<'a> {
    url: &'a str,
    offset: u64,
    length: u64,
}

impl<'a> Input<'a> {
    fn new(Piece { file, offset, length }: &'a Piece) -> Self {
        Self { url: &file.url, offset: *offset, length: *length }
    }
}

#[derive(Serialize)]
struct Output<'a> {
    url: String,
    bytes: u64,
    crc32c: &'a str,
}

impl<'a> Output<'a> {
    fn all(job: &Job, record: &'a Record, id: &str, shard: &Shard) -> Vec<Self> {
        let Some(output) = &job.output else { return Vec::new() };
        let url = |name| format!("{}{name}", output.url);
        let names = names::of(job, record.run, record.index, id, shard).into_iter();
        names.map(|name| Self { url: url(name), bytes: record.bytes, crc32c: &record.crc32c }).collect()
    }
}

/// Of a shard that is published.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Done<'a> {
    attempts: u32,
    node: &'a str,
    worker: &'a str,
    millis: u64,
    resumed_from: u64,
    bytes_read_again: u64,
    bytes_read: u64,
    run: u32,
    program: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a str>,
}

impl<'a> Done<'a> {
    fn new(record: &'a Record, program: &'a str) -> Self {
        Self {
            attempts: record.attempt,
            node: &record.node,
            worker: &record.worker,
            millis: record.millis,
            resumed_from: record.resumed_from,
            bytes_read_again: record.bytes_read_again,
            bytes_read: record.bytes_read,
            run: record.run,
            program,
            result: record.result.as_deref(),
        }
    }
}

/// Of the last attempt at a shard that is not published.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Last<'a> {
    attempts: u32,
    node: &'a str,
    class: &'a str,
    reason: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
}

impl<'a> Last<'a> {
    fn new(failed: &'a Failed) -> Self {
        Self {
            attempts: failed.attempt,
            node: &failed.node,
            class: &failed.class,
            reason: &failed.reason,
            message: &failed.message,
            exit_code: failed.exit_code,
        }
    }
}
