//! Opening a stream to an operator: who is behind the Service's name, with which certificate and proof, and when to try
//! again.

use std::{
    collections::{BTreeSet, VecDeque},
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::Pin,
    time::Duration,
};

use futures::{Stream, TryFutureExt};
use hyperflow_api::wire::proto::{self as p, sessions_client::SessionsClient};
use tokio::{
    sync::mpsc,
    time::{Instant, error::Elapsed, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Response, Status,
    metadata::{AsciiMetadataValue, errors::InvalidMetadataValue},
    transport::{Certificate, ClientTlsConfig, Endpoint},
};

use crate::chance;

/// Messages on their way out before the session has to hold them back.
const OUTGOING: usize = 16;
/// Longest lookup of the operator's name.
const LOOKUP: Duration = Duration::from_secs(5);
/// Longest TCP connect. Where a node is gone nobody answers, and its address may still be listed for a while.
const REACH: Duration = Duration::from_secs(1);
/// Longest TCP connect and TLS handshake together. A follower that is frozen must not hold up the way to the leader.
const CONNECT: Duration = Duration::from_secs(2);
/// After so long without a word the peer is asked whether it is alive, and may take as long to answer. A node that was
/// cut off says nothing: after six seconds another operator is looked for, and found before leases of ten run out.
const KEEPALIVE: Duration = Duration::from_secs(3);
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Where the operator is and how it is known.
#[derive(Clone, Debug)]
pub struct Operator {
    /// `host:port` of the headless Service.
    pub address: String,
    /// The name in its certificate.
    pub tls_name: String,
    /// The CA that signed it.
    pub ca_file: PathBuf,
    /// The projected service-account token. The kubelet replaces it, so it is read each time.
    pub token_file: PathBuf,
}

/// Why no stream could be opened.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name did not resolve.
    #[error("cannot look up the operator at '{address}'")]
    Lookup {
        /// As configured.
        address: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The name has no addresses: no operator runs.
    #[error("no operator runs behind '{0}'")]
    Nobody(String),
    /// The certificate or the token is not there.
    #[error("cannot read '{path}'")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The token is no text for a header.
    #[error("the token in '{path}' cannot be sent")]
    Token {
        /// Of the token.
        path: PathBuf,
        /// Why.
        #[source]
        source: InvalidMetadataValue,
    },
    /// No connection, or not to who it should be.
    #[error("cannot connect to the operator at {address}")]
    Connect {
        /// Of one operator process.
        address: SocketAddr,
        /// What went wrong.
        #[source]
        source: tonic::transport::Error,
    },
    /// It took too long.
    #[error("the operator at {address} did not answer in time")]
    Slow {
        /// Of one operator process.
        address: SocketAddr,
        /// The deadline.
        #[source]
        source: Elapsed,
    },
}

/// A stream to an operator, whose first answer may still say no.
pub struct Link {
    /// What the worker says.
    pub outgoing: mpsc::Sender<p::FromWorker>,
    /// What the operator says.
    pub incoming: Pin<Box<dyn Stream<Item = Result<p::FromOperator, Status>> + Send>>,
    /// Of the operator process.
    pub address: SocketAddr,
    /// Proved by the credential, not by the token.
    pub by_credential: bool,
}

/// What an operator gave instead of the token. It is shown to operators alone: the header's value is marked sensitive.
#[derive(Debug)]
struct Credential {
    header: AsciiMetadataValue,
    until: Instant,
}

/// Tries one operator process after the other, for ever.
#[derive(Debug)]
pub struct Dialer {
    operator: Operator,
    round: VecDeque<SocketAddr>,
    /// They fell silent, or did not answer when they were last tried, and come last in a round.
    silent: BTreeSet<SocketAddr>,
    wait: Duration,
    credential: Option<Credential>,
}

impl Dialer {
    /// Has tried nobody.
    pub fn new(operator: Operator) -> Self {
        let (round, silent) = (VecDeque::new(), BTreeSet::new());
        Self { operator, round, silent, wait: FIRST_WAIT, credential: None }
    }

    /// The last stream was good: the next round begins soon.
    pub fn welcomed(&mut self) {
        self.wait = FIRST_WAIT;
        self.round.clear();
    }

    /// The operator at this address fell silent: the others are asked first.
    pub fn unheard(&mut self, address: SocketAddr) {
        self.silent.insert(address);
    }

    /// Proves itself with this credential from now on, until it ends.
    pub fn trust(&mut self, credential: &p::Credential) {
        let until = Instant::now() + Duration::from_secs(credential.seconds.into());
        match secret(&format!("Hyperflow {}", credential.text)) {
            Ok(header) => self.credential = Some(Credential { header, until }),
            Err(_not_said) => tracing::warn!("the operator gave a credential that cannot be sent: the token is used"),
        }
    }

    /// The operator at this address did not take the credential: it is asked again at once, with the token.
    pub fn distrusted(&mut self, address: SocketAddr) {
        self.credential = None;
        self.round.push_front(address);
    }

    /// Opens a stream to the next operator process; waits first when all were tried.
    pub async fn dial(&mut self) -> Result<Link, DialError> {
        let address = match self.round.pop_front() {
            Some(address) => address,
            None => {
                sleep(chance::jitter(self.wait)).await;
                self.wait = (self.wait * 2).min(LONGEST_WAIT);
                self.look_up().await?;
                self.round.pop_front().ok_or_else(|| DialError::Nobody(self.operator.address.clone()))?
            }
        };
        let opened = self.open(address).await;
        match &opened {
            Err(DialError::Connect { .. } | DialError::Slow { .. }) => self.silent.insert(address),
            _ => self.silent.remove(&address),
        };
        opened
    }

    async fn look_up(&mut self) -> Result<(), DialError> {
        let address = &self.operator.address;
        let failed = |source| DialError::Lookup { address: address.clone(), source };
        let found = timeout(LOOKUP, tokio::net::lookup_host(address)).await;
        let found = found.map_err(|elapsed| failed(elapsed.into()))?.map_err(failed)?;
        let mut round: Vec<SocketAddr> = found.collect();
        round.sort_unstable();
        round.dedup();
        // Workers begin at different replicas, so that none is asked by all of them first.
        let first = chance::below(round.len());
        round.rotate_left(first);
        self.begin(round);
        Ok(())
    }

    fn begin(&mut self, mut round: Vec<SocketAddr>) {
        self.silent.retain(|address| round.contains(address));
        round.sort_by_key(|address| self.silent.contains(address));
        self.round = round.into();
    }

    /// The credential if there is one, or the token, and which it is.
    fn proof(&self) -> Result<(AsciiMetadataValue, bool), DialError> {
        if let Some(credential) = self.credential.as_ref().filter(|credential| Instant::now() < credential.until) {
            return Ok((credential.header.clone(), true));
        }
        let path = &self.operator.token_file;
        let token = read(path)?;
        let header = secret(&format!("Bearer {}", String::from_utf8_lossy(&token).trim()));
        Ok((header.map_err(|source| DialError::Token { path: path.clone(), source })?, false))
    }

    async fn open(&self, address: SocketAddr) -> Result<Link, DialError> {
        let certificate = Certificate::from_pem(read(&self.operator.ca_file)?);
        let (proof, by_credential) = self.proof()?;
        let failed = |source| DialError::Connect { address, source };
        let tls = ClientTlsConfig::new().ca_certificate(certificate).domain_name(&self.operator.tls_name);
        let endpoint = Endpoint::from_shared(format!("https://{address}"))
            .and_then(|endpoint| endpoint.tls_config(tls))
            .map_err(failed)?
            .tcp_nodelay(true)
            .connect_timeout(REACH)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .keep_alive_while_idle(true);
        let channel = timeout(CONNECT, endpoint.connect()).await;
        let channel = channel.map_err(|source| DialError::Slow { address, source })?.map_err(failed)?;

        let (outgoing, messages) = mpsc::channel(OUTGOING);
        let mut request = Request::new(ReceiverStream::new(messages));
        request.metadata_mut().insert("authorization", proof);
        // The operator may read the first message before it answers at all: the answer is awaited with the messages.
        let answers = async move { SessionsClient::new(channel).open(request).await.map(Response::into_inner) };
        Ok(Link { outgoing, incoming: Box::pin(answers.try_flatten_stream()), address, by_credential })
    }
}

/// The value of a header that is in no log.
fn secret(value: &str) -> Result<AsciiMetadataValue, InvalidMetadataValue> {
    let mut value = AsciiMetadataValue::try_from(value)?;
    value.set_sensitive(true);
    Ok(value)
}

fn read(path: &Path) -> Result<Vec<u8>, DialError> {
    // A few hundred bytes from the pod's own memory-backed volume.
    std::fs::read(path).map_err(|source| DialError::File { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialer(address: &str) -> Dialer {
        let nowhere = PathBuf::from("/nonexistent");
        let (ca_file, token_file) = (nowhere.clone(), nowhere);
        Dialer::new(Operator { address: address.into(), tls_name: "operator".into(), ca_file, token_file })
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_doubles_until_a_second_and_a_welcome_ends_it() {
        let mut dialer = dialer("127.0.0.1:1");
        for millis in [200, 400, 800, 1000, 1000] {
            assert!(matches!(dialer.dial().await, Err(DialError::File { .. })));
            assert_eq!(dialer.wait, Duration::from_millis(millis));
        }
        dialer.welcomed();
        assert_eq!(dialer.wait, FIRST_WAIT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_credential_is_shown_until_it_ends_and_by_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let mut dialer = dialer("127.0.0.1:1");
        dialer.operator.token_file = folder.path().join("token");
        std::fs::write(&dialer.operator.token_file, "abc\n").unwrap();
        let shown = |dialer: &Dialer| {
            let (header, by_credential) = dialer.proof().unwrap();
            assert!(header.is_sensitive());
            (header.to_str().unwrap().to_owned(), by_credential)
        };
        let (token, credential) = (("Bearer abc".to_owned(), false), ("Hyperflow 1.ab".to_owned(), true));
        assert_eq!(shown(&dialer), token);
        let given = p::Credential { text: "1.ab".into(), seconds: 60 };
        dialer.trust(&given);
        assert_eq!(shown(&dialer), credential);
        assert!(!format!("{dialer:?}").contains("1.ab"), "{dialer:?}");
        sleep(Duration::from_secs(60)).await;
        assert_eq!(shown(&dialer), token);
        dialer.trust(&given);
        let address = "127.0.0.1:1".parse().unwrap();
        dialer.distrusted(address);
        assert_eq!((shown(&dialer), dialer.round.front()), (token.clone(), Some(&address)));
        dialer.trust(&p::Credential { text: "two\nlines".into(), seconds: 60 });
        assert_eq!(shown(&dialer), token);
    }

    /// Where connections are neither taken nor refused, as where a node is gone: the queue of the listener is full.
    async fn black_hole() -> (SocketAddr, impl Sized) {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut queued = Vec::new();
        while let Ok(connected) = timeout(Duration::from_millis(100), tokio::net::TcpStream::connect(address)).await {
            queued.push(connected.unwrap());
        }
        (address, (listener, queued))
    }

    #[tokio::test]
    async fn a_dead_address_costs_a_second_once_and_comes_last_from_then_on() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (dead, _kept) = black_hole().await;
        let folder = tempfile::tempdir().unwrap();
        let mut dialer = dialer("127.0.0.1:1");
        let authority = rcgen::generate_simple_self_signed(Vec::new()).unwrap();
        (dialer.operator.ca_file, dialer.operator.token_file) =
            (folder.path().join("ca.crt"), folder.path().join("token"));
        std::fs::write(&dialer.operator.ca_file, authority.cert.pem()).unwrap();
        std::fs::write(&dialer.operator.token_file, "abc").unwrap();

        let other: SocketAddr = "127.0.0.2:1".parse().unwrap();
        dialer.begin(vec![dead, other]);
        assert_eq!(dialer.round, [dead, other]);
        let began = Instant::now();
        assert!(dialer.dial().await.is_err());
        assert!((REACH..REACH * 3 / 2).contains(&began.elapsed()), "{:?}", began.elapsed());
        dialer.begin(vec![dead, other]);
        assert_eq!(dialer.round, [other, dead]);
        dialer.begin(vec![other]);
        dialer.begin(vec![dead, other]);
        assert_eq!(dialer.round, [dead, other], "who is listed anew is tried as any other");
        dialer.unheard(dead);
        dialer.begin(vec![dead, other]);
        assert_eq!(dialer.round, [other, dead]);
    }

    #[tokio::test]
    async fn a_name_that_is_none_is_an_error_and_not_an_end() {
        assert!(matches!(dialer("operator.invalid:1").dial().await, Err(DialError::Lookup { .. })));
    }
}
