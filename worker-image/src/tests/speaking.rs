//! The whole process but for `main`, with an operator of the test's over TLS.

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    path::Path,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use clap::Parser;
use futures::Stream;
use hyperflow_api::{
    ids::{JobUid, WorkerId},
    message::{FromOperator, FromWorker, Grant, News, Orders, Target},
    wire::proto::{
        self as p,
        sessions_server::{Sessions, SessionsServer},
    },
};
use tokio::{
    net::TcpListener,
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Identity, Server, ServerTlsConfig},
};

use super::{
    epoch,
    running::{noop, welcome},
};
use crate::{session::Session, settings::Settings};

const NAME: &str = "hyperflow-operator.hyperflow-system.svc";
const SHARDS: u32 = 20_000;
/// A test of a whole process holds it: signals go to all that run.
pub static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Refuses the first call as a follower does, then grants every shard once and tells what was said.
struct Fake {
    calls: AtomicU32,
    said: mpsc::Sender<FromWorker>,
}

pub type Answers = Pin<Box<dyn Stream<Item = Result<p::FromOperator, Status>> + Send>>;

#[tonic::async_trait]
impl Sessions for Fake {
    type OpenStream = Answers;

    async fn open(&self, request: Request<Streaming<p::FromWorker>>) -> Result<Response<Answers>, Status> {
        if self.calls.fetch_add(1, Ordering::Relaxed) == 0 {
            return Err(Status::unavailable("not leader"));
        }
        assert_eq!(request.metadata().get("authorization").unwrap(), "Bearer the-token");
        let mut messages = request.into_inner();
        // As the operator does: nothing is answered before the first message.
        let hello = messages.message().await?.unwrap().try_into().unwrap();
        assert!(matches!(&hello, FromWorker::Hello(hello) if hello.job == noop().uid && hello.held.is_empty()));
        let (answer, answers) = mpsc::channel(16);
        let said = self.said.clone();
        said.send(hello).await.unwrap();
        tokio::spawn(async move {
            let say = |message: FromOperator| answer.send(Ok(message.into()));
            say(FromOperator::Welcome(welcome(&noop()))).await.unwrap();
            let (mut granted, mut done) = (0, 0);
            while let Ok(Some(message)) = messages.message().await {
                let message = FromWorker::try_from(message).unwrap();
                let FromWorker::Report(report) = &message else { panic!("a second hello") };
                done += u32::try_from(report.facts.len()).unwrap();
                let mut orders = Orders::default();
                if !report.facts.is_empty() {
                    orders.acked_through = Some(report.first_number + report.facts.len() as u64 - 1);
                }
                while granted < SHARDS && granted - done.min(granted) < report.capacity {
                    let (target, epoch) = (Target::Shard(granted), epoch(u64::from(granted)));
                    orders.grants.push(Grant {
                        target,
                        epoch,
                        attempt: 1,
                        replaces: None,
                        probe: false,
                        resume: None,
                        heir_of: None,
                    });
                    granted += 1;
                }
                said.send(message).await.unwrap();
                if say(FromOperator::Orders(orders)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }
}

/// Serves sessions over TLS, and puts what a worker needs for them into `folder`.
pub async fn operate(folder: &Path, sessions: impl Sessions) -> SocketAddr {
    let authority = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = parameters.self_signed(&authority).unwrap();
    fs::write(folder.join("ca.crt"), root.pem()).unwrap();
    fs::write(folder.join("token"), "the-token\n").unwrap();
    let issuer = rcgen::Issuer::new(parameters, authority);
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec![NAME.into()]).unwrap().signed_by(&key, &issuer).unwrap();

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tls = ServerTlsConfig::new().identity(Identity::from_pem(leaf.pem(), key.serialize_pem()));
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let service = SessionsServer::new(sessions);
    let server = Server::builder().tls_config(tls).unwrap().tcp_nodelay(true).add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

pub fn process(folder: &Path, address: SocketAddr, job: &JobUid) -> Session {
    let (address, ca, token) = (address.to_string(), folder.join("ca.crt"), folder.join("token"));
    let settings = Settings::parse_from([
        "hyperflow-worker",
        &format!("--operator={address}"),
        &format!("--tls-name={NAME}"),
        &format!("--ca-file={}", ca.display()),
        &format!("--token-file={}", token.display()),
        &format!("--job-uid={job}"),
        "--pod-uid=0d1f3c2a-0000-4000-8000-000000000000",
        "--slots=4",
    ]);
    let id = WorkerId { pod_uid: settings.pod_uid.clone(), nonce: 5 };
    Session::new(&settings, id, Arc::default(), Arc::default()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_finds_the_leader_does_all_its_shards_and_leaves_when_asked() {
    let _alone = ALONE.lock().await;
    let folder = tempfile::tempdir().unwrap();
    let (said, mut heard) = mpsc::channel(1024);
    let address = operate(folder.path(), Fake { calls: AtomicU32::new(0), said }).await;
    let process = tokio::spawn(process(folder.path(), address, &noop().uid).run());

    let began = Instant::now();
    let mut published = BTreeSet::new();
    while published.len() < SHARDS as usize {
        let message = timeout(Duration::from_secs(20), heard.recv()).await.unwrap().unwrap();
        let FromWorker::Report(report) = message else { continue };
        for fact in report.facts {
            let (Target::Shard(index), News::Published(_)) = (fact.target, fact.news) else {
                panic!("{:?}", fact.target)
            };
            assert!(published.insert(index), "shard {index} was said twice in one session");
        }
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(10), "{SHARDS} shards took {took:?}");

    let asked = Instant::now();
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM).unwrap();
    let reason = timeout(Duration::from_secs(2), process).await.unwrap().unwrap();
    assert_eq!(reason, "asked to terminate");
    assert!(asked.elapsed() < Duration::from_secs(2));
    let mut leaving = false;
    while let Ok(message) = heard.try_recv() {
        leaving |= matches!(message, FromWorker::Report(report) if report.leaving);
    }
    assert!(leaving, "the operator was told");
}
