//! The file HYPERFLOW_SHARD: all that is known of a shard, as JSON. Its form is described in docs/programs.md.

use hyperflow_core::plan::{Numbers, Piece};
use serde::Serialize;

use super::environment::About;
use crate::fault::{self, Fault};

/// Version of the form.
const VERSION: u32 = 1;

/// What the file says.
#[derive(Serialize)]
struct Description<'a> {
    attempt: u32,
    epoch: String,
    id: String,
    index: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    inputs: Option<Vec<Input<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    items: Option<&'a [String]>,
    job: Job<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    numbers: Option<Numbers>,
    outputs: &'a [String],
    run: u32,
    version: u32,
}

#[derive(Serialize)]
struct Job<'a> {
    name: &'a str,
    namespace: &'a str,
    uid: String,
}

#[derive(Serialize)]
struct Input<'a> {
    length: u64,
    offset: u64,
    path: &'a str,
    url: &'a str,
    version: &'a str,
}

/// Writes the file.
pub fn write(about: &About<'_>, outputs: &[String]) -> Result<(), Fault> {
    let path = about.files.description();
    let text = serde_json::to_vec(&of(about, outputs));
    about.files.describe(&text.map_err(|error| fault::output("write", &path)(error.into()))?)
}

fn of<'a>(about: &'a About<'_>, outputs: &'a [String]) -> Description<'a> {
    let About { work, attempt, index, shard, cut, .. } = about;
    let (brief, grant) = (&work.brief, attempt.grant());
    let input = |piece: &'a Piece| {
        let Piece { file, offset, length } = piece;
        Input { length: *length, offset: *offset, path: &file.path, url: &file.url, version: &file.version }
    };
    let files = cut.is_of_files();
    Description {
        attempt: grant.attempt,
        epoch: grant.epoch.to_string(),
        id: shard.id(),
        index: *index,
        inputs: files.then(|| shard.pieces.iter().map(input).collect()),
        items: (!files && shard.numbers.is_none()).then_some(&shard.items),
        job: Job { name: &brief.name, namespace: &brief.namespace, uid: brief.uid.to_string() },
        numbers: shard.numbers.filter(|_| !files),
        outputs,
        run: brief.run,
        version: VERSION,
    }
}
