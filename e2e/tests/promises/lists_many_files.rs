//! Input of very many files is listed, planned, read and reported by workers of little memory. In the long form it is a
//! million files.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use hyperflow_e2e::{Result, cluster::Place, ensure, harness::soak, job::shards};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(300);
const IN_A_FOLDER: usize = 1000;
/// The worker's limit: a million paths alone are more.
const MEMORY: &str = "64Mi";

pub async fn keeps(place: &Place) -> Result {
    let folders = if soak() { 1000 } else { 40 };
    make_files(&place.path("in"), folders)?;
    let mut manifest = super::copy("many", "4Mi", "1G", 1, 2);
    manifest["spec"]["source"]["files"] =
        json!({"url": "file:///data/in/", "boundary": "File", "filesPerShard": IN_A_FOLDER});
    manifest["spec"]["task"] = json!({"checksum": {}});
    manifest["spec"]["workers"]["resources"] = json!({"limits": {"memory": MEMORY}});
    let start = Instant::now();
    let job = place.apply(manifest).await?;
    let status = job.complete(LIMIT).await?;
    let took = start.elapsed();
    let plan = status.plan.clone().ok_or("no plan")?;
    let files = i64::try_from(folders * IN_A_FOLDER)?;
    ensure(plan.files == files && i64::from(shards(&status).succeeded) * 1000 == files, || format!("{plan:?}"))?;
    ensure(status.failures.is_empty(), || format!("{:?}", status.failures))?;
    let report = status.report.ok_or("no report")?;
    let path = place.path(report.url.strip_prefix("file:///data/").ok_or("a report elsewhere")?);
    let lines = fs::read_to_string(&path)?.lines().count();
    ensure(lines == folders, || format!("{lines} lines of {folders} shards in the report"))?;
    let sums = fs::read_to_string(path.with_file_name("CRC32C"))?;
    ensure(sums.lines().count() == folders * IN_A_FOLDER, || "the list of checksums is not whole".into())?;
    println!("     {files} files in {folders} shards by a worker of {MEMORY}, complete after {took:.1?}");
    Ok(())
}

fn make_files(root: &Path, folders: usize) -> Result {
    for folder in 0..folders {
        let folder = root.join(format!("folder-{folder:04}"));
        fs::create_dir(&folder)?;
        for file in 0..IN_A_FOLDER {
            fs::File::create(folder.join(format!("a file with a name that is not short {file:04}.txt")))?;
        }
    }
    Ok(())
}
