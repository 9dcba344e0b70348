//! A thousand shards that do nothing go through real pods, and the status that says so stays small.

use std::time::Duration;

use hyperflow_e2e::{Result, cluster::Place, ensure, job};

pub async fn keeps(place: &Place) -> Result {
    let job = place.apply(job::manifest("numbers")?).await?;
    let status = job.complete(Duration::from_secs(60)).await?;
    let counts = job::shards(&status);
    ensure((counts.succeeded, counts.completed_indexes.as_str()) == (1000, "0-999"), || format!("{counts:?}"))?;
    let size = serde_json::to_vec(&status)?.len();
    ensure(size < 4096, || format!("a status of {size} bytes"))
}
