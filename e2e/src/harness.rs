//! Runs promises: most side by side, each in a namespace of its own; those that break what all share run alone.

#![allow(clippy::print_stdout, reason = "a test program speaks to people")]

use std::{future::Future, pin::Pin, time::Instant};

use futures::{StreamExt, stream};

use crate::{
    Result,
    cluster::{Cluster, Place},
    diagnosis::diagnose,
};

/// How many run at a time: pods of all of them share two cores.
const BESIDE: usize = 4;

/// A test in a place of its own.
pub type Body = for<'a> fn(&'a Place) -> Pin<Box<dyn Future<Output = Result> + Send + 'a>>;

/// A promise and how it is tried.
#[derive(Clone, Copy)]
pub struct Promise {
    /// A sentence with underscores; also the file it is in.
    pub name: &'static str,
    /// It breaks something that other tests use.
    pub alone: bool,
    /// The test.
    pub body: Body,
}

/// Whether promises are tried in their long form, as `make soak` does: more kills, for longer.
#[must_use]
pub fn soak() -> bool {
    std::env::var("HYPERFLOW_SOAK").is_ok_and(|value| !["", "0"].contains(&value.as_str()))
}

/// Runs those whose names contain one of the words given as arguments; how many were kept and broken. Which were broken is
/// said once more in the end, where it is found.
///
/// # Errors
/// When there is no cluster.
pub async fn run(promises: &[Promise], words: &[String]) -> Result<(usize, usize)> {
    let cluster = Cluster::connect().await?;
    let chosen = |promise: &&Promise| words.is_empty() || words.iter().any(|word| promise.name.contains(word));
    let (alone, beside): (Vec<Promise>, Vec<Promise>) =
        promises.iter().filter(chosen).copied().partition(|promise| promise.alone);
    let all = alone.len() + beside.len();
    let mut broken: Vec<String> = stream::iter(beside)
        .map(|promise| keep(&cluster, promise))
        .buffer_unordered(BESIDE)
        .filter_map(async |broken| broken)
        .collect()
        .await;
    for promise in alone {
        broken.extend(keep(&cluster, promise).await);
    }
    for line in &broken {
        println!("broken: {line}");
    }
    Ok((all - broken.len(), broken.len()))
}

/// The name of a promise that is broken, and why.
async fn keep(cluster: &Cluster, promise: Promise) -> Option<String> {
    let start = Instant::now();
    let outcome = try_once(cluster, promise).await;
    let seconds = start.elapsed().as_secs_f32();
    match outcome {
        Ok(()) => {
            println!("test {} ... ok ({seconds:.1} s)", promise.name);
            None
        }
        Err(error) => {
            println!("test {} ... FAILED ({seconds:.1} s)\n{error}", promise.name);
            let first: String = error.to_string().lines().next().unwrap_or_default().chars().take(300).collect();
            Some(format!("{}: {first}", promise.name))
        }
    }
}

async fn try_once(cluster: &Cluster, promise: Promise) -> Result {
    let place = cluster.place(promise.name).await?;
    let outcome = (promise.body)(&place).await;
    if let Err(error) = outcome {
        return Err(format!("{error}\n{}", diagnose(&place).await).into());
    }
    place.remove().await
}
