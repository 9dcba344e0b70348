//! A verified, durable copy of a big file in parts, beside `cp` and `sync`, which verify nothing.

use std::process::Command;

use hyperflow_e2e::Result;

use crate::{
    bench::{Bench, Input, settle},
    ours, peers,
    row::{Of, Reach, Row, Sample},
};

static ROW: Row = Row { name: "copy_file", unit: "GB/s", reach: Reach::Times(0.8), of: Of::Median };

/// Size of the input, so that what happens once a second in status counts little.
pub const MEBIBYTES: usize = 4096;

pub async fn run(bench: &Bench) -> Result<Vec<Sample>> {
    let input = bench.input(MEBIBYTES)?;
    let (ours, peer) = bench.in_turn(rate(bench, &input), cp_and_sync(bench, &input)).await;
    let (ours, note) = ours?;
    Ok(vec![Sample { row: &ROW, ours: vec![ours], peer: peers::measured("cp && sync", peer), note }])
}

/// Bytes a second of our copy, in GB.
pub async fn rate(bench: &Bench, input: &Input) -> Result<(f64, String)> {
    bench
        .within(async |place| {
            input.provide(place)?;
            settle(input).await?;
            let taken = ours::run_copy(place, ours::copy("64Mi", 2, 2)).await?;
            ours::check(input, &place.path("out"), 1)?;
            Ok((gigabytes(input) / taken.seconds, taken.note))
        })
        .await
}

/// What the input is in GB, each of a billion bytes.
pub fn gigabytes(input: &Input) -> f64 {
    input.bytes as f64 / 1e9
}

async fn cp_and_sync(bench: &Bench, input: &Input) -> Result<f64> {
    bench
        .within(async |place| {
            settle(input).await?;
            let output = place.path("out/copy");
            let copied = peers::time(Command::new("cp").arg(&input.path).arg(&output))?;
            let synced = peers::time(Command::new("sync").arg(&output))?;
            Ok(gigabytes(input) / (copied + synced).as_secs_f64())
        })
        .await
}
