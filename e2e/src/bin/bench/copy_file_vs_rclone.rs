//! The same copy beside rclone, which verifies as we do (it reads both sides again for their MD5), and syncs nothing.

use std::{path::Path, process::Command};

use hyperflow_e2e::Result;

use crate::{
    bench::{Bench, Input, settle},
    copy_file::{MEBIBYTES, gigabytes, rate},
    peers,
    row::{Of, Peer, Reach, Row, Sample},
};

static ROW: Row = Row { name: "copy_file_vs_rclone", unit: "GB/s", reach: Reach::Times(4.0), of: Of::Median };

pub async fn run(bench: &Bench) -> Result<Vec<Sample>> {
    let input = bench.input(MEBIBYTES)?;
    let rclone = async {
        match peers::install("rclone") {
            Ok(rclone) => peers::measured(peers::version(&rclone), copied(bench, &input, &rclone).await),
            Err(error) => Peer::None(format!("no figure of rclone: {error}")),
        }
    };
    let (ours, peer) = bench.in_turn(rate(bench, &input), rclone).await;
    let (ours, note) = ours?;
    Ok(vec![Sample { row: &ROW, ours: vec![ours], peer, note }])
}

async fn copied(bench: &Bench, input: &Input, rclone: &Path) -> Result<f64> {
    bench
        .within(async |place| {
            settle(input).await?;
            // A configuration of this machine's user is none of the measurement's business.
            let mut command = Command::new(rclone);
            command.args(["--config", "/dev/null", "copyto"]).arg(&input.path).arg(place.path("out/copy"));
            Ok(gigabytes(input) / peers::time(&mut command)?.as_secs_f64())
        })
        .await
}
