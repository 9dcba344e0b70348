//! Whether this process does what it is there for: the probes, and the metrics page.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus_client::registry::Registry;
use tokio::{net::TcpListener, time::Instant};

use crate::metrics;

/// Whoever promised progress and made none for so long is stuck: every call in between has a shorter deadline.
const STUCK: Duration = Duration::from_secs(90);

/// Promises of progress, and what must be up before the process counts as ready.
#[derive(Debug, Default)]
pub struct Health {
    /// The watches have delivered everything once.
    pub caches_synced: AtomicBool,
    /// Workers can connect.
    pub sessions_listening: AtomicBool,
    next: AtomicU64,
    promises: Mutex<BTreeMap<u64, (String, Instant)>>,
}

/// A promise of progress: kept by [`Promise::keep`] every now and then, until it is dropped.
#[derive(Debug)]
pub struct Promise {
    health: Arc<Health>,
    number: u64,
}

impl Health {
    /// Promises that something is done soon, or again and again.
    #[must_use]
    pub fn promise(self: &Arc<Self>, what: String) -> Promise {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(number, (what, Instant::now()));
        Promise { health: Arc::clone(self), number }
    }

    /// Who is stuck, if anyone.
    #[must_use]
    pub fn stuck(&self) -> Option<String> {
        self.lock().values().find(|(_, since)| since.elapsed() >= STUCK).map(|(what, _)| what.clone())
    }

    /// What is not up yet, if anything.
    #[must_use]
    pub fn unready(&self) -> Option<&'static str> {
        if !self.caches_synced.load(Ordering::Relaxed) {
            Some("the watches have not delivered everything yet")
        } else if !self.sessions_listening.load(Ordering::Relaxed) {
            Some("sessions are not accepted yet")
        } else {
            None
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, (String, Instant)>> {
        // Nothing in here can panic halfway, so a poisoned map is still a sound one.
        self.promises.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Promise {
    /// There was progress.
    pub fn keep(&self) {
        if let Some((_, since)) = self.health.lock().get_mut(&self.number) {
            *since = Instant::now();
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.health.lock().remove(&self.number);
    }
}

/// The probes cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address} for probes and metrics")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The server gave up.
    #[error("cannot go on serving probes and metrics")]
    Serve(#[source] io::Error),
}

#[derive(Clone)]
struct Pages {
    health: Arc<Health>,
    registry: Arc<Registry>,
}

/// Serves `/healthz`, `/readyz` and `/metrics` for ever.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn serve(address: SocketAddr, health: Arc<Health>, registry: Registry) -> Result<(), HealthError> {
    let pages = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_page))
        .with_state(Pages { health, registry: Arc::new(registry) });
    let listener = TcpListener::bind(address).await.map_err(|source| HealthError::Listen { address, source })?;
    axum::serve(listener, pages).await.map_err(HealthError::Serve)
}

async fn healthz(State(pages): State<Pages>) -> (StatusCode, String) {
    match pages.health.stuck() {
        None => (StatusCode::OK, "ok\n".into()),
        Some(what) => (StatusCode::SERVICE_UNAVAILABLE, format!("no progress for {}s: {what}\n", STUCK.as_secs())),
    }
}

async fn readyz(State(pages): State<Pages>) -> (StatusCode, String) {
    match pages.health.unready() {
        None => (StatusCode::OK, "ok\n".into()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

async fn metrics_page(State(pages): State<Pages>) -> Response {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match metrics::text(&pages.registry) {
        Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_broken_promise_shows_until_it_is_kept_or_dropped() {
        let health = Arc::new(Health::default());
        let promise = health.promise("desk of default/copy".into());
        tokio::time::advance(STUCK).await;
        assert_eq!(health.stuck().as_deref(), Some("desk of default/copy"));
        promise.keep();
        assert_eq!(health.stuck(), None);
        tokio::time::advance(STUCK).await;
        drop(promise);
        assert_eq!(health.stuck(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_probe_names_who_is_stuck() {
        let pages = Pages { health: Arc::default(), registry: Arc::default() };
        let promise = pages.health.promise("desk of default/copy".into());
        assert_eq!(healthz(State(pages.clone())).await.0, StatusCode::OK);
        tokio::time::advance(STUCK).await;
        let (code, text) = healthz(State(pages.clone())).await;
        assert_eq!((code, &*text), (StatusCode::SERVICE_UNAVAILABLE, "no progress for 90s: desk of default/copy\n"));
        promise.keep();
        assert_eq!(healthz(State(pages)).await.0, StatusCode::OK);
    }

    #[test]
    fn ready_means_synced_and_listening() {
        let health = Health::default();
        assert!(health.unready().is_some());
        health.caches_synced.store(true, Ordering::Relaxed);
        assert!(health.unready().is_some());
        health.sessions_listening.store(true, Ordering::Relaxed);
        assert_eq!(health.unready(), None);
    }
}
