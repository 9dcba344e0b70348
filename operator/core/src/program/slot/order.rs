//! What the worker says to the program.

use hyperflow_api::ids::ShardIndex;
use serde::Serialize;

use crate::plan::Numbers;

/// What the worker says.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum Order<'a> {
    /// Who is there. The first line.
    Hello {
        /// [`VERSION`](super::VERSION).
        hyperflow: u32,
        /// Name of the ShardJob.
        job: &'a str,
        /// Number of the run.
        run: u32,
        /// Which slot of its worker, from 0.
        slot: u32,
    },
    /// A shard to do.
    Shard(Box<Asked<'a>>),
}

/// A shard to do: what a program that lives for one shard finds in its environment. What is null or not there, this shard
/// does not have.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Asked<'a> {
    /// Number of the shard.
    pub index: ShardIndex,
    /// Its stable name.
    pub id: &'a str,
    /// 1 for the first.
    pub attempt: u32,
    /// The lease; opaque.
    pub epoch: &'a str,
    /// The file, or the directory, to read.
    pub input: Option<&'a str>,
    /// From which byte of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_offset: Option<u64>,
    /// How many bytes of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_length: Option<u64>,
    /// The item.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item: Option<&'a str>,
    /// The numbers.
    #[serde(flatten)]
    pub numbers: Option<Numbers>,
    /// The file, or the directory, to make.
    pub output: Option<&'a str>,
    /// Where a checkpoint may be put.
    pub checkpoint: &'a str,
    /// The checkpoint of an earlier attempt.
    pub resume_from: Option<&'a str>,
    /// Where a text of at most 4 KiB for the report may be put.
    pub result: &'a str,
    /// A directory for this attempt alone.
    pub tmp: &'a str,
    /// A file that says all of this and more.
    pub shard: &'a str,
}

impl Order<'_> {
    /// As a line, with its newline.
    ///
    /// # Errors
    /// When JSON cannot be written, which no order causes.
    pub fn line(&self) -> serde_json::Result<Vec<u8>> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        Ok(line)
    }
}
