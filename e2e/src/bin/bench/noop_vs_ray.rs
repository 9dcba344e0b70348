//! The same no-op shards beside Ray's remote tasks that return their argument, on the same two cores in the same run.
//! Ray's are Python functions of a user; ours are built in. Both figures are what scheduling costs.

use hyperflow_e2e::Result;

use crate::{
    bench::Bench,
    noop_shards, peers,
    row::{Of, Reach, Row, Sample},
};

static ROW: Row = Row { name: "noop_vs_ray", unit: "shards/s", reach: Reach::Times(10.0), of: Of::Median };

pub async fn run(bench: &Bench) -> Result<Vec<Sample>> {
    let ray = async {
        let python = peers::install("ray")?;
        peers::script(&python, "ray_noop.py", &[])
    };
    let (ours, peer) = bench.in_turn(noop_shards::rate(bench), ray).await;
    let (ours, note) = ours?;
    Ok(vec![Sample { row: &ROW, ours: vec![ours], peer: peers::measured("Ray tasks", peer), note }])
}
