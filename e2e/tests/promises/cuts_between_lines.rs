//! Text is cut between its lines, and FASTA between its records, wherever the sizes fall: no line is torn, none is lost,
//! none is twice.

use std::time::Duration;

use hyperflow_e2e::{Result, cluster::Place, ensure, oracle};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(90);
const SHARD: usize = 4096;

pub async fn keeps(place: &Place) -> Result {
    tokio::try_join!(lines(place), records(place))?;
    Ok(())
}

/// Lines that end with CRLF, one that is longer than two shards, and a last one without an end; beside a file that is
/// smaller than a shard.
async fn lines(place: &Place) -> Result {
    let mut text: String = (0..300).map(|line| format!("{line},{}\r\n", "x".repeat(line % 77))).collect();
    text.push_str(&format!("{}\r\n", "long".repeat(SHARD * 5 / 8)));
    text.extend((0..300).map(|line| format!("{line}\r\n\r\n")));
    text.push_str("the end");
    let small = "one\ntwo";
    place.write("in/lines/a.csv", text.as_bytes())?;
    place.write("in/lines/b.csv", small.as_bytes())?;
    let source = json!({"url": "file:///data/in/lines/", "boundary": "Line", "bytesPerShard": SHARD});
    let job = place.apply(super::copy_of("lines", &source, "file:///data/out/lines/", "part-{index}")).await?;
    job.complete(LIMIT).await?;
    let mut parts = parts(place, "out/lines")?;
    ensure(parts.pop().as_deref() == Some(small.as_bytes()), || "the small file is not the last part".into())?;
    ensure(parts.iter().any(Vec::is_empty), || "the long line makes no part empty".into())?;
    check(text.as_bytes(), &parts, "\n")
}

/// Records of FASTA: cut only before a line that starts with '>', not before one in a line.
async fn records(place: &Place) -> Result {
    let record = |number: usize| format!(">seq{number} of >all\n{}\nAC>GT\n", "ACGT".repeat(number % 97 + 1));
    let text: String = (0..120).map(record).collect();
    place.write("in/all.fasta", text.as_bytes())?;
    let source = json!({
        "url": "file:///data/in/all.fasta", "boundary": "Line", "bytesPerShard": "4Ki", "recordPrefix": ">"
    });
    let job = place.apply(super::copy_of("fasta", &source, "file:///data/out/fasta/", "part-{index}")).await?;
    job.complete(LIMIT).await?;
    check(text.as_bytes(), &parts(place, "out/fasta")?, "\n>")
}

fn parts(place: &Place, folder: &str) -> Result<Vec<Vec<u8>>> {
    Ok(oracle::tree(&place.path(folder))?.into_values().collect())
}

/// Each part begins with the first record that starts at or after where its size alone would cut; `start` is what a
/// record starts with, and the line end before it.
fn check(text: &[u8], parts: &[Vec<u8>], start: &str) -> Result {
    let wanted = text.len().div_ceil(SHARD);
    ensure(parts.len() == wanted && wanted > 3, || format!("{} parts, not {wanted}", parts.len()))?;
    ensure(parts.concat() == text, || "the parts together are not the text".into())?;
    let mut position = 0;
    for (index, part) in parts.iter().enumerate() {
        let starts = |at: &usize| *at == 0 || text[at - 1..].starts_with(start.as_bytes());
        let wanted = (index * SHARD..text.len()).find(starts).unwrap_or(text.len());
        ensure(position == wanted, || format!("part {index} begins at byte {position}, not {wanted}"))?;
        position += part.len();
    }
    Ok(())
}
