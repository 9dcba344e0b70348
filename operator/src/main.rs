//! The operator program: reconciles ShardJobs into worker pods and leases shards to them.
//!
//! | concern | file |
//! | --- | --- |
//! | which replica leads | `leader.rs` |
//! | watches, and turns for jobs | `controller.rs`, and one turn as a table of contents in `reconcile.rs` |
//! | how things are watched; the cluster's nodes | `watching.rs`, `nodes.rs` |
//! | what is there, what should be, making it so | `observe.rs`, `build.rs`, `apply.rs` |
//! | a job's coordinator, and its one task | `desk.rs`; all of them in `desks.rs`, reached by `handle.rs` |
//! | status and Events | `report.rs`, `announce.rs` |
//! | what a deletion waits for; when a job that has ended is deleted | `finalizer.rs`, `expire.rs` |
//! | workers' sessions: accepting, proving, reading | `serve.rs`, `authority.rs`, `identity.rs`, `credential.rs`, `session.rs` |
//! | what workers show to one another | `passport.rs`, `grants.rs` |
//! | probes and metrics; asking them | `health.rs`, `metrics.rs`; `check.rs` |
//!
//! Decisions about shards and leases are in `hyperflow-core`; none is made here.

mod announce;
mod apply;
mod authority;
mod build;
mod check;
mod client;
mod clock;
mod controller;
mod credential;
mod desk;
mod desks;
mod expire;
mod finalizer;
mod grants;
mod handle;
mod health;
mod identity;
mod leader;
mod metrics;
mod nodes;
mod observe;
mod owner;
mod passport;
mod program;
mod reconcile;
mod report;
mod serve;
mod session;
mod settings;
mod telemetry;
mod watching;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use tracing::error;

use crate::settings::{Check, Request, Settings};

fn main() -> ExitCode {
    match Request::read(std::env::args_os()) {
        Ok(Request::Run(settings)) => run(*settings),
        Ok(Request::Definition) => print_definition(),
        Ok(Request::Check(check)) => run_check(&check),
        Err(error) => error.exit(),
    }
}

fn print_definition() -> ExitCode {
    let yaml = match hyperflow_api::crd::shardjob_crd_yaml() {
        Ok(yaml) => yaml,
        Err(error) => return fail(&telemetry::chain(&error)),
    };
    match io::stdout().write_all(yaml.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("cannot print the definition: {error}")),
    }
}

fn run_check(check: &Check) -> ExitCode {
    let replicas = match check::run(check) {
        Ok(replicas) => replicas,
        Err(error) => return fail(&telemetry::chain(&error)),
    };
    match writeln!(io::stdout(), "replicas that are ready: {replicas}; one leads") {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("cannot print the outcome: {error}")),
    }
}

fn run(settings: Settings) -> ExitCode {
    if let Err(error) = telemetry::start(&settings.log_filter) {
        return fail(&telemetry::chain(&error));
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start threads: {error}")),
    };
    let ended = runtime.block_on(program::run(settings));
    // Whatever still runs has had its time to end.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            error!(error = telemetry::chain(&failure), "the operator failed");
            ExitCode::FAILURE
        }
    }
}

/// For what goes wrong before there is a log.
fn fail(message: &str) -> ExitCode {
    // With nowhere left to say it, the exit code says it.
    let _unsaid = writeln!(io::stderr(), "error: {message}");
    ExitCode::FAILURE
}
