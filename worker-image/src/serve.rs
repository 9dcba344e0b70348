//! What the kubelet and Prometheus ask of a worker: /healthz, /readyz, /metrics.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
    serve::ListenerExt,
};
use tokio::net::TcpListener;

use crate::metrics::Metrics;

/// A loop that has not turned for so long is stuck: the kubelet restarts the container.
const STUCK: Duration = Duration::from_secs(20);
/// As Prometheus asks for it.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether the session's loop lives, written by it.
#[derive(Debug)]
pub struct Vitals {
    started: Instant,
    turned_millis: AtomicU64,
    welcomed: AtomicBool,
}

impl Default for Vitals {
    fn default() -> Self {
        Self { started: Instant::now(), turned_millis: AtomicU64::new(0), welcomed: AtomicBool::new(false) }
    }
}

impl Vitals {
    /// The loop has turned. Once an operator has welcomed the worker it stays ready: it works without one (P17).
    pub fn turned(&self, in_session: bool) {
        self.turned_millis.store(self.millis(), Ordering::Relaxed);
        if in_session {
            self.welcomed.store(true, Ordering::Relaxed);
        }
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn is_alive(&self) -> bool {
        let still = self.millis().saturating_sub(self.turned_millis.load(Ordering::Relaxed));
        Duration::from_millis(still) < STUCK
    }

    fn is_ready(&self) -> bool {
        self.welcomed.load(Ordering::Relaxed)
    }
}

#[derive(Clone)]
struct Shown {
    vitals: Arc<Vitals>,
    metrics: Arc<Metrics>,
}

/// Answers until the process ends.
///
/// # Errors
/// When the listener fails for good.
pub async fn run(listener: TcpListener, vitals: Arc<Vitals>, metrics: Arc<Metrics>) -> io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(show))
        .with_state(Shown { vitals, metrics });
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "answers on this connection may be late");
        }
    });
    axum::serve(listener, router).await
}

fn verdict(good: bool, otherwise: &'static str) -> Response {
    if good { "ok\n".into_response() } else { (StatusCode::SERVICE_UNAVAILABLE, otherwise).into_response() }
}

async fn healthz(State(shown): State<Shown>) -> Response {
    verdict(shown.vitals.is_alive(), "the session's loop is stuck\n")
}

async fn readyz(State(shown): State<Shown>) -> Response {
    verdict(shown.vitals.is_ready(), "no operator has welcomed this worker yet\n")
}

async fn show(State(shown): State<Shown>) -> Response {
    match shown.metrics.encode() {
        Ok(text) => ([(CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot write metrics: {error}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn ask(address: std::net::SocketAddr, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: w\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_worker_is_ready_once_welcomed_and_alive_from_the_start() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let vitals = Arc::new(Vitals::default());
        let server = tokio::spawn(run(listener, vitals.clone(), Arc::default()));
        assert!(ask(address, "/healthz").await.starts_with("HTTP/1.1 200"));
        assert!(ask(address, "/readyz").await.starts_with("HTTP/1.1 503"));
        vitals.turned(true);
        vitals.turned(false);
        assert!(ask(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        let metrics = ask(address, "/metrics").await;
        assert!(metrics.contains("application/openmetrics-text") && metrics.contains("# EOF"), "{metrics}");
        server.abort();
    }
}
