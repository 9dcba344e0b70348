//! The messages of [`crate::message`] on the wire. What a peer sends is checked here, once.

use crate::{
    ids::{Epoch, JobUid, MAX_SHARDS, Takeover, WorkerId},
    message::{self as m, FailureClass},
};

/// Generated from `proto/session.proto`.
#[allow(missing_docs, clippy::all, clippy::pedantic, unused_qualifications, reason = "generated code")]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/hyperflow.v1alpha1.rs"));
}

use proto as p;

mod replica;

/// A message that says nothing we understand.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A part that must be there is not.
    #[error("message without {0}")]
    Missing(&'static str),
    /// A shard that no plan can have.
    #[error("shard {0} is beyond the {MAX_SHARDS} a job may have")]
    Shard(u32),
    /// A text that is longer than any that a worker of ours says.
    #[error("{0} is longer than {1} bytes")]
    TooLong(&'static str, usize),
    /// A reason that no condition may have.
    #[error("a failure's reason must be one word of at most 64 letters and digits")]
    Reason,
    /// A failure class of a newer version.
    #[error("failure class {0} is unknown")]
    Class(i32),
    /// A credential or a passport, which is for the stream and not for what it carries.
    #[error("a credential where an order was expected")]
    Credential,
}

fn need<T>(part: Option<T>, name: &'static str) -> Result<T, WireError> {
    part.ok_or(WireError::Missing(name))
}

/// Most bytes of a text that goes into a status as it is.
const TEXT_BYTES: usize = 2048;

/// A word for programs, as the API server takes it for the reason of a condition.
fn is_reason(text: &str) -> bool {
    let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic());
    first && text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn bounded(name: &'static str, text: String) -> Result<String, WireError> {
    if text.len() > TEXT_BYTES { Err(WireError::TooLong(name, TEXT_BYTES)) } else { Ok(text) }
}

impl From<Epoch> for p::Epoch {
    fn from(epoch: Epoch) -> Self {
        Self { term: epoch.takeover.term, takeover: epoch.takeover.random, sequence: epoch.sequence }
    }
}

impl From<p::Epoch> for Epoch {
    fn from(epoch: p::Epoch) -> Self {
        Self { takeover: Takeover { term: epoch.term, random: epoch.takeover }, sequence: epoch.sequence }
    }
}

impl From<m::Target> for p::Target {
    fn from(target: m::Target) -> Self {
        let of = match target {
            m::Target::Shard(index) => p::target::Of::Shard(index),
            m::Target::Plan => p::target::Of::Plan(p::Nothing {}),
            m::Target::Finally => p::target::Of::Finally(p::Nothing {}),
            m::Target::Sweep => p::target::Of::Sweep(p::Nothing {}),
        };
        Self { of: Some(of) }
    }
}

fn target(target: Option<p::Target>) -> Result<m::Target, WireError> {
    match need(target.and_then(|target| target.of), "target")? {
        p::target::Of::Shard(index) if index >= MAX_SHARDS => Err(WireError::Shard(index)),
        p::target::Of::Shard(index) => Ok(m::Target::Shard(index)),
        p::target::Of::Plan(_) => Ok(m::Target::Plan),
        p::target::Of::Finally(_) => Ok(m::Target::Finally),
        p::target::Of::Sweep(_) => Ok(m::Target::Sweep),
    }
}

fn epoch(epoch: Option<p::Epoch>) -> Result<Epoch, WireError> {
    Ok(need(epoch, "epoch")?.into())
}

impl From<m::Checkpoint> for p::Checkpoint {
    fn from(m::Checkpoint { number, position, digest }: m::Checkpoint) -> Self {
        Self { number, position, digest }
    }
}

impl From<p::Checkpoint> for m::Checkpoint {
    fn from(p::Checkpoint { number, position, digest }: p::Checkpoint) -> Self {
        Self { number, position, digest }
    }
}

impl From<m::Held> for p::Held {
    fn from(held: m::Held) -> Self {
        Self { target: Some(held.target.into()), epoch: Some(held.epoch.into()), position: held.position }
    }
}

impl TryFrom<p::Held> for m::Held {
    type Error = WireError;

    fn try_from(held: p::Held) -> Result<Self, WireError> {
        Ok(Self { target: target(held.target)?, epoch: epoch(held.epoch)?, position: held.position })
    }
}

impl From<m::Failure> for p::Failure {
    fn from(failure: m::Failure) -> Self {
        let m::Failure { class, reason, message, ends_job, checkpoint_unusable, exit_code } = failure;
        let class = match class {
            FailureClass::Application => p::FailureClass::Application,
            FailureClass::BadInput => p::FailureClass::BadInput,
            FailureClass::Store => p::FailureClass::Store,
            FailureClass::WorkerLost => p::FailureClass::WorkerLost,
            FailureClass::OutOfMemory => p::FailureClass::OutOfMemory,
            FailureClass::Timeout => p::FailureClass::Timeout,
            FailureClass::NodeLost => p::FailureClass::NodeLost,
            FailureClass::Evicted => p::FailureClass::Evicted,
            FailureClass::Preempted => p::FailureClass::Preempted,
            FailureClass::ImagePull => p::FailureClass::ImagePull,
        };
        Self { class: class.into(), reason, message, ends_job, checkpoint_unusable, exit_code }
    }
}

impl TryFrom<p::Failure> for m::Failure {
    type Error = WireError;

    fn try_from(failure: p::Failure) -> Result<Self, WireError> {
        let class = match p::FailureClass::try_from(failure.class) {
            Ok(p::FailureClass::Application) => FailureClass::Application,
            Ok(p::FailureClass::BadInput) => FailureClass::BadInput,
            Ok(p::FailureClass::Store) => FailureClass::Store,
            Ok(p::FailureClass::WorkerLost) => FailureClass::WorkerLost,
            Ok(p::FailureClass::OutOfMemory) => FailureClass::OutOfMemory,
            Ok(p::FailureClass::Timeout) => FailureClass::Timeout,
            Ok(p::FailureClass::NodeLost) => FailureClass::NodeLost,
            Ok(p::FailureClass::Evicted) => FailureClass::Evicted,
            Ok(p::FailureClass::Preempted) => FailureClass::Preempted,
            Ok(p::FailureClass::ImagePull) => FailureClass::ImagePull,
            Ok(p::FailureClass::Unspecified) | Err(_) => return Err(WireError::Class(failure.class)),
        };
        let p::Failure { class: _, reason, message, ends_job, checkpoint_unusable, exit_code } = failure;
        if !is_reason(&reason) {
            return Err(WireError::Reason);
        }
        Ok(Self { class, reason, message, ends_job, checkpoint_unusable, exit_code })
    }
}

impl From<m::Fact> for p::Fact {
    fn from(fact: m::Fact) -> Self {
        use p::fact::News as Wire;
        let news = match fact.news {
            m::News::Checkpointed(checkpoint) => Wire::Checkpointed(checkpoint.into()),
            m::News::Published(m::Published { bytes, crc32c, found }) => {
                Wire::Published(p::Published { bytes, crc32c, found })
            }
            m::News::Planned(m::Planned { shards, files, bytes, digest, url }) => {
                Wire::Planned(p::Planned { shards, files, bytes, digest, url })
            }
            m::News::Claimed(m::Owner { uid, namespace, name }) => {
                Wire::Claimed(p::Owner { uid: uid.0, namespace, name })
            }
            m::News::Finalized => Wire::Finalized(p::Nothing {}),
            m::News::Swept(report) => Wire::Swept(p::Swept {
                report: report.map(|m::StoredReport { url, digest }| p::StoredReport { url, digest }),
            }),
            m::News::Failed(failure) => Wire::Failed(failure.into()),
            m::News::Released => Wire::Released(p::Nothing {}),
        };
        Self { target: Some(fact.target.into()), epoch: Some(fact.epoch.into()), news: Some(news) }
    }
}

impl TryFrom<p::Fact> for m::Fact {
    type Error = WireError;

    fn try_from(fact: p::Fact) -> Result<Self, WireError> {
        use p::fact::News as Wire;
        let news = match need(fact.news, "news")? {
            Wire::Checkpointed(checkpoint) => m::News::Checkpointed(checkpoint.into()),
            Wire::Published(p::Published { bytes, crc32c, found }) => {
                m::News::Published(m::Published { bytes, crc32c, found })
            }
            Wire::Planned(p::Planned { shards, .. }) if shards > MAX_SHARDS => return Err(WireError::Shard(shards)),
            Wire::Planned(p::Planned { shards, files, bytes, digest, url }) => {
                let (digest, url) = (bounded("plan digest", digest)?, bounded("plan url", url)?);
                m::News::Planned(m::Planned { shards, files, bytes, digest, url })
            }
            Wire::Claimed(p::Owner { uid, namespace, name }) => m::News::Claimed(m::Owner {
                uid: JobUid(bounded("owner's UID", uid)?),
                namespace: bounded("owner's namespace", namespace)?,
                name: bounded("owner's name", name)?,
            }),
            Wire::Finalized(_) => m::News::Finalized,
            Wire::Swept(p::Swept { report }) => m::News::Swept(report.map(stored_report).transpose()?),
            Wire::Failed(failure) => m::News::Failed(failure.try_into()?),
            Wire::Released(_) => m::News::Released,
        };
        Ok(Self { target: target(fact.target)?, epoch: epoch(fact.epoch)?, news })
    }
}

fn stored_report(report: p::StoredReport) -> Result<m::StoredReport, WireError> {
    let p::StoredReport { url, digest } = report;
    Ok(m::StoredReport { url: bounded("report url", url)?, digest: bounded("report digest", digest)? })
}

impl From<m::FromWorker> for p::FromWorker {
    fn from(message: m::FromWorker) -> Self {
        let message = match message {
            m::FromWorker::Hello(hello) => p::from_worker::Message::Hello(p::Hello {
                protocol: hello.protocol,
                job_uid: hello.job.0,
                pod_uid: hello.worker.pod_uid,
                nonce: hello.worker.nonce,
                slots: hello.slots,
                held: hello.held.into_iter().map(Into::into).collect(),
                heard: hello.heard,
                host: hello.host.map(Into::into),
            }),
            m::FromWorker::Report(report) => p::from_worker::Message::Report(p::Report {
                beat: report.beat,
                held: report.held.into_iter().map(Into::into).collect(),
                capacity: report.capacity,
                leaving: report.leaving,
                first_number: report.first_number,
                facts: report.facts.into_iter().map(Into::into).collect(),
                holdings: report.holdings.map(Into::into),
            }),
        };
        Self { message: Some(message) }
    }
}

impl TryFrom<p::FromWorker> for m::FromWorker {
    type Error = WireError;

    fn try_from(message: p::FromWorker) -> Result<Self, WireError> {
        Ok(match need(message.message, "content")? {
            p::from_worker::Message::Hello(hello) => Self::Hello(m::Hello {
                protocol: hello.protocol,
                job: JobUid(hello.job_uid),
                worker: WorkerId { pod_uid: hello.pod_uid, nonce: hello.nonce },
                slots: hello.slots,
                held: hello.held.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
                heard: hello.heard,
                host: hello.host.map(TryInto::try_into).transpose()?,
            }),
            p::from_worker::Message::Report(report) => Self::Report(m::Report {
                beat: report.beat,
                held: report.held.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
                capacity: report.capacity,
                leaving: report.leaving,
                first_number: report.first_number,
                facts: report.facts.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
                holdings: report.holdings.map(TryInto::try_into).transpose()?,
            }),
        })
    }
}

impl From<m::Grant> for p::Grant {
    fn from(grant: m::Grant) -> Self {
        Self {
            target: Some(grant.target.into()),
            epoch: Some(grant.epoch.into()),
            attempt: grant.attempt,
            replaces: grant.replaces.map(Into::into),
            probe: grant.probe,
            resume: grant.resume.map(Into::into),
            heir_of: grant.heir_of,
        }
    }
}

impl TryFrom<p::Grant> for m::Grant {
    type Error = WireError;

    fn try_from(grant: p::Grant) -> Result<Self, WireError> {
        Ok(Self {
            target: target(grant.target)?,
            epoch: epoch(grant.epoch)?,
            attempt: grant.attempt,
            replaces: grant.replaces.map(Into::into),
            probe: grant.probe,
            resume: grant.resume.map(Into::into),
            heir_of: grant.heir_of,
        })
    }
}

impl From<m::FromOperator> for p::FromOperator {
    fn from(message: m::FromOperator) -> Self {
        let message = match message {
            m::FromOperator::Welcome(m::Welcome { takeover, job, lease_millis, orphan_seconds }) => {
                p::from_operator::Message::Welcome(p::Welcome {
                    term: takeover.term,
                    takeover: takeover.random,
                    job,
                    lease_millis,
                    orphan_seconds,
                })
            }
            m::FromOperator::Orders(orders) => p::from_operator::Message::Orders(p::Orders {
                grants: orders.grants.into_iter().map(Into::into).collect(),
                revoked: orders
                    .revoked
                    .into_iter()
                    .map(|lease| p::Revoked { target: Some(lease.target.into()), epoch: Some(lease.epoch.into()) })
                    .collect(),
                acked_through: orders.acked_through,
                plan: orders.plan.map(|m::PlanRef { shards, digest }| p::PlanRef { shards, digest }),
                leave: orders.leave,
                blocks: orders.blocks.into_iter().map(Into::into).collect(),
            }),
        };
        Self { message: Some(message) }
    }
}

impl TryFrom<p::FromOperator> for m::FromOperator {
    type Error = WireError;

    fn try_from(message: p::FromOperator) -> Result<Self, WireError> {
        Ok(match need(message.message, "content")? {
            p::from_operator::Message::Welcome(p::Welcome { term, takeover, job, lease_millis, orphan_seconds }) => {
                let takeover = Takeover { term, random: takeover };
                Self::Welcome(m::Welcome { takeover, job, lease_millis, orphan_seconds })
            }
            p::from_operator::Message::Credential(_) | p::from_operator::Message::Passport(_) => {
                return Err(WireError::Credential);
            }
            p::from_operator::Message::Orders(orders) => Self::Orders(m::Orders {
                grants: orders.grants.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
                revoked: orders
                    .revoked
                    .into_iter()
                    .map(|lease| Ok(m::Revoked { target: target(lease.target)?, epoch: epoch(lease.epoch)? }))
                    .collect::<Result<_, _>>()?,
                acked_through: orders.acked_through,
                plan: orders.plan.map(|p::PlanRef { shards, digest }| m::PlanRef { shards, digest }),
                leave: orders.leave,
                blocks: orders.blocks.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::replica as r;

    fn lease() -> Epoch {
        Epoch { takeover: Takeover { term: 3, random: u64::MAX }, sequence: 9 }
    }

    fn peer() -> r::Peer {
        r::Peer { pod: "pod-1".into(), address: "10.0.0.1:7701".into() }
    }

    #[test]
    fn a_report_survives_the_wire() {
        let failure = m::Failure {
            class: FailureClass::BadInput,
            reason: "InputChanged".into(),
            message: "it shrank".into(),
            ends_job: true,
            checkpoint_unusable: false,
            exit_code: Some(65),
        };
        let checkpoint = m::Checkpoint { number: 2, position: 1 << 40, digest: 7 };
        let fact = |news| m::Fact { target: m::Target::Shard(41), epoch: lease(), news };
        let report = m::FromWorker::Report(m::Report {
            beat: true,
            held: vec![m::Held { target: m::Target::Plan, epoch: lease(), position: 0 }],
            capacity: 2,
            leaving: false,
            first_number: 17,
            facts: vec![
                fact(m::News::Checkpointed(checkpoint)),
                fact(m::News::Published(m::Published { bytes: 5, crc32c: 6, found: true })),
                fact(m::News::Failed(failure)),
                fact(m::News::Released),
            ],
            holdings: Some(r::Holdings {
                plan: "blake3:00".into(),
                full: true,
                free: 9,
                groups: vec![r::GroupHeld { group: 3, blocks: 4, good: 2, stale: 1, corrupt: 1, digest: 5, bytes: 6 }],
                ended: vec![r::LoadEnd {
                    group: 2,
                    order: 7,
                    from_peers: 8,
                    from_source: 9,
                    trouble: Some(r::Trouble { reason: r::Trouble::FULL.into(), message: "no room".into() }),
                }],
            }),
        });
        let bytes = p::FromWorker::from(report.clone()).encode_to_vec();
        assert_eq!(m::FromWorker::try_from(p::FromWorker::decode(&bytes[..]).unwrap()), Ok(report));
    }

    #[test]
    fn orders_survive_the_wire() {
        let orders = m::FromOperator::Orders(m::Orders {
            grants: vec![m::Grant {
                target: m::Target::Shard(0),
                epoch: lease(),
                attempt: 2,
                replaces: Some(lease()),
                probe: true,
                resume: Some(m::Checkpoint { number: 1, position: 2, digest: 3 }),
                heir_of: Some(4),
            }],
            revoked: vec![m::Revoked { target: m::Target::Sweep, epoch: lease() }],
            acked_through: Some(0),
            plan: Some(m::PlanRef { shards: 4, digest: "blake3:00".into() }),
            leave: true,
            blocks: vec![
                r::BlockOrder::Load { group: 0, order: 1, from: vec![peer()], source: true, grant: "g".into() },
                r::BlockOrder::Drop { group: 1, what: r::Dropped::Outdated },
                r::BlockOrder::Access { group: 2, from: vec![peer()], grant: "h".into() },
            ],
        });
        let bytes = p::FromOperator::from(orders.clone()).encode_to_vec();
        assert_eq!(m::FromOperator::try_from(p::FromOperator::decode(&bytes[..]).unwrap()), Ok(orders));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        assert_eq!(m::FromWorker::try_from(p::FromWorker::default()), Err(WireError::Missing("content")));
        assert_eq!(m::Held::try_from(p::Held::default()), Err(WireError::Missing("target")));
        let beyond = p::Target { of: Some(p::target::Of::Shard(MAX_SHARDS)) };
        assert_eq!(target(Some(beyond)), Err(WireError::Shard(MAX_SHARDS)));
        assert_eq!(m::Failure::try_from(p::Failure::default()), Err(WireError::Class(0)));
    }
}
