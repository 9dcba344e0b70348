//! The way to a desk: letters, each with a deadline.

use std::time::Duration;

use hyperflow_core::coordinator::{Pod, Seen, WantedPods};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::{
    apply::PodRefusal,
    client::CallError,
    clock::ChanceError,
    desk::{Call, Mail},
};

/// Longest time for a desk to read a letter and to answer it.
const ANSWER: Duration = Duration::from_secs(5);

/// A desk is of no help now.
#[derive(Debug, thiserror::Error)]
pub enum HandleError {
    /// The job cannot be read.
    #[error("cannot open a desk for the job")]
    Read(#[from] CallError),
    /// No take-over can be named.
    #[error("cannot take the job over")]
    Chance(#[from] ChanceError),
    /// The desk ended meanwhile.
    #[error("cannot reach the job's desk: it has closed")]
    Closed,
    /// The desk is stuck, or has far too much to do.
    #[error("cannot reach the job's desk: no answer within {}s", ANSWER.as_secs())]
    Silent,
}

impl HandleError {
    /// For the metric's label.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Read(_) => "desk_read",
            Self::Chance(_) => "desk_chance",
            Self::Closed => "desk_closed",
            Self::Silent => "desk_silent",
        }
    }
}

/// The way to a desk.
#[derive(Clone)]
pub struct Handle {
    /// Namespace of the job.
    pub namespace: String,
    mail: mpsc::Sender<Mail>,
}

impl Handle {
    /// The way to the desk that reads this mailbox.
    #[must_use]
    pub fn new(namespace: String, mail: mpsc::Sender<Mail>) -> Self {
        Self { namespace, mail }
    }

    /// Shows the desk its job and pods, and asks what the pool should be.
    ///
    /// # Errors
    /// When the desk does not answer.
    pub async fn look(&self, job: Seen, pods: Vec<Pod>) -> Result<WantedPods, HandleError> {
        let (answer, wanted) = oneshot::channel();
        self.send(Mail::Look { job: Box::new(job), pods, answer }).await?;
        let answered = timeout(ANSWER, wanted).await.map_err(|_elapsed| HandleError::Silent)?;
        answered.map_err(|_closed| HandleError::Closed)
    }

    /// Tells the desk that the API server did not want a pod.
    ///
    /// # Errors
    /// When the desk does not read.
    pub async fn pod_refused(&self, refusal: PodRefusal) -> Result<(), HandleError> {
        self.send(Mail::PodRefused(refusal)).await
    }

    /// Hands the desk a session.
    ///
    /// # Errors
    /// When the desk does not read.
    pub async fn call(&self, call: Call) -> Result<(), HandleError> {
        self.send(Mail::Call(Box::new(call))).await
    }

    async fn send(&self, mail: Mail) -> Result<(), HandleError> {
        let sent = timeout(ANSWER, self.mail.send(mail)).await.map_err(|_elapsed| HandleError::Silent)?;
        sent.map_err(|_closed| HandleError::Closed)
    }
}
