//! The worker: takes leases from the operator, runs shards, makes checkpoints, and publishes results exactly once.
//!
//! What it does is decided by `hyperflow_core::worker`; what is here waits, asks, does, and tells.
//!
//! | what | where |
//! | --- | --- |
//! | the loop of the process | [`session`] |
//! | the stream to the operator | [`uplink`], opened by [`connect`] |
//! | attempts and their [`threads`] | [`runner`], [`attempt`], with what they share in [`work`] |
//! | a shard's input is read, its task done | [`shard`]: [`copy`] or [`checksum`], or a program's: [`exec`], from a [`stream`] of [`input`] |
//! | the user's last command runs over the report | [`finally`] |
//! | how far an attempt is | [`progress`], in [`segments`], written [`direct`]ly, with [`checkpoints`] |
//! | copies of the input are kept, given to others, and read | [`blocks`] |
//! | a result becomes visible, once | [`publish`], on the create-only [`store`]; then the [`records`] |
//! | the plan is made | [`planner`]: [`draft`] from [`listing`] and [`lookup`], [`names`], [`claim`]; then a [`plan_file`] |
//! | temporary files go | [`sweep`] |
//! | this program comes into the user's image | [`install`] |
//! | what an I/O error means | [`fault`] |

mod attempt;
mod blocks;
mod chance;
mod checkpoints;
mod checksum;
mod claim;
mod connect;
mod copy;
mod direct;
mod draft;
mod exec;
mod fault;
mod finally;
mod hash;
mod input;
mod install;
mod listing;
mod logs;
mod lookup;
mod metrics;
mod names;
mod plan_file;
mod planner;
mod progress;
mod publish;
mod records;
mod report;
mod runner;
mod segments;
mod serve;
mod session;
mod settings;
mod shard;
mod store;
mod stream;
mod sweep;
#[cfg(test)]
mod tests;
mod threads;
mod uplink;
mod work;

use std::{error::Error, process::ExitCode, sync::Arc, time::Duration};

use clap::Parser;
use hyperflow_api::ids::WorkerId;
use tokio::net::TcpListener;
use tracing::Instrument;

use crate::{install::Install, metrics::Metrics, serve::Vitals, session::Session, settings::Settings};

/// What still runs when the session has ended, a name lookup or a probe, gets so long.
const STRAGGLERS: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|first| first == install::NAME) {
        return install();
    }
    let settings = Settings::parse();
    logs::begin(&settings.log);
    match start(settings) {
        Ok(reason) => {
            tracing::info!(reason, "the worker ends");
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!(error, "the worker cannot work");
            ExitCode::FAILURE
        }
    }
}

fn install() -> ExitCode {
    logs::begin("info");
    match Install::parse_from(std::env::args_os().skip(1)).run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "this program cannot be installed");
            ExitCode::FAILURE
        }
    }
}

fn start(settings: Settings) -> Result<&'static str, Box<dyn Error>> {
    rustls::crypto::aws_lc_rs::default_provider().install_default().map_err(|_| "another TLS provider is installed")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let id = WorkerId { pod_uid: settings.pod_uid.clone(), nonce: chance::random()? };
    let span = tracing::info_span!("session", job = settings.job_uid, worker = %id);
    let ended = runtime.block_on(work(settings, id).instrument(span));
    runtime.shutdown_timeout(STRAGGLERS);
    ended
}

async fn work(settings: Settings, id: WorkerId) -> Result<&'static str, Box<dyn Error>> {
    tracing::info!(version = env!("CARGO_PKG_VERSION"), slots = settings.slots, "the worker begins");
    let (metrics, vitals) = (Arc::<Metrics>::default(), Arc::<Vitals>::default());
    let session = Session::new(&settings, id, metrics.clone(), vitals.clone())?;
    let bound = TcpListener::bind(settings.http).await;
    let listener = bound.map_err(|error| format!("cannot listen on {}: {error}", settings.http))?;
    let blocks = session.keeper();
    let blocks = async {
        match blocks.as_ref().and_then(|keeper| Some((keeper.clone(), keeper.listener()?))) {
            Some((keeper, listener)) => blocks::serve::run(keeper, listener).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        reason = session.run() => Ok(reason),
        served = blocks => {
            served.map_err(|error| format!("cannot go on serving blocks: {error}"))?;
            Err("nobody serves blocks any more".into())
        }
        served = serve::run(listener, vitals, metrics) => {
            served?;
            Err("nobody answers probes any more".into())
        }
    }
}
