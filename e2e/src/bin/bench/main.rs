//! `make bench`: our figures beside the peers', interleaved in one run on one machine; medians.
//!
//! Prints a table and writes `bench.jsonl`, a line for each row. A reach that is missed is printed, not hidden.
//! `docs/bench.md` says how each figure is measured, and what is fair and what is not.

#![allow(clippy::print_stdout, reason = "a benchmark speaks to people")]

mod bench;
mod block_read_local_vs_source;
mod classic_1_to_3;
mod command_vs_hyperqueue;
mod command_vs_job;
mod command_vs_xargs;
mod copy_file;
mod copy_file_vs_rclone;
mod indexed_job;
mod million_shards;
mod node_silent;
mod noop_shards;
mod noop_vs_ray;
mod ours;
mod peers;
mod report;
mod rereplicate;
mod returned_node;
mod row;
mod small_shards;
mod straggler;
mod worker_killed;

use std::{path::PathBuf, pin::Pin, process::ExitCode};

use clap::Parser;
use hyperflow_e2e::{Result, cluster::VOLUMES, ensure};

use crate::{
    bench::Bench,
    report::digits,
    row::{Peer, Runs, Sample},
};

/// Measures a row, or rows that are measured together, once.
type Measure = for<'a> fn(&'a Bench) -> Pin<Box<dyn Future<Output = Result<Vec<Sample>>> + 'a>>;

macro_rules! rows {
    ($($name:ident),* $(,)?) => {
        &[$((stringify!($name), |bench| Box::pin($name::run(bench)))),*]
    };
}

/// In the order of the table. What breaks a node comes last.
const ROWS: &[(&str, Measure)] = rows![
    noop_shards,
    noop_vs_ray,
    copy_file,
    copy_file_vs_rclone,
    classic_1_to_3,
    small_shards,
    million_shards,
    command_vs_job,
    command_vs_xargs,
    command_vs_hyperqueue,
    straggler,
    block_read_local_vs_source,
    rereplicate,
    worker_killed,
    node_silent,
    returned_node,
];

/// Measures on the cluster of KUBECONFIG and on this machine's file system.
#[derive(Parser)]
struct Settings {
    /// Runs of each row, ours and the peer's in turn.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Only these rows, with commas between them.
    #[arg(long, value_delimiter = ',')]
    rows: Vec<String>,
    /// Where inputs are kept from one benchmark to the next; on the file system of the volumes.
    #[arg(long, default_value = VOLUMES)]
    inputs: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Settings::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("the benchmark failed: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything of ours could be measured.
async fn run(settings: Settings) -> Result<bool> {
    let chosen = chosen(&settings.rows)?;
    let mut bench = Bench::begin(settings.inputs).await?;
    let mut all: Vec<Runs> = Vec::new();
    let mut failed: Vec<&str> = Vec::new();
    for run in 1..=settings.runs {
        println!("run {run} of {}", settings.runs);
        bench.run = run;
        for &(name, measure) in &chosen {
            // Once is enough to know, and the next rows are worth their time.
            if failed.contains(&name) {
                continue;
            }
            match measure(&bench).await {
                Ok(samples) => samples.into_iter().for_each(|sample| add(&mut all, sample)),
                Err(error) => {
                    println!("  {name:<26} FAILED: {error}");
                    failed.push(name);
                }
            }
        }
    }
    report::report(&all)?;
    if !failed.is_empty() {
        println!("\ncould not be measured: {}", failed.join(", "));
    }
    Ok(failed.is_empty())
}

fn chosen(names: &[String]) -> Result<Vec<(&'static str, Measure)>> {
    for name in names {
        let known = || ROWS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        ensure(ROWS.iter().any(|(row, _)| row == name), || format!("there is no row '{name}'; there are {}", known()))?;
    }
    let wanted = |(row, _): &&(&str, Measure)| names.is_empty() || names.iter().any(|name| name == row);
    Ok(ROWS.iter().filter(wanted).copied().collect())
}

fn add(all: &mut Vec<Runs>, sample: Sample) {
    let (name, unit) = (sample.row.name, sample.row.unit);
    let ours = sample.ours.iter().copied().map(digits).collect::<Vec<_>>().join(" ");
    let peer = match &sample.peer {
        Peer::Measured { name, values } => {
            format!("{name} {}", values.iter().copied().map(digits).collect::<Vec<_>>().join(" "))
        }
        Peer::Stated { name, value } => format!("{name}: {}", digits(*value)),
        Peer::None(why) => why.clone(),
    };
    let note = if sample.note.is_empty() { String::new() } else { format!(" ({})", sample.note) };
    println!("  {name:<26} {ours} {unit}{note}; {peer}");
    match all.iter_mut().find(|runs| runs.row.name == name) {
        Some(runs) => runs.add(sample),
        None => {
            let mut runs = Runs::new(sample.row);
            runs.add(sample);
            all.push(runs);
        }
    }
}
