//! A session, from the desk's side.

use hyperflow_api::message::FromOperator;
use tokio::{sync::mpsc, task::AbortHandle};
use tonic::Status;
use tracing::debug;

use crate::session::Place;

/// Where a worker is spoken to.
pub struct Line {
    /// The worker's pod.
    pub pod_uid: String,
    /// What is said.
    pub outbound: mpsc::Sender<Result<FromOperator, Status>>,
    reader: AbortHandle,
    _place: Place,
}

impl Line {
    /// Of a worker in this pod. `reader` reads what it says; `place` is given back when the session ends.
    pub fn new(
        pod_uid: String,
        outbound: mpsc::Sender<Result<FromOperator, Status>>,
        reader: AbortHandle,
        place: Place,
    ) -> Self {
        Self { pod_uid, outbound, reader, _place: place }
    }

    /// Says why, if the worker still reads, and ends both directions.
    pub fn hang_up(self, why: Status) {
        if self.outbound.try_send(Err(why)).is_err() {
            debug!("the worker does not hear why its session ends");
        }
        self.reader.abort();
    }
}
