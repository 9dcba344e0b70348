//! Accepts workers' sessions: over TLS, each proved by a reviewed token or a credential, each handed to the desk of its
//! job.

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

use futures::{Stream, StreamExt, stream};
use hyperflow_api::{
    message::{FromOperator, FromWorker, Hello, PROTOCOL},
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
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Response, Status, Streaming,
    metadata::MetadataMap,
    transport::{Identity, Server, ServerTlsConfig, server::TcpIncoming},
};
use tracing::{error, info, warn};

use crate::{
    authority::{Authority, AuthorityError, RENEW_AFTER},
    clock,
    credential::Mint,
    desk::Call,
    desks::Desks,
    grants::GrantKey,
    health::Health,
    identity::{self, IdentityError, Proof},
    passport::{self, WorkerKey},
    session::{OUTBOUND, Place},
    telemetry::chain,
};

/// The longest message in either direction.
const LONGEST_MESSAGE: usize = 4 << 20;
/// The first message must come within this time, and so must the TLS handshake.
const FIRST_MESSAGE: Duration = Duration::from_secs(5);
/// How often a silent connection is asked whether it is alive, and how long it may take to answer. A node that was cut
/// off says nothing: both ends must have noticed, and the worker have found another operator, before its leases run out
/// after ten seconds.
const KEEPALIVE: Duration = Duration::from_secs(3);
/// How often a worker in a long session gets a new credential: twice may fail before the last one ends.
const NEW_CREDENTIAL: Duration = Duration::from_secs(20 * 60);
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
    authority: Arc<Authority>,
    mint: Mint,
    grants: GrantKey,
    places: Arc<Semaphore>,
    sessions: Gauge,
    next: AtomicU64,
}

impl Reception {
    /// A reception with so many places.
    ///
    /// # Errors
    /// When the authority has no key for grants.
    pub fn new(
        client: Client,
        desks: Arc<Desks>,
        authority: Arc<Authority>,
        places: u32,
        sessions: Gauge,
    ) -> Result<Arc<Self>, AuthorityError> {
        let places = usize::try_from(places).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        let (places, next) = (Arc::new(Semaphore::new(places)), AtomicU64::new(1));
        let (mint, grants) = (authority.mint(), authority.grants()?);
        Ok(Arc::new(Self { client, desks, authority, mint, grants, places, sessions, next }))
    }

    /// Whether the worker is who it says: by a review of its token, or by its credential alone.
    async fn prove(&self, proof: Proof, hello: &Hello, namespace: &str) -> Result<(), IdentityError> {
        match proof {
            Proof::Token(token) => identity::review(&self.client, token, hello, namespace).await,
            Proof::Credential(text) => Ok(self.mint.check(&text, hello, namespace, clock::unix())?),
        }
    }

    /// Makes passports for a worker that has proved who it is.
    fn passports(
        &self,
        hello: &Hello,
        key: WorkerKey,
    ) -> impl Fn() -> Result<proto::FromOperator, Status> + Send + use<> {
        let (authority, grants) = (Arc::clone(&self.authority), self.grants.clone());
        let (worker, job) = (hello.worker.clone(), hello.job.clone());
        move || {
            passport::issue(&authority, &grants, &key, &worker.pod_uid, &job).map_err(|error| {
                error!(%job, %worker, error = chain(&error), "a worker gets no passport");
                Status::internal("cannot sign a passport")
            })
        }
    }

    /// Makes credentials for a worker whose token was reviewed.
    fn credentials(
        &self,
        hello: &Hello,
        namespace: &str,
    ) -> impl Fn() -> Result<proto::FromOperator, Status> + Send + use<> {
        let (mint, hello, namespace) = (self.mint.clone(), hello.clone(), namespace.to_owned());
        move || Ok(mint.give(&hello, &namespace, clock::unix()))
    }
}

/// What a worker is told.
type Orders = Pin<Box<dyn Stream<Item = Result<proto::FromOperator, Status>> + Send>>;

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
    type OpenStream = Orders;

    async fn open(&self, request: Request<Streaming<proto::FromWorker>>) -> Result<Response<Self::OpenStream>, Status> {
        let proof = proof(request.metadata())?;
        let kind = proof.kind();
        let place =
            Place::take(&self.places, &self.sessions).ok_or_else(|| Status::unavailable("too many sessions"))?;
        let mut inbound = request.into_inner();
        let hello = timeout(FIRST_MESSAGE, hello(&mut inbound))
            .await
            .map_err(|_elapsed| Status::deadline_exceeded("no hello in time"))??;
        let desk = self.desks.find(&hello.job).ok_or_else(|| Status::unavailable(NOT_LEADER))?;
        let reviewed = matches!(proof, Proof::Token(_));
        self.prove(proof, &hello, &desk.namespace).await.map_err(|error| refuse(&hello, kind, &error))?;
        let key = hello.host.as_ref().map(|host| WorkerKey::read(&host.public_key)).transpose();
        let key = key.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let (outbound, orders) = mpsc::channel(OUTBOUND);
        let session = SessionId(self.next.fetch_add(1, Ordering::Relaxed));
        let held = hello.held.len();
        info!(session = session.0, job = %hello.job, worker = %hello.worker, held, proof = kind, "a worker called");
        let mut orders =
            ReceiverStream::new(orders).map(|order: Result<FromOperator, Status>| order.map(Into::into)).boxed();
        if let Some(key) = key {
            orders = with_papers(orders, RENEW_AFTER, self.passports(&hello, key)).boxed();
        }
        // What a credential opened is given no other: a stolen one would last for ever.
        if reviewed {
            orders = with_papers(orders, NEW_CREDENTIAL, self.credentials(&hello, &desk.namespace)).boxed();
        }
        let call = Call { session, hello, inbound: Box::pin(inbound), outbound, place };
        desk.call(call).await.map_err(|_error| Status::unavailable(NOT_LEADER))?;
        Ok(Response::new(orders))
    }
}

/// Adds a paper after the first message, which only a worker that is welcome gets, and another whenever that time has
/// passed. Ends with the orders.
fn with_papers<O>(orders: O, period: Duration, paper: impl Fn() -> O::Item) -> impl Stream<Item = O::Item>
where
    O: Stream<Item = Result<proto::FromOperator, Status>> + Unpin,
{
    let begin = (orders, None::<Instant>, paper);
    stream::unfold(begin, move |(mut orders, due, paper)| async move {
        let time = async {
            match due {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = time => Some((paper(), (orders, Some(Instant::now() + period), paper))),
            order = orders.next() => {
                let order = order?;
                let due = due.or_else(|| order.is_ok().then(Instant::now));
                Some((order, (orders, due, paper)))
            }
        }
    })
}

fn proof(metadata: &MetadataMap) -> Result<Proof, Status> {
    let header = metadata.get("authorization").and_then(|value| value.to_str().ok());
    header.and_then(Proof::read).ok_or_else(|| Status::unauthenticated("no token or credential in 'authorization'"))
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

fn refuse(hello: &Hello, proof: &str, error: &IdentityError) -> Status {
    warn!(job = %hello.job, worker = %hello.worker, proof, error = chain(error), "a worker was turned away");
    match error {
        IdentityError::Unreviewed(_) => Status::unavailable("the token cannot be reviewed now"),
        IdentityError::Credential(why) => Status::unauthenticated(why.to_string()),
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
    fn who_shows_no_proof_is_not_let_in() {
        let metadata = |value: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("authorization", value.parse().unwrap());
            metadata
        };
        assert!(proof(&metadata("Bearer abc")).is_ok() && proof(&metadata("Hyperflow abc")).is_ok());
        for wrong in [metadata("Basic abc"), metadata("Bearer "), MetadataMap::new()] {
            assert_eq!(proof(&wrong).err().unwrap().code(), Code::Unauthenticated);
        }
        let hello = hello_of("job-1");
        let refused = refuse(&hello, "credential", &Mint::new(b"key").check("1.2", &hello, "a", 0).unwrap_err().into());
        assert_eq!(refused.code(), Code::Unauthenticated);
    }

    #[tokio::test(start_paused = true)]
    async fn a_credential_follows_the_first_message_and_then_comes_from_time_to_time() {
        let order = || Ok(proto::FromOperator::default());
        let mint = Mint::new(b"key");
        let credential = move || Ok(mint.give(&hello_of("job-1"), "team-a", 1));
        let (orders, waiting) = mpsc::channel(4);
        let mut heard = Box::pin(with_papers(ReceiverStream::new(waiting), NEW_CREDENTIAL, credential));
        assert!(timeout(NEW_CREDENTIAL * 2, heard.next()).await.is_err(), "nothing before the welcome");
        let began = Instant::now();
        for _ in 0..2 {
            orders.send(order()).await.unwrap();
        }
        let mut is_credential = async || heard.next().await.unwrap().unwrap().message.is_some();
        for expected in [false, true, false, true, true] {
            assert_eq!(is_credential().await, expected);
        }
        assert!((NEW_CREDENTIAL * 2..NEW_CREDENTIAL * 2 + Duration::from_secs(1)).contains(&began.elapsed()));
        drop(orders);
        assert!(heard.next().await.is_none(), "it ends with the orders");
    }

    #[tokio::test]
    async fn who_is_refused_with_the_first_message_gets_no_credential() {
        let orders = stream::iter([Err(Status::aborted("no")), Ok(proto::FromOperator::default())]);
        let mint = Mint::new(b"key");
        let heard = with_papers(orders, NEW_CREDENTIAL, move || Ok(mint.give(&hello_of("job-1"), "team-a", 1)));
        let heard: Vec<_> = heard.take(2).collect().await;
        assert!(heard[0].is_err() && heard[1].as_ref().unwrap().message.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_passport_and_a_credential_come_beside_the_orders() {
        let paper = |text: &str| {
            let credential = proto::Credential { text: text.into(), seconds: 0 };
            let message = Some(proto::from_operator::Message::Credential(credential));
            move || Ok(proto::FromOperator { message: message.clone() })
        };
        let (orders, waiting) = mpsc::channel(4);
        orders.send(Ok(proto::FromOperator::default())).await.unwrap();
        let heard = with_papers(ReceiverStream::new(waiting).boxed(), RENEW_AFTER, paper("passport")).boxed();
        let mut heard = with_papers(heard, NEW_CREDENTIAL, paper("credential")).boxed();
        assert!(heard.next().await.unwrap().unwrap().message.is_none(), "the welcome is first");
        let mut texts = Vec::new();
        while let Ok(Some(Ok(paper))) = timeout(Duration::from_secs(1), heard.next()).await {
            match paper.message {
                Some(proto::from_operator::Message::Credential(credential)) => texts.push(credential.text),
                other => panic!("{other:?}"),
            }
        }
        texts.sort();
        assert_eq!(texts, ["credential", "passport"]);
    }

    fn hello_of(job: &str) -> Hello {
        let worker = WorkerId { pod_uid: "pod-1".into(), nonce: 1 };
        Hello { protocol: PROTOCOL, job: JobUid(job.into()), worker, slots: 1, held: Vec::new(), heard: 0, host: None }
    }

    #[tokio::test]
    async fn a_session_begins_with_a_hello_of_our_protocol() {
        let first = async |message: Option<FromWorker>| {
            let messages: Vec<_> = message.map(|message| Ok(message.into())).into_iter().collect();
            hello(&mut stream::iter(messages)).await.map_err(|status| status.code())
        };
        let good = hello_of("job-1");
        assert_eq!(first(Some(FromWorker::Hello(good.clone()))).await, Ok(good.clone()));
        let old = Hello { protocol: 0, ..good };
        assert_eq!(first(Some(FromWorker::Hello(old))).await, Err(Code::FailedPrecondition));
        assert_eq!(first(Some(FromWorker::Report(Default::default()))).await, Err(Code::InvalidArgument));
        assert_eq!(first(None).await, Err(Code::InvalidArgument));
    }
}
