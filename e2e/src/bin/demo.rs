//! `make demo`: a real file of more than a gigabyte, copied in parts by a real cluster that loses a worker half-way.
//!
//! Exit code 0 only if everything that the table at the end says held.

#![allow(clippy::print_stdout, reason = "a demo speaks to people")]

use std::{
    fs,
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use hyperflow_api::ShardJobStatus;
use hyperflow_e2e::{
    Result,
    cluster::{Cluster, Place},
    diagnosis::diagnose,
    ensure,
    job::{self, Attempt, Job, attempts, shards},
    oracle::{self, Record},
};
use k8s_openapi::api::core::v1::Pod;

const LIMIT: Duration = Duration::from_secs(300);
const MIB: f64 = (1 << 20) as f64;

/// Copies a big file in parts on the cluster of KUBECONFIG, kills the busiest worker half-way, and verifies the result.
#[derive(Parser)]
struct Settings {
    /// The file to copy.
    #[arg(long)]
    input: PathBuf,
    /// Keep the namespace, the ShardJob and the files, to look around.
    #[arg(long)]
    keep: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    match demo(&Settings::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("\nThe demo failed: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn demo(settings: &Settings) -> Result {
    let cluster = Cluster::connect().await?;
    let place = cluster.place("demo").await?;
    let outcome = copy(settings, &place).await;
    if let Err(error) = outcome {
        return Err(
            format!("{error}\n\n{}\nLeft to look at: namespace {}", diagnose(&place).await, place.namespace).into()
        );
    }
    if settings.keep {
        println!("\nKept: namespace {0}; try `kubectl -n {0} describe shj copy-in-parts`", place.namespace);
        return Ok(());
    }
    place.remove().await
}

async fn copy(settings: &Settings, place: &Place) -> Result {
    let input = place.path("in/linux.tar");
    provide(&settings.input, &input)?;
    let bytes = fs::metadata(&input)?.len();
    println!("input     {} ({:.2} GiB)", settings.input.display(), bytes as f64 / MIB / 1024.0);
    let job = place.apply(job::manifest("copy-in-parts")?).await?;
    println!("applied   e2e/jobs/copy-in-parts.yaml in namespace {}\n", place.namespace);
    let start = Instant::now();
    let killed = run(&job, place, start).await?;
    let seconds = start.elapsed().as_secs_f64();
    let status = job.status().await?;
    println!("\nverifying that the parts, one after the other, are the input …");
    let total = u32::try_from(shards(&status).total)?;
    let records = oracle::check_copy(&input, &place.path("out"), total)?;
    table(&status, &records, &killed, bytes, seconds);
    let resumed = records.iter().any(|record| record.resumed_from > 0);
    ensure(resumed, || "no shard went on from a checkpoint, though a worker was killed".into())
}

/// Hard-links the input into the volume, or copies it from another file system.
fn provide(source: &Path, target: &Path) -> Result {
    if fs::hard_link(source, target).is_err() {
        fs::copy(source, target)?;
    }
    Ok(())
}

/// Watches the job to its end and kills the busiest worker half-way; says which.
async fn run(job: &Job, place: &Place, start: Instant) -> Result<String> {
    let mut killed = None;
    let mut screen = Screen::new();
    loop {
        let status = job.status().await?;
        screen.show(&status, start.elapsed());
        let counts = shards(&status);
        let half_way = counts.total > 0 && counts.succeeded * 2 >= counts.total;
        if killed.is_none()
            && half_way
            && let Some((pod, held)) = busiest(&status, place).await?
        {
            place.cluster.kill(&pod).await?;
            let name = pod.metadata.name.unwrap_or_default();
            screen.say(&format!("killed    worker {name} (SIGKILL), which was working on shards {held}"));
            killed = Some(name);
        }
        if job::has(&status, "Complete") {
            screen.say(&format!("complete  after {:.1} s", start.elapsed().as_secs_f64()));
            return killed.ok_or_else(|| "the job ended before a worker could be killed".into());
        }
        ensure(!job::has(&status, "Failed"), || format!("the job failed: {:?}", status.conditions))?;
        ensure(start.elapsed() < LIMIT, || "the job takes longer than five minutes".into())?;
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// A worker in the middle of a shard, and all its shards. Status is up to a second old, so a shard counts only while a
/// good part of it is still to do.
async fn busiest(status: &ShardJobStatus, place: &Place) -> Result<Option<(Pod, String)>> {
    let attempts = attempts(status)?;
    let middle =
        |attempt: &&Attempt| attempt.checkpoint.is_some_and(|position| (16 << 20..=40 << 20).contains(&position));
    let Some(busiest) = attempts.iter().filter(middle).max_by_key(|attempt| attempt.checkpoint) else {
        return Ok(None);
    };
    let busiest = busiest.pod.clone();
    let held: Vec<String> = attempts
        .iter()
        .filter(|attempt| attempt.pod == busiest)
        .map(|attempt| {
            format!("{} (checkpoint at {:.0} MiB)", attempt.index, attempt.checkpoint.unwrap_or(0) as f64 / MIB)
        })
        .collect();
    Ok(Some((place.worker(&busiest).await?, held.join(", "))))
}

fn table(status: &ShardJobStatus, records: &[Record], killed: &str, bytes: u64, seconds: f64) {
    let winners: Vec<&Record> = records.iter().filter(|record| !record.found).collect();
    let attempts: u32 = winners.iter().map(|record| record.attempt).sum();
    let again: u64 = winners.iter().map(|record| record.bytes_read_again).sum();
    println!("\n{:<22}{}", "shards", winners.len());
    println!("{:<22}{attempts}", "attempts");
    println!("{:<22}{killed}", "killed worker");
    for record in winners.iter().filter(|record| record.attempt > 1) {
        let (index, from, twice) = (record.index, record.resumed_from, record.bytes_read_again);
        println!("{:<22}resumed from byte {from}, {twice} bytes read twice", format!("  shard {index}"));
    }
    println!("{:<22}{again} of {bytes} ({:.2} %)", "bytes read twice", again as f64 * 100.0 / bytes as f64);
    println!("{:<22}{seconds:.1} ({:.1} MiB/s)", "seconds", bytes as f64 / MIB / seconds);
    let shards = status.shards.clone().unwrap_or_default();
    println!("{:<22}{}", "completedIndexes", shards.completed_indexes);
    println!("{:<22}yes: the parts together are the input, byte for byte", "checksum equal");
    println!("{:<22}yes: every shard has one commit, one record and one result", "published once");
}

/// One line that is written over on a terminal, and a line now and then elsewhere.
struct Screen {
    terminal: bool,
    last: Option<Instant>,
}

impl Screen {
    fn new() -> Self {
        Self { terminal: std::io::stdout().is_terminal(), last: None }
    }

    fn show(&mut self, status: &ShardJobStatus, elapsed: Duration) {
        let pause = if self.terminal { Duration::ZERO } else { Duration::from_secs(4) };
        if self.last.is_some_and(|last| last.elapsed() < pause) {
            return;
        }
        self.last = Some(Instant::now());
        let counts = shards(status);
        let display = status.display.clone().unwrap_or_default();
        let workers = status.workers.clone().unwrap_or_default();
        let width = 24;
        let full = if counts.total > 0 { width * counts.succeeded / counts.total } else { 0 };
        let bar: String = (0..width).map(|cell| if cell < full { '█' } else { '░' }).collect();
        let progress = match display.progress.as_str() {
            "" => "no plan yet".into(),
            progress => format!("{progress:>7} shards, {} active, {} waiting", counts.active, counts.waiting),
        };
        let line = format!(
            "{:>6.1} s  {bar}  {:<9} {progress}, {} of {} workers",
            elapsed.as_secs_f32(),
            display.status,
            workers.ready,
            workers.desired
        );
        if self.terminal {
            print!("\r\x1b[2K{line}");
            let _ = std::io::stdout().flush();
        } else {
            println!("{line}");
        }
    }

    fn say(&self, line: &str) {
        let start = if self.terminal { "\r\x1b[2K" } else { "" };
        println!("{start}{line}");
    }
}
