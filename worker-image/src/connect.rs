//! Opening a stream to an operator: who is behind the Service's name, with which certificate, and when to try again.

use std::{
    collections::VecDeque,
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
    time::{error::Elapsed, sleep, timeout},
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
/// Longest TCP connect and TLS handshake together. A follower that is gone must not hold up the way to the leader.
const CONNECT: Duration = Duration::from_secs(2);
/// A peer that answers no ping for so long, twice, is gone.
const KEEPALIVE: Duration = Duration::from_secs(5);
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
}

/// Tries one operator process after the other, for ever.
#[derive(Debug)]
pub struct Dialer {
    operator: Operator,
    round: VecDeque<SocketAddr>,
    wait: Duration,
}

impl Dialer {
    /// Has tried nobody.
    pub fn new(operator: Operator) -> Self {
        Self { operator, round: VecDeque::new(), wait: FIRST_WAIT }
    }

    /// The last stream was good: the next round begins soon.
    pub fn welcomed(&mut self) {
        self.wait = FIRST_WAIT;
        self.round.clear();
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
        self.open(address).await
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
        self.round = round.into();
        Ok(())
    }

    async fn open(&self, address: SocketAddr) -> Result<Link, DialError> {
        let certificate = Certificate::from_pem(read(&self.operator.ca_file)?);
        let token_file = &self.operator.token_file;
        let token = read(token_file)?;
        let bearer = format!("Bearer {}", String::from_utf8_lossy(&token).trim());
        let mut bearer = AsciiMetadataValue::try_from(bearer)
            .map_err(|source| DialError::Token { path: token_file.clone(), source })?;
        bearer.set_sensitive(true);

        let failed = |source| DialError::Connect { address, source };
        let tls = ClientTlsConfig::new().ca_certificate(certificate).domain_name(&self.operator.tls_name);
        let endpoint = Endpoint::from_shared(format!("https://{address}"))
            .and_then(|endpoint| endpoint.tls_config(tls))
            .map_err(failed)?
            .tcp_nodelay(true)
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .keep_alive_while_idle(true);
        let channel = timeout(CONNECT, endpoint.connect()).await;
        let channel = channel.map_err(|source| DialError::Slow { address, source })?.map_err(failed)?;

        let (outgoing, messages) = mpsc::channel(OUTGOING);
        let mut request = Request::new(ReceiverStream::new(messages));
        request.metadata_mut().insert("authorization", bearer);
        // The operator may read the first message before it answers at all: the answer is awaited with the messages.
        let answers = async move { SessionsClient::new(channel).open(request).await.map(Response::into_inner) };
        Ok(Link { outgoing, incoming: Box::pin(answers.try_flatten_stream()), address })
    }
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

    #[tokio::test]
    async fn a_name_that_is_none_is_an_error_and_not_an_end() {
        assert!(matches!(dialer("operator.invalid:1").dial().await, Err(DialError::Lookup { .. })));
    }
}
