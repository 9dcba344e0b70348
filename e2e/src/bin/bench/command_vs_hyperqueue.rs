//! The same beside HyperQueue, whose tasks are processes too.

use hyperflow_e2e::Result;

use crate::{
    bench::Bench,
    command_vs_job::LINE,
    command_vs_xargs, peers,
    row::{Of, Reach, Row, Sample},
};

static ROW: Row = Row { name: "command_vs_hyperqueue", unit: "shards/s", reach: Reach::Times(2.5), of: Of::Median };

pub async fn run(bench: &Bench) -> Result<Vec<Sample>> {
    let peer = async {
        let python = peers::install("hyperqueue")?;
        peers::script(&python, "hyperqueue_true.py", &["10000", "2", LINE])
    };
    let (ours, peer) = bench.in_turn(command_vs_xargs::rate(bench), peer).await;
    let (ours, note) = ours?;
    Ok(vec![Sample { row: &ROW, ours: vec![ours], peer: peers::measured("HyperQueue", peer), note }])
}
