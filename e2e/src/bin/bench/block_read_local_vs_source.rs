//! A program reads all of its input from blocks on the disks of its nodes, beside the same from the source. The source is
//! on the same disk here, and both are in the page cache: this is what blocks cost, not what they save.

use std::{
    pin::pin,
    time::{Duration, Instant},
};

use hyperflow_api::ShardJobStatus;
use hyperflow_e2e::{Result, cluster::Place, stores::Moved};
use serde_json::Value;

use crate::{
    bench::{Bench, Input, settle},
    ours, peers,
    row::{Of, Reach, Row, Sample},
};

static ROW: Row = Row { name: "block_read_local_vs_source", unit: "MB/s", reach: Reach::Times(0.8), of: Of::Median };

const MEBIBYTES: usize = 768;
const SHARDS: u32 = 96;
/// How often workers are asked what they have read.
const ASK: Duration = Duration::from_millis(250);

pub async fn run(bench: &Bench) -> Result<Vec<Sample>> {
    let input = bench.input(MEBIBYTES)?;
    let ours = bench.within(async |place| read(place, &input, ours::gated("8Mi", 3, Some(3))).await);
    let peer = bench.within(async |place| read(place, &input, ours::gated("8Mi", 3, None)).await);
    let (ours, peer) = bench.in_turn(ours, peer).await;
    let ((ours, share), peer) = (ours?, peer.map(|(rate, _)| rate));
    let note = format!("{:.0} % of the bytes read locally", 100.0 * share);
    Ok(vec![Sample { row: &ROW, ours: vec![ours], peer: peers::measured("the source itself", peer), note }])
}

/// MB a second from the opening of the gate to Complete, and what of them was local.
async fn read(place: &Place, input: &Input, mut manifest: Value) -> Result<(f64, f64)> {
    input.provide(place)?;
    manifest["spec"]["task"]["exec"]["command"][2] = format!("{}; cat > /dev/null", ours::GATE).into();
    let blocks = manifest["spec"]["blocks"].is_object();
    let job = place.apply(manifest).await?;
    if blocks {
        place.replicated(&job, SHARDS, 3, &[], ours::LIMIT).await?;
    } else {
        let begun = |status: &ShardJobStatus| (ours::active(status) > 4).then_some(());
        job.wait("shards", ours::LIMIT, begun).await?;
    }
    settle(input).await?;
    let start = Instant::now();
    place.write("go", b"")?;
    let (mut complete, mut moved) = (pin!(job.complete(ours::LIMIT)), Moved::default());
    // Workers can be asked as long as they are there, which may not be until somebody has heard that it is complete.
    let seconds = loop {
        let ask = async {
            tokio::time::sleep(ASK).await;
            if blocks { place.block_bytes().await } else { Ok(moved) }
        };
        tokio::select! {
            ended = &mut complete => break ended.map(|_| start.elapsed().as_secs_f64())?,
            asked = ask => moved = asked?,
        }
    };
    Ok((input.bytes as f64 / 1e6 / seconds, moved.share_local()))
}
