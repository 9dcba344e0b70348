//! Accepts workers' sessions: over TLS, each proved by a reviewed token, each handed to the desk of its job.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{Stream, StreamExt};
use hyperflow_api::{
    message::{FromWorker, Hello, PROTOCOL},
    wire::proto::{
        self,
        sessions_server::{Sessions, SessionsServer},
    },
};
use hyperflow_core::coordinator::SessionId;
use kube::Client;
use prometheus_client::metrics::gauge::Gauge;
use tokio::{
    sync::{Semaphore, mpsc},
    time::{sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Response, Status, Streaming,
    metadata::MetadataMap,
    transport::{Identity, Server, ServerTlsConfig, server::TcpIncoming},
};
use tracing::{info, warn};

use crate::{
    authority::{Authority, AuthorityError, RENEW_AFTER},
    desk::Call,
    desks::Desks,
    health::Health,
    identity::{self, IdentityError},
    session::{OUTBOUND, Place},
    telemetry::chain,
};

/// The longest message in either direction.
const LONGEST_MESSAGE: usize = 4 << 20;
/// The first message must come within this time, and so must the TLS handshake.
const FIRST_MESSAGE: Duration = Duration::from_secs(5);
/// How often a silent connection is asked whether it is alive, and how long it may take to answer.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// Workers take this word as: try the next replica.
const NOT_LEADER: &str = "not leader";

/// Sessions are not accepted.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// There is no certificate for the server.
    #[error("cannot serve sessions without a certificate")]
    Certificate(#[from] AuthorityError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address} for sessions")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The server gave up.
    #[error("cannot go on serving sessions")]
    Serve(#[source] tonic::transport::Error),
}

/// What the service works with.
pub struct Reception {
    client: Client,
    desks: Arc<Desks>,
    places: Arc<Semaphore>,
    sessions: Gauge,
    next: AtomicU64,
}

impl Reception {
    /// A reception with so many places.
    #[must_use]
    pub fn new(client: Client, desks: Arc<Desks>, places: u32, sessions: Gauge) -> Arc<Self> {
        let places = usize::try_from(places).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Arc::new(Self { client, desks, places: Arc::new(Semaphore::new(places)), sessions, next: AtomicU64::new(1) })
    }
}

/// Accepts sessions for ever.
///
/// # Errors
/// When there is no certificate, or the address cannot be listened on.
pub async fn serve(
    address: SocketAddr,
    name: &str,
    authority: &Authority,
    reception: Arc<Reception>,
    health: &Health,
) -> Result<(), ServeError> {
    loop {
        let incoming = listen(address).map_err(|source| ServeError::Listen { address, source })?;
        let mut server = server(authority.server(name)?).map_err(ServeError::Serve)?;
        health.sessions_listening.store(true, Ordering::Relaxed);
        info!(%address, name, "accepting sessions");
        let sessions = SessionsServer::from_arc(Arc::clone(&reception))
            .max_decoding_message_size(LONGEST_MESSAGE)
            .max_encoding_message_size(LONGEST_MESSAGE);
        tokio::select! {
            ended = server.add_service(sessions).serve_with_incoming(incoming) => {
                return ended.map_err(ServeError::Serve);
            }
            // Connections that are open go on under the old certificate; new ones get the new one.
            () = sleep(RENEW_AFTER) => {}
        }
    }
}

/// Without `TCP_NODELAY` batched calls fall from 28,000 to 2,100 a second.
fn listen(address: SocketAddr) -> io::Result<TcpIncoming> {
    Ok(TcpIncoming::bind(address)?.with_nodelay(Some(true)))
}

fn server(identity: Identity) -> Result<Server, tonic::transport::Error> {
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .max_concurrent_streams(8)
        .tls_config(ServerTlsConfig::new().identity(identity).timeout(FIRST_MESSAGE))
}

#[tonic::async_trait]
impl Sessions for Reception {
    type OpenStream = Pin<Box<dyn Stream<Item = Result<proto::FromOperator, Status>> + Send>>;

    async fn open(&self, request: Request<Streaming<proto::FromWorker>>) -> Result<Response<Self::OpenStream>, Status> {
        let token = bearer(request.metadata())?;
        let place =
            Place::take(&self.places, &self.sessions).ok_or_else(|| Status::unavailable("too many sessions"))?;
        let mut inbound = request.into_inner();
        let hello = timeout(FIRST_MESSAGE, hello(&mut inbound))
            .await
            .map_err(|_elapsed| Status::deadline_exceeded("no hello in time"))??;
        let desk = self.desks.find(&hello.job).ok_or_else(|| Status::unavailable(NOT_LEADER))?;
        identity::review(&self.client, token, &hello, &desk.namespace).await.map_err(|error| refuse(&hello, &error))?;
        let (outbound, orders) = mpsc::channel(OUTBOUND);
        let session = SessionId(self.next.fetch_add(1, Ordering::Relaxed));
        info!(session = session.0, job = %hello.job, worker = %hello.worker, held = hello.held.len(), "a worker called");
        let call = Call { session, hello, inbound: Box::pin(inbound), outbound, place };
        desk.call(call).await.map_err(|_error| Status::unavailable(NOT_LEADER))?;
        let orders = ReceiverStream::new(orders).map(|order| order.map(Into::into));
        Ok(Response::new(Box::pin(orders)))
    }
}

fn bearer(metadata: &MetadataMap) -> Result<String, Status> {
    let value = metadata.get("authorization").and_then(|value| value.to_str().ok());
    let token = value.and_then(|value| value.strip_prefix("Bearer ")).filter(|token| !token.is_empty());
    token.map(Into::into).ok_or_else(|| Status::unauthenticated("no bearer token in 'authorization'"))
}

async fn hello(inbound: &mut (impl Stream<Item = Result<proto::FromWorker, Status>> + Unpin)) -> Result<Hello, Status> {
    let Some(first) = inbound.next().await else { return Err(Status::invalid_argument("no hello")) };
    match FromWorker::try_from(first?) {
        Ok(FromWorker::Hello(hello)) if hello.protocol == PROTOCOL => Ok(hello),
        Ok(FromWorker::Hello(Hello { protocol, .. })) => Err(Status::failed_precondition(format!(
            "the worker speaks protocol {protocol}, the operator {PROTOCOL}: their images must be of one version"
        ))),
        Ok(FromWorker::Report(_)) => Err(Status::invalid_argument("the first message is no hello")),
        Err(error) => Err(Status::invalid_argument(error.to_string())),
    }
}

fn refuse(hello: &Hello, error: &IdentityError) -> Status {
    warn!(job = %hello.job, worker = %hello.worker, error = chain(error), "a worker was turned away");
    match error {
        IdentityError::Unreviewed(_) => Status::unavailable("the token cannot be reviewed now"),
        IdentityError::Rejected { .. } => Status::unauthenticated(error.to_string()),
        IdentityError::Other { .. } => Status::permission_denied(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use hyperflow_api::ids::{JobUid, WorkerId};
    use tokio::net::TcpStream;
    use tonic::Code;

    use super::*;

    #[tokio::test]
    async fn accepted_connections_do_not_wait_to_fill_packets() {
        let mut incoming = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = incoming.local_addr().unwrap();
        let (connected, accepted) = tokio::join!(TcpStream::connect(address), incoming.next());
        connected.unwrap();
        assert!(accepted.unwrap().unwrap().nodelay().unwrap());
    }

    #[test]
    fn a_token_is_read_from_its_header() {
        let metadata = |value: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("authorization", value.parse().unwrap());
            metadata
        };
        assert_eq!(bearer(&metadata("Bearer abc")).unwrap(), "abc");
        for wrong in [metadata("Basic abc"), metadata("Bearer "), MetadataMap::new()] {
            assert_eq!(bearer(&wrong).unwrap_err().code(), Code::Unauthenticated);
        }
    }

    #[tokio::test]
    async fn a_session_begins_with_a_hello_of_our_protocol() {
        let first = async |message: Option<FromWorker>| {
            let messages: Vec<_> = message.map(|message| Ok(message.into())).into_iter().collect();
            hello(&mut stream::iter(messages)).await.map_err(|status| status.code())
        };
        let worker = WorkerId { pod_uid: "pod-1".into(), nonce: 1 };
        let good =
            Hello { protocol: PROTOCOL, job: JobUid("job-1".into()), worker, slots: 1, held: Vec::new(), heard: 0 };
        assert_eq!(first(Some(FromWorker::Hello(good.clone()))).await, Ok(good.clone()));
        let old = Hello { protocol: 0, ..good };
        assert_eq!(first(Some(FromWorker::Hello(old))).await, Err(Code::FailedPrecondition));
        assert_eq!(first(Some(FromWorker::Report(Default::default()))).await, Err(Code::InvalidArgument));
        assert_eq!(first(None).await, Err(Code::InvalidArgument));
    }
}
