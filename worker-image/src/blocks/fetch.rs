//! Blocks from other workers: asked one after the other, each with the right that the operator gave. A stream that breaks
//! is gone on with by the next one, where it broke.

use std::{
    collections::BTreeMap,
    sync::Mutex,
    time::{Duration, Instant},
};

use hyperflow_api::{
    ids::JobUid,
    replica::Peer,
    wire::proto::{self as p, block_part::Part, blocks_client::BlocksClient},
};
use hyperflow_core::pacing::Pace;
use tokio::{runtime::Handle, time::timeout};
use tonic::transport::{Channel, Endpoint};

use super::{error::BlockError, passport::Passports, writing::Writing};
use crate::{logs, work::locked};

/// Longest connect.
const CONNECT: Duration = Duration::from_secs(2);
/// Longest wait for the next bytes.
const SILENCE: Duration = Duration::from_secs(10);
/// A peer that could not be reached is not tried again for so long: others wait for blocks behind it.
const SHUNNED: Duration = Duration::from_secs(10);
const KEEPALIVE: Duration = Duration::from_secs(5);
/// Bytes that may be on their way to this process, in each stream and in all of a connection.
const WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// A part of a block comes in one frame of HTTP/2, not in seventeen.
const FRAME: u32 = 512 << 10;

/// The other workers of the job.
pub struct Peers {
    job: JobUid,
    pod: String,
    /// What this worker shows, and asks of others.
    pub passports: Passports,
    handle: Handle,
    channels: Mutex<BTreeMap<(String, String), (u64, Channel)>>,
    shunned: Mutex<BTreeMap<String, Instant>>,
    rate: Option<Mutex<Pace>>,
    began: Instant,
}

enum Failed {
    /// Ours: another peer does no better.
    Here(BlockError),
    /// Theirs.
    There(String),
}

impl Peers {
    /// Nobody is asked yet. `rate` is the limit of copies, in bytes a second; 0 is none.
    pub fn new(job: JobUid, pod: String, passports: Passports, handle: Handle, rate: u64) -> Self {
        Self {
            job,
            pod,
            passports,
            handle,
            channels: Mutex::default(),
            shunned: Mutex::default(),
            rate: (rate > 0).then(|| Mutex::new(Pace::new(rate))),
            began: Instant::now(),
        }
    }

    /// Gets the rest of a block from the first that gives it. Blocks; not for threads of the runtime. `go_on` is asked
    /// before each peer; `paced` keeps to the rate.
    pub fn get(
        &self,
        from: &[Peer],
        grant: &str,
        writing: &mut Writing,
        paced: bool,
        go_on: &dyn Fn() -> Result<(), BlockError>,
    ) -> Result<(), BlockError> {
        let mut last = None;
        for peer in from.iter().filter(|peer| peer.pod != self.pod) {
            go_on()?;
            if self.is_shunned(&peer.address) {
                last.get_or_insert_with(|| format!("'{}' was not reached a moment ago", peer.address));
                continue;
            }
            match self.handle.block_on(self.pull(peer, grant, writing, paced)) {
                Ok(()) => return Ok(()),
                Err(Failed::Here(error)) => return Err(error),
                Err(Failed::There(why)) => {
                    tracing::info!(peer = peer.address, pod = peer.pod, why, block = ?writing.name(), "no block from a peer");
                    last = Some(format!("'{}': {why}", peer.address));
                }
            }
        }
        let name = writing.name();
        Err(BlockError::NoCopy { shard: name.shard, part: name.part, last })
    }

    async fn pull(&self, peer: &Peer, grant: &str, writing: &mut Writing, paced: bool) -> Result<(), Failed> {
        let channel = self.channel(peer).await?;
        let result = self.stream(channel, grant, writing, paced).await;
        if let Err(Failed::There(_)) = &result {
            // Whatever it was, the next request begins with a new connection.
            locked(&self.channels).remove(&key(peer));
        }
        result
    }

    async fn stream(&self, channel: Channel, grant: &str, writing: &mut Writing, paced: bool) -> Result<(), Failed> {
        let name = writing.name();
        let request = p::FetchBlock {
            pod: self.pod.clone(),
            grant: grant.into(),
            group: name.group,
            shard: name.shard,
            part: name.part,
            version: name.version,
            offset: writing.written(),
        };
        let mut client = BlocksClient::new(channel);
        let answered = timeout(SILENCE, client.fetch(request)).await.map_err(|_late| silent())?;
        let mut parts = answered.map_err(|status| there(&status))?.into_inner();
        let mut promised = None;
        loop {
            let part = timeout(SILENCE, parts.message()).await.map_err(|_late| silent())?;
            let Some(part) = part.map_err(|status| there(&status))? else { break };
            match part.part {
                Some(Part::Head(head)) => {
                    promised = Some(head.crc32c);
                    begin(&head, writing)?;
                }
                Some(Part::Data(bytes)) => {
                    if promised.is_none() {
                        return Err(Failed::There("it sent data without saying of what".into()));
                    }
                    if paced {
                        self.pace(bytes.len() as u64).await;
                    }
                    append(writing, &bytes)?;
                }
                None => return Err(Failed::There("it sent something that this version does not know".into())),
            }
        }
        if promised.is_some_and(|crc| writing.is_whole(crc)) {
            return Ok(());
        }
        let whole = writing.written() == writing.length();
        if whole {
            writing.restart();
        }
        Err(Failed::There(if whole { "what came is damaged" } else { "it ended too early" }.into()))
    }

    async fn pace(&self, bytes: u64) {
        let Some(rate) = &self.rate else { return };
        let now = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let nanos = locked(rate).reserve(now, bytes);
        tokio::time::sleep(Duration::from_nanos(nanos)).await;
    }

    async fn channel(&self, peer: &Peer) -> Result<Channel, Failed> {
        let shown = self.passports.shown();
        let shown = shown.ok_or_else(|| Failed::There("this worker has no passport yet".into()))?;
        if let Some((number, channel)) = locked(&self.channels).get(&key(peer))
            && *number == shown.number
        {
            return Ok(channel.clone());
        }
        let endpoint = Endpoint::from_shared(format!("https://{}", peer.address))
            .and_then(|endpoint| endpoint.tls_config(shown.client(&peer.pod, &self.job)))
            .map_err(|error| Failed::There(logs::causes(&error)))?
            .tcp_nodelay(true)
            .tcp_keepalive(Some(KEEPALIVE))
            .connect_timeout(CONNECT)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE);
        let why = match timeout(CONNECT, endpoint.connect()).await {
            Ok(Ok(channel)) => {
                locked(&self.channels).insert(key(peer), (shown.number, channel.clone()));
                return Ok(channel);
            }
            Ok(Err(error)) => logs::causes(&error),
            Err(_late) => "it did not answer in time".into(),
        };
        locked(&self.shunned).insert(peer.address.clone(), Instant::now());
        Err(Failed::There(why))
    }

    fn is_shunned(&self, address: &str) -> bool {
        let mut shunned = locked(&self.shunned);
        shunned.retain(|_, since| since.elapsed() < SHUNNED);
        shunned.contains_key(address)
    }

    /// A new passport is shown from now on.
    pub fn show(&self, passport: &p::Passport) -> Result<(), BlockError> {
        self.passports.show(passport)?;
        locked(&self.channels).clear();
        locked(&self.shunned).clear();
        Ok(())
    }
}

fn key(peer: &Peer) -> (String, String) {
    (peer.pod.clone(), peer.address.clone())
}

fn silent() -> Failed {
    Failed::There(format!("it said nothing for {} seconds", SILENCE.as_secs()))
}

fn there(status: &tonic::Status) -> Failed {
    Failed::There(format!("{:?}: {}", status.code(), status.message()))
}

/// What comes must go on with what came from another peer, or it begins again.
fn begin(head: &p::BlockHead, writing: &mut Writing) -> Result<(), Failed> {
    if head.length != writing.length() {
        return Err(Failed::There(format!("its copy has {} bytes, not {}", head.length, writing.length())));
    }
    if writing.promise(head.crc32c) {
        return Ok(());
    }
    // One of two peers has a damaged copy: nothing of either is believed.
    writing.restart();
    Err(Failed::There("its copy has another checksum than the one before".into()))
}

fn append(writing: &mut Writing, bytes: &[u8]) -> Result<(), Failed> {
    writing.append(bytes).map_err(|error| match error {
        BlockError::Damaged { .. } => {
            writing.restart();
            Failed::There("it sent more than there is".into())
        }
        error => Failed::Here(error),
    })
}
