//! The parts of the operator, wired together. When one of them ends, all of them do.

use std::{io, sync::Arc, time::Duration};

use prometheus_client::metrics::gauge::Gauge;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    task::{JoinError, JoinSet},
    time::timeout,
};
use tracing::{info, warn};

use crate::{
    announce,
    authority::{Authority, AuthorityError},
    client::{self, ConnectError},
    clock::ChanceError,
    controller::{self, Caches, Turns},
    desks::{Desks, Office},
    health::{self, Health, HealthError},
    leader::{Candidate, WentBack},
    metrics::Metrics,
    nodes,
    reconcile::Context,
    serve::{self, Reception, ServeError},
    settings::Settings,
    telemetry::chain,
};

/// How long the parts may take to end. A Kubernetes node gives five seconds, a user's patience two.
const FAREWELL: Duration = Duration::from_millis(1500);

/// The operator does not run.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// Another cryptography is installed already.
    #[error("cannot install the cryptography")]
    Cryptography,
    /// No way to the API server.
    #[error("cannot start without the API server")]
    Connect(#[from] ConnectError),
    /// No certificate authority.
    #[error("cannot start without a certificate authority")]
    Authority(#[from] AuthorityError),
    /// No identity.
    #[error("cannot start without an identity")]
    Identity(#[from] ChanceError),
    /// Signals cannot be heard.
    #[error("cannot listen for signals")]
    Signals(#[source] io::Error),
    /// Sessions are not accepted.
    #[error("cannot go on without sessions")]
    Sessions(#[from] ServeError),
    /// Probes are not served.
    #[error("cannot go on without probes")]
    Health(#[from] HealthError),
    /// The API server was restored.
    #[error("cannot go on")]
    WentBack(#[from] WentBack),
    /// A part ended that runs for ever.
    #[error("cannot go on without {0}")]
    Ended(&'static str),
    /// A part panicked.
    #[error("cannot go on after a panic")]
    Panic(#[source] JoinError),
}

type Parts = JoinSet<Result<(), ProgramError>>;

/// Runs the operator until it is told to stop.
///
/// # Errors
/// When a part cannot start, or ends by itself.
pub async fn run(settings: Settings) -> Result<(), ProgramError> {
    rustls::crypto::aws_lc_rs::default_provider().install_default().map_err(|_| ProgramError::Cryptography)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(ProgramError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ProgramError::Signals)?;
    let (stop, stopping) = watch::channel(false);
    let mut parts = Parts::new();
    let working = async {
        start(settings, &stopping, &mut parts).await?;
        match parts.join_next().await {
            Some(Ok(Err(failure))) => Err(failure),
            Some(Err(panic)) => Err(ProgramError::Panic(panic)),
            Some(Ok(Ok(()))) | None => Err(ProgramError::Ended("all its parts")),
        }
    };
    let ended = tokio::select! {
        ended = working => ended,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    info!("stopping");
    stop.send_replace(true);
    let farewell = async {
        while let Some(part) = parts.join_next().await {
            if let Err(panic) = part {
                warn!(error = chain(&panic), "a part panicked on its way out");
            }
        }
    };
    if timeout(FAREWELL, farewell).await.is_err() {
        warn!("not everything ended in time");
    }
    ended
}

/// Starts all parts.
async fn start(settings: Settings, stopping: &watch::Receiver<bool>, parts: &mut Parts) -> Result<(), ProgramError> {
    let client = client::connect().await?;
    let (lead, leading) = watch::channel(false);
    let (metrics, health) = (Metrics::default(), Arc::new(Health::default()));
    let registry = metrics.registry();
    let (address, pages) = (settings.http, Arc::clone(&health));
    parts.spawn(until(stopping, async move { Ok(health::serve(address, pages, registry).await?) }));
    let authority = Arc::new(Authority::of_installation(client.clone(), &settings.namespace).await?);
    let (announcer, herald) = announce::pair(client.clone(), settings.pod_name.clone());
    parts.spawn(until(stopping, endless("Events", herald.run())));
    let (wake, wakes) = mpsc::unbounded_channel();
    let (tell, nodes) = watch::channel(None);
    parts.spawn(until(stopping, endless("the watch of nodes", nodes::follow(client.clone(), tell))));
    let desks = Desks::new(Office {
        client: client.clone(),
        limits: settings.limits(),
        announcer: announcer.clone(),
        wake,
        leading: leading.clone(),
        nodes,
        health: Arc::clone(&health),
        metrics: metrics.clone(),
        grants: authority.grants()?,
    });
    parts.spawn(all_closed(stopping.clone(), Arc::clone(&desks)));
    parts.spawn(until(stopping, {
        let (client, desks, signs) = (client.clone(), Arc::clone(&desks), Arc::clone(&authority));
        let reception = Reception::new(client, desks, signs, settings.max_sessions, metrics.sessions.clone())?;
        let (settings, authority, health) = (settings.clone(), Arc::clone(&authority), Arc::clone(&health));
        async move { Ok(serve::serve(settings.sessions, &settings.tls_name(), &authority, reception, &health).await?) }
    }));
    parts.spawn(until(stopping, endless("metrics", follow(leading.clone(), metrics.leader.clone()))));
    let caches = Caches::default();
    let context = Context {
        client: client.clone(),
        pods: caches.pods.clone(),
        desks,
        authority,
        settings: settings.clone(),
        leading,
        health,
    };
    let turns = Turns::new(context, announcer, metrics);
    let watched = settings.watch_namespace.clone();
    parts.spawn(until(
        stopping,
        endless("reconciliation", controller::run(client.clone(), watched, caches, turns, wakes)),
    ));
    if settings.leader_elect {
        let candidate = Candidate::new(client, &settings)?;
        let stopping = stopping.clone();
        parts.spawn(async move {
            candidate.run(lead, stopping).await?;
            Ok(())
        });
    } else {
        parts.spawn(always_lead(lead, stopping.clone()));
    }
    Ok(())
}

/// A part that is dropped where it stands when the operator stops.
fn until<F>(stopping: &watch::Receiver<bool>, part: F) -> impl Future<Output = Result<(), ProgramError>> + use<F>
where
    F: Future<Output = Result<(), ProgramError>>,
{
    let mut stopping = stopping.clone();
    async move {
        tokio::select! {
            ended = part => ended,
            () = stopped(&mut stopping) => Ok(()),
        }
    }
}

/// A part that only ends when something is wrong.
async fn endless(name: &'static str, part: impl Future<Output = ()>) -> Result<(), ProgramError> {
    part.await;
    Err(ProgramError::Ended(name))
}

/// Keeps the process until all desks have said goodbye to their workers: they do when it stops to lead.
async fn all_closed(mut stopping: watch::Receiver<bool>, desks: Arc<Desks>) -> Result<(), ProgramError> {
    stopped(&mut stopping).await;
    desks.all_closed().await;
    Ok(())
}

/// Without election this process leads from the beginning.
async fn always_lead(lead: watch::Sender<bool>, mut stopping: watch::Receiver<bool>) -> Result<(), ProgramError> {
    lead.send_replace(true);
    stopped(&mut stopping).await;
    lead.send_replace(false);
    Ok(())
}

/// Shows in the metrics whether this process leads.
async fn follow(mut leading: watch::Receiver<bool>, gauge: Gauge) {
    loop {
        gauge.set(i64::from(*leading.borrow_and_update()));
        if leading.changed().await.is_err() {
            return;
        }
    }
}

async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, which is the end as well.
    let _stopped = stopping.wait_for(|stop| *stop).await.is_ok();
}
