//! The file HYPERFLOW_SHARD: all that is known of a shard, as JSON. Its form is described in docs/programs.md.

use hyperflow_core::plan::Piece;
use serde_json::{Value, json};

use super::environment::About;
use crate::fault::Fault;

/// Version of the form.
const VERSION: u32 = 1;

/// Writes the file. Its content is also the line that a process hears which lives for many shards.
pub fn write(about: &About<'_>, outputs: &[String]) -> Result<(), Fault> {
    about.files.describe(of(about, outputs).to_string().as_bytes())
}

/// What the file says.
pub fn of(about: &About<'_>, outputs: &[String]) -> Value {
    let About { work, attempt, index, shard, .. } = about;
    let (brief, grant) = (&work.brief, attempt.grant());
    let inputs: Vec<Value> = shard
        .pieces
        .iter()
        .map(|Piece { file, offset, length }| {
            json!({"url": file.url, "path": file.path, "version": file.version, "offset": offset, "length": length})
        })
        .collect();
    let mut all = json!({
        "version": VERSION,
        "job": {"namespace": brief.namespace, "name": brief.name, "uid": brief.uid.to_string()},
        "run": brief.run,
        "index": index,
        "id": shard.id(),
        "attempt": grant.attempt,
        "epoch": grant.epoch.to_string(),
        "outputs": outputs,
    });
    if about.cut.is_of_files() {
        all["inputs"] = inputs.into();
    } else if let Some(numbers) = shard.numbers {
        all["numbers"] = json!({"start": numbers.start, "count": numbers.count});
    } else {
        all["items"] = json!(shard.items);
    }
    all
}
