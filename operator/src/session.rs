//! One worker's stream, as the desk uses it.

use std::{panic::AssertUnwindSafe, pin::Pin, sync::Arc};

use futures::{FutureExt, Stream, StreamExt};
use hyperflow_api::{
    message::{FromOperator, FromWorker},
    wire::proto,
};
use hyperflow_core::coordinator::SessionId;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tonic::Status;
use tracing::{debug, error};

use crate::desk::Mail;

/// What a worker says.
pub type Inbound = Pin<Box<dyn Stream<Item = Result<proto::FromWorker, Status>> + Send>>;

/// Messages that wait for a worker at most. One that lets so many wait does not read.
pub const OUTBOUND: usize = 256;

/// A place among the sessions that this process takes. Given back when dropped.
pub struct Place {
    _permit: OwnedSemaphorePermit,
    sessions: Gauge,
}

impl Place {
    /// A place, if there is one.
    #[must_use]
    pub fn take(places: &Arc<Semaphore>, sessions: &Gauge) -> Option<Self> {
        let permit = Arc::clone(places).try_acquire_owned().ok()?;
        sessions.inc();
        Some(Self { _permit: permit, sessions: sessions.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.sessions.dec();
    }
}

/// Passes what a worker says to the desk, until the stream ends or says nonsense. A desk that is busy makes it wait, and
/// thereby the worker.
pub async fn read(
    session: SessionId,
    inbound: Inbound,
    outbound: mpsc::Sender<Result<FromOperator, Status>>,
    desk: mpsc::WeakSender<Mail>,
) -> SessionId {
    match AssertUnwindSafe(pass_on(session, inbound, desk)).catch_unwind().await {
        Ok(Ok(())) => debug!(session = session.0, "a worker hung up"),
        Ok(Err(status)) => {
            debug!(session = session.0, error = status.message(), "a session broke");
            // When nobody takes it, the worker is gone already.
            let _told = outbound.try_send(Err(status));
        }
        Err(_panic) => error!(session = session.0, "the reader of a session panicked"),
    }
    session
}

async fn pass_on(session: SessionId, mut inbound: Inbound, desk: mpsc::WeakSender<Mail>) -> Result<(), Status> {
    while let Some(message) = inbound.next().await {
        let report = match FromWorker::try_from(message?) {
            Ok(FromWorker::Report(report)) => report,
            Ok(FromWorker::Hello(_)) => return Err(Status::invalid_argument("a second hello in one session")),
            Err(error) => return Err(Status::invalid_argument(error.to_string())),
        };
        let Some(desk) = desk.upgrade() else { return Ok(()) };
        if desk.send(Mail::Said(session, report)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use hyperflow_api::message::Report;

    use super::*;

    const SESSION: SessionId = SessionId(7);

    async fn read_all(messages: Vec<Result<proto::FromWorker, Status>>) -> (Vec<Mail>, Option<Status>) {
        let (outbound, mut heard) = mpsc::channel(OUTBOUND);
        let (desk, mut mailbox) = mpsc::channel(16);
        let ended = read(SESSION, Box::pin(stream::iter(messages)), outbound, desk.downgrade()).await;
        assert_eq!(ended, SESSION);
        drop(desk);
        let mut mail = Vec::new();
        while let Some(letter) = mailbox.recv().await {
            mail.push(letter);
        }
        (mail, heard.recv().await.and_then(Result::err))
    }

    #[tokio::test]
    async fn reports_reach_the_desk_in_order() {
        let report = |number| FromWorker::Report(Report { first_number: number, ..Report::default() });
        let (mail, refused) = read_all(vec![Ok(report(1).into()), Ok(report(2).into())]).await;
        let numbers: Vec<u64> = mail
            .iter()
            .map(|letter| match letter {
                Mail::Said(SESSION, report) => report.first_number,
                _ => panic!("another letter"),
            })
            .collect();
        assert_eq!(numbers, [1, 2]);
        assert!(refused.is_none());
    }

    #[tokio::test]
    async fn nonsense_ends_the_session_with_its_name() {
        let (mail, refused) = read_all(vec![Ok(proto::FromWorker::default())]).await;
        assert!(mail.is_empty());
        let refused = refused.unwrap();
        assert_eq!((refused.code(), refused.message()), (tonic::Code::InvalidArgument, "message without content"));
    }

    #[test]
    fn places_are_few_and_come_back() {
        let (places, sessions) = (Arc::new(Semaphore::new(1)), Gauge::default());
        let place = Place::take(&places, &sessions).unwrap();
        assert!(Place::take(&places, &sessions).is_none());
        assert_eq!(sessions.get(), 1);
        drop(place);
        assert_eq!(sessions.get(), 0);
        assert!(Place::take(&places, &sessions).is_some());
    }
}
