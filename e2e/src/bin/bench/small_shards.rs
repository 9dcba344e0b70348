//! Small durable results, 64 KiB each: beside a loop that does for each of them what a file needs to be there whole
//! after a failure of power, and no more: write aside, sync, rename, sync the folder.

use std::{
    fs::{self, File},
    io::{Read, Write},
    path::Path,
    time::Instant,
};

use hyperflow_e2e::Result;

use crate::{
    bench::{Bench, Input, settle},
    ours, peers,
    row::{Of, Reach, Row, Sample},
};

static ROW: Row = Row { name: "small_shards", unit: "shards/s", reach: Reach::Times(0.8), of: Of::Median };

const BYTES: usize = 64 << 10;
/// 16,384 shards: enough for more than ten seconds.
const MEBIBYTES: usize = 1024;

pub async fn run(bench: &Bench) -> Result<Vec<Sample>> {
    let input = bench.input(MEBIBYTES)?;
    let (ours, peer) = bench.in_turn(rate(bench, &input), files(bench, &input)).await;
    let (ours, note) = ours?;
    Ok(vec![Sample { row: &ROW, ours: vec![ours], peer: peers::measured("one file and fsync each", peer), note }])
}

async fn rate(bench: &Bench, input: &Input) -> Result<(f64, String)> {
    bench
        .within(async |place| {
            input.provide(place)?;
            settle(input).await?;
            let taken = ours::run_copy(place, ours::copy("64Ki", 2, 8)).await?;
            ours::check(input, &place.path("out"), 1)?;
            Ok((taken.shards / taken.seconds, taken.note))
        })
        .await
}

async fn files(bench: &Bench, input: &Input) -> Result<f64> {
    bench
        .within(async |place| {
            settle(input).await?;
            one_file_each(&input.path, &place.path("out"))
        })
        .await
}

fn one_file_each(input: &Path, folder: &Path) -> Result<f64> {
    let (mut input, names) = (File::open(input)?, File::open(folder)?);
    let mut buffer = vec![0; BYTES];
    let start = Instant::now();
    let mut count = 0;
    while input.read(&mut buffer)? == BYTES {
        let (aside, path) = (folder.join("aside"), folder.join(format!("part-{count:06}")));
        let mut file = File::create(&aside)?;
        file.write_all(&buffer)?;
        file.sync_data()?;
        fs::rename(&aside, &path)?;
        names.sync_all()?;
        count += 1;
    }
    Ok(f64::from(count) / start.elapsed().as_secs_f64())
}
