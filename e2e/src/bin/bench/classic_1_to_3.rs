//! One input, three outputs: beside the loop that everybody writes first, which reads 4,096 bytes and writes them three
//! times, synced at its end and not. Ours is the same job both times: verified, and durable always.

use std::path::Path;

use hyperflow_e2e::Result;

use crate::{
    bench::{Bench, Input, settle},
    copy_file::{MEBIBYTES, gigabytes},
    ours, peers,
    row::{Of, Reach, Row, Sample},
};

static DURABLE: Row = Row { name: "classic_1_to_3", unit: "GB/s", reach: Reach::Times(2.4), of: Of::Median };
static NOT_DURABLE: Row =
    Row { name: "classic_1_to_3_not_durable", unit: "GB/s", reach: Reach::Times(3.0), of: Of::Median };
const COPIES: usize = 3;

pub async fn run(bench: &Bench) -> Result<Vec<Sample>> {
    let input = bench.input(MEBIBYTES)?;
    let python = peers::install("python");
    let python = python.as_deref().map_err(ToString::to_string);
    let peer = async {
        let durable = literal_loop(bench, &input, python.clone(), "--durable").await;
        (durable, literal_loop(bench, &input, python.clone(), "--not-durable").await)
    };
    let (ours, (durable, not_durable)) = bench.in_turn(rate(bench, &input), peer).await;
    let (ours, note) = ours?;
    let durable = peers::measured("4,096-byte loop, synced", durable);
    let not_durable = peers::measured("4,096-byte loop, not synced (ours is)", not_durable);
    Ok(vec![
        Sample { row: &DURABLE, ours: vec![ours], peer: durable, note: note.clone() },
        Sample { row: &NOT_DURABLE, ours: vec![ours], peer: not_durable, note },
    ])
}

async fn rate(bench: &Bench, input: &Input) -> Result<(f64, String)> {
    let mut manifest = ours::copy("64Mi", 2, 2);
    manifest["spec"]["task"]["copy"]["copies"] = COPIES.into();
    manifest["spec"]["output"]["path"] = "copy-{copy}/part-{index}".into();
    bench
        .within(async |place| {
            input.provide(place)?;
            settle(input).await?;
            let taken = ours::run_copy(place, manifest).await?;
            ours::check(input, &place.path("out"), COPIES)?;
            Ok((gigabytes(input) / taken.seconds, taken.note))
        })
        .await
}

async fn literal_loop(
    bench: &Bench,
    input: &Input,
    python: std::result::Result<&Path, String>,
    how: &str,
) -> Result<f64> {
    let python = python?;
    bench
        .within(async |place| {
            settle(input).await?;
            let (source, folder) = (input.path.display().to_string(), place.path("out").display().to_string());
            Ok(gigabytes(input) / peers::script(python, "classic_loop.py", &[&source, &folder, how])?)
        })
        .await
}
