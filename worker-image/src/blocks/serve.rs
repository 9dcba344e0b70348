//! Blocks for other workers: who shows the certificate of a worker of this job and a grant for the group gets its blocks,
//! and nobody else gets anything.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures::{Stream, StreamExt, TryStreamExt, stream};
use hyperflow_api::wire::proto::{
    self as p,
    block_part::Part,
    blocks_server::{Blocks, BlocksServer},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::spawn_blocking,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Request, Response, Status,
    transport::{
        Server,
        server::{TcpConnectInfo, TlsConnectInfo},
    },
};

use super::{
    Keeper,
    disk::Replica,
    replica::{Crc, Head, Name},
};

/// Streams at a time; others wait.
const STREAMS: usize = 4;
/// Most bytes of one message.
const PART: u64 = 256 << 10;
/// Parts that are read before they are sent.
const AHEAD: usize = 2;
/// Handshakes at a time, and longest.
const HANDSHAKES: usize = 32;
const HANDSHAKE: Duration = Duration::from_secs(5);
/// A silent connection is asked after so long whether it is alive, and may take as long to answer.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// After a connection that could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until the process ends.
///
/// # Errors
/// When the server gives up.
pub async fn run(keeper: Arc<Keeper>, listener: std::net::TcpListener) -> Result<(), io::Error> {
    let listener = TcpListener::from_std(listener)?;
    let opening = keeper.clone();
    let connections = TcpListenerStream::new(listener)
        .map(move |accepted| handshake(opening.clone(), accepted))
        .buffer_unordered(HANDSHAKES)
        .filter_map(std::future::ready);
    let desk = Desk { keeper, streams: Arc::new(Semaphore::new(STREAMS)) };
    let server = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .add_service(BlocksServer::new(desk))
        .serve_with_incoming(connections);
    server.await.map_err(|error| io::Error::other(crate::logs::causes(&error)))
}

/// Opens a connection with the certificate in force. Strangers are gone before they can say anything.
async fn handshake(
    keeper: Arc<Keeper>,
    accepted: io::Result<TcpStream>,
) -> Option<Result<TlsStream<TcpStream>, io::Error>> {
    let opened = async {
        let stream = accepted?;
        stream.set_nodelay(true)?;
        rustix::net::sockopt::set_socket_keepalive(&stream, true)?;
        let shown = keeper.peers().passports.shown();
        let shown = shown.ok_or_else(|| io::Error::other("this worker has no passport yet"))?;
        let acceptor = TlsAcceptor::from(shown.server.clone());
        timeout(HANDSHAKE, acceptor.accept(stream)).await?
    };
    match opened.await {
        Ok(stream) => Some(Ok(stream)),
        Err(error) => {
            tracing::warn!(%error, "a connection for blocks was refused");
            keeper.metrics().blocks.refused.inc();
            sleep(PAUSE).await;
            None
        }
    }
}

struct Desk {
    keeper: Arc<Keeper>,
    streams: Arc<Semaphore>,
}

type Read = Pin<Box<dyn Stream<Item = Result<Vec<u8>, Status>> + Send>>;
type Parts = Pin<Box<dyn Stream<Item = Result<p::BlockPart, Status>> + Send>>;

#[tonic::async_trait]
impl Blocks for Desk {
    type FetchStream = Parts;

    async fn fetch(&self, request: Request<p::FetchBlock>) -> Result<Response<Parts>, Status> {
        let shown = request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>();
        let certificates = shown.and_then(TlsConnectInfo::peer_certs);
        let request = request.into_inner();
        let p::FetchBlock { pod, grant, group, shard, part, version, offset } = request;
        let certificates = certificates.as_ref().map(|chain| chain.as_slice());
        if let Err(refusal) = self.keeper.peers().passports.admit(certificates, &pod, group, &grant, unix()) {
            self.keeper.metrics().blocks.refused.inc();
            tracing::warn!(pod, group, %refusal, "a worker may not read blocks");
            return Err(Status::permission_denied(refusal.to_string()));
        }
        let permit = self.streams.clone().acquire_owned().await;
        let permit = permit.map_err(|_closed| Status::unavailable("this worker ends"))?;
        let name = Name { group, shard, part, version };
        let keeper = self.keeper.clone();
        let opened = spawn_blocking(move || keeper.to_send(&name)).await;
        let opened = opened.map_err(|error| Status::internal(error.to_string()))?;
        let replica = opened.ok_or_else(|| Status::not_found("this worker does not have the block"))?;
        if offset > replica.head().length {
            return Err(Status::out_of_range("the block ends before that"));
        }
        let replica = Arc::new(replica);
        let sending = Sending {
            keeper: self.keeper.clone(),
            head: replica.head(),
            read: read(&replica, offset),
            name,
            offset,
            at: 0,
            crc: Crc::new(),
            greeted: false,
            _permit: permit,
        };
        Ok(Response::new(Box::pin(stream::try_unfold(sending, Sending::next))))
    }
}

/// A replica on its way out.
struct Sending {
    keeper: Arc<Keeper>,
    head: Head,
    /// Its bytes, part by part.
    read: Read,
    name: Name,
    /// The first byte that is wanted.
    offset: u64,
    at: u64,
    crc: Crc,
    greeted: bool,
    _permit: OwnedSemaphorePermit,
}

impl Sending {
    async fn next(mut self) -> Result<Option<(p::BlockPart, Self)>, Status> {
        let Head { length, crc32c, .. } = self.head;
        if !self.greeted {
            self.greeted = true;
            return Ok(Some((p::BlockPart { part: Some(Part::Head(p::BlockHead { length, crc32c })) }, self)));
        }
        while let Some(bytes) = self.read.try_next().await? {
            self.crc.update(&bytes);
            let wanted = self.at >= self.offset;
            self.at += bytes.len() as u64;
            if self.at == length && self.crc.value() != crc32c {
                return Err(damaged(self.keeper, self.name).await);
            }
            if wanted {
                return Ok(Some((p::BlockPart { part: Some(Part::Data(bytes.into())) }, self)));
            }
        }
        Ok(None)
    }
}

/// Its last part is not sent, so that nobody can take it for whole.
async fn damaged(keeper: Arc<Keeper>, name: Name) -> Status {
    let aside = spawn_blocking(move || keeper.damaged(&name, "its checksum is not that of its data"));
    if let Err(error) = aside.await {
        tracing::error!(%error, block = ?name, "a damaged replica could not be put aside");
    }
    Status::data_loss("the block is damaged")
}

/// Reads a replica, the next part while one is sent. What is before `offset` is read as well: the checksum is of all of it.
fn read(replica: &Arc<Replica>, offset: u64) -> Read {
    let (replica, length, mut at) = (replica.clone(), replica.head().length, 0);
    let parts = std::iter::from_fn(move || {
        let end = if at < offset { offset } else { length };
        let part = at..end.min(at + PART);
        at = part.end;
        (!part.is_empty()).then_some(part)
    });
    let reads = stream::iter(parts).map(move |part| {
        let replica = replica.clone();
        spawn_blocking(move || {
            let mut bytes = vec![0; usize::try_from(part.end - part.start).unwrap_or(0)];
            replica.read(&mut bytes, part.start).map(|()| bytes)
        })
    });
    Box::pin(reads.buffered(AHEAD).map(|read| {
        let read = read.map_err(|error| Status::internal(error.to_string()))?;
        read.map_err(|error| Status::data_loss(format!("the block cannot be read: {error}")))
    }))
}

fn unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
