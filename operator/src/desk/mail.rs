//! What a desk is told.

use hyperflow_api::message::{FromOperator, Hello, Report};
use hyperflow_core::coordinator::{Pod, Seen, SessionId, WantedPods};
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use crate::{
    apply::PodRefusal,
    session::{Inbound, Place},
};

/// Letters that wait for a desk at most; senders wait then.
pub const MAILBOX: usize = 1024;

/// A letter to a desk.
pub enum Mail {
    /// The resource and its pool, as reconciliation sees them; wants to know what the pool should be.
    Look {
        /// The resource.
        job: Box<Seen>,
        /// All its pods.
        pods: Vec<Pod>,
        /// Gets the answer.
        answer: oneshot::Sender<WantedPods>,
    },
    /// The API server did not want a pod.
    PodRefused(PodRefusal),
    /// A worker that proved who it is.
    Call(Box<Call>),
    /// A worker said something.
    Said(SessionId, Report),
}

/// A new session.
pub struct Call {
    /// Its number, never used twice by this process.
    pub session: SessionId,
    /// The first message.
    pub hello: Hello,
    /// What the worker says from here on.
    pub inbound: Inbound,
    /// Where it is spoken to.
    pub outbound: mpsc::Sender<Result<FromOperator, Status>>,
    /// Its place among the sessions of this process.
    pub place: Place,
}
