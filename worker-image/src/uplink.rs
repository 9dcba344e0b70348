//! The stream to the operator as the session sees it: being opened, open, or lost. A peer that takes nothing, or says
//! nothing, is lost.

use std::{collections::VecDeque, error::Error, pin::Pin, sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt};
use hyperflow_api::{
    message::{FromOperator, FromWorker},
    wire::proto as p,
};
use hyperflow_core::worker::Event;
use tokio::{
    sync::mpsc::error::TrySendError,
    time::{Instant, sleep_until, timeout_at},
};
use tonic::{Code, Status};

use crate::{
    blocks::Keeper,
    connect::{DialError, Dialer, Link},
    logs,
};

/// Longest wait for the operator to take a message.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest wait for its first answer: it asks the API server who we are.
const GREETING: Duration = Duration::from_secs(10);
/// Longest wait, at the end of the process, for the last messages to leave.
const FAREWELL: Duration = Duration::from_millis(250);

type Dialing = Pin<Box<dyn Future<Output = (Box<Dialer>, Result<Link, DialError>)> + Send>>;

/// The stream to the operator, in whatever state.
pub struct Uplink {
    state: State,
    /// Said, and not taken by the open stream yet.
    held_back: VecDeque<p::FromWorker>,
    /// Why the last try failed.
    failure: String,
    /// Who shows passports to other workers.
    keeper: Option<Arc<Keeper>>,
}

enum State {
    Dialing(Dialing),
    Open {
        link: Link,
        dialer: Box<Dialer>,
        /// The operator answered.
        answered: bool,
        /// When to give up, if nothing is taken or answered until then.
        give_up: Option<Instant>,
    },
    Lost,
}

enum Step {
    Answer(Option<Result<p::FromOperator, Status>>),
    Taken,
    Late,
}

fn dial(mut dialer: Box<Dialer>) -> State {
    State::Dialing(Box::pin(async move {
        let dialed = dialer.dial().await;
        (dialer, dialed)
    }))
}

impl Uplink {
    /// Begins to look for an operator.
    pub fn new(dialer: Dialer, keeper: Option<Arc<Keeper>>) -> Self {
        Self { state: dial(Box::new(dialer)), held_back: VecDeque::new(), failure: String::new(), keeper }
    }

    /// Waits for something to happen; nothing may also be an answer. Can be dropped and called again at any time.
    pub async fn next(&mut self) -> Option<Event> {
        match &mut self.state {
            State::Dialing(dialing) => {
                let (dialer, dialed) = dialing.await;
                Some(self.dialed(dialer, dialed))
            }
            State::Open { link, give_up, .. } => {
                let late = async {
                    match *give_up {
                        Some(at) => sleep_until(at).await,
                        None => std::future::pending().await,
                    }
                };
                let step = tokio::select! {
                    answer = link.incoming.next() => Step::Answer(answer),
                    permit = link.outgoing.reserve(), if !self.held_back.is_empty() => {
                        if let (Ok(permit), Some(message)) = (permit, self.held_back.pop_front()) {
                            permit.send(message);
                        }
                        Step::Taken
                    }
                    () = late => Step::Late,
                };
                match step {
                    Step::Answer(answer) => self.heard(answer),
                    Step::Taken => {
                        self.taken();
                        None
                    }
                    Step::Late => Some(self.late()),
                }
            }
            // Only between a loss and the next dial, which are one step.
            State::Lost => std::future::pending().await,
        }
    }

    /// What the operator has said already, without waiting for more.
    pub fn ready(&mut self) -> Option<Event> {
        let State::Open { link, .. } = &mut self.state else { return None };
        let answer = link.incoming.next().now_or_never()?;
        self.heard(answer)
    }

    /// Says something. Without an open stream it is dropped: facts are said again in the next session (P12).
    pub fn send(&mut self, message: FromWorker) {
        let State::Open { link, give_up, .. } = &mut self.state else { return };
        let message = p::FromWorker::from(message);
        if !self.held_back.is_empty() {
            self.held_back.push_back(message);
            return;
        }
        match link.outgoing.try_send(message) {
            // A closed stream is noticed where it is read.
            Ok(()) | Err(TrySendError::Closed(_)) => {}
            Err(TrySendError::Full(message)) => {
                self.held_back.push_back(message);
                give_up.get_or_insert_with(|| Instant::now() + PATIENCE);
            }
        }
    }

    fn late(&mut self) -> Event {
        if let State::Open { link, dialer, .. } = &mut self.state {
            dialer.unheard(link.address);
        }
        self.lose("the operator takes nothing, or does not answer")
    }

    /// Closes the stream and looks for another operator.
    pub fn lose(&mut self, why: &str) -> Event {
        self.held_back.clear();
        let state = std::mem::replace(&mut self.state, State::Lost);
        self.state = match state {
            State::Open { link, dialer, .. } => {
                tracing::info!(operator = %link.address, why, "the stream to the operator is closed");
                dial(dialer)
            }
            other => other,
        };
        Event::Disconnected
    }

    /// Lets the last messages leave, and closes the stream.
    pub async fn close(mut self) {
        let State::Open { mut link, .. } = self.state else { return };
        let until = Instant::now() + FAREWELL;
        for message in self.held_back.drain(..) {
            if !matches!(timeout_at(until, link.outgoing.send(message)).await, Ok(Ok(()))) {
                return;
            }
        }
        // The operator ends its half when it has read ours.
        drop(link.outgoing);
        while let Ok(Some(Ok(_))) = timeout_at(until, link.incoming.next()).await {}
    }

    /// Whether a stream is open.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    fn dialed(&mut self, dialer: Box<Dialer>, dialed: Result<Link, DialError>) -> Event {
        match dialed {
            Ok(link) => {
                let give_up = Some(Instant::now() + GREETING);
                self.state = State::Open { link, dialer, answered: false, give_up };
                Event::Connected
            }
            Err(error) => {
                let error = logs::causes(&error);
                if error != self.failure {
                    // Said once, not with every try.
                    tracing::warn!(error, "no stream to the operator");
                    self.failure = error;
                }
                self.state = dial(dialer);
                Event::Disconnected
            }
        }
    }

    /// The operator takes messages again.
    fn taken(&mut self) {
        if let State::Open { answered, give_up, .. } = &mut self.state
            && *answered
        {
            *give_up = (!self.held_back.is_empty()).then(|| Instant::now() + PATIENCE);
        }
    }

    /// What an answer means to the session. A credential is for the stream alone, and
    /// a passport for those to other workers.
    fn heard(&mut self, answer: Option<Result<p::FromOperator, Status>>) -> Option<Event> {
        let message = match answer {
            Some(Ok(message)) => message,
            Some(Err(status)) => return Some(self.refused(&status)),
            None => return Some(self.lose("the operator ended it")),
        };
        if let State::Open { dialer, answered, give_up, .. } = &mut self.state {
            if !*answered {
                *answered = true;
                *give_up = (!self.held_back.is_empty()).then(|| Instant::now() + PATIENCE);
                dialer.welcomed();
                self.failure.clear();
            }
            if let Some(p::from_operator::Message::Credential(credential)) = &message.message {
                dialer.trust(credential);
                return None;
            }
            if let Some(p::from_operator::Message::Passport(passport)) = &message.message {
                if let Some(keeper) = &self.keeper {
                    keeper.show(passport);
                }
                return None;
            }
        }
        match FromOperator::try_from(message) {
            Ok(message) => Some(Event::Heard(message)),
            Err(error) => {
                tracing::warn!(%error, "the operator said something that makes no sense");
                Some(self.lose("a message made no sense"))
            }
        }
    }

    fn refused(&mut self, status: &Status) -> Event {
        match (&mut self.state, status.code()) {
            // It has expired, or the operators have a new authority.
            (State::Open { link, dialer, .. }, Code::Unauthenticated) if link.by_credential => {
                dialer.distrusted(link.address);
            }
            // The operator did not say it: the connection broke, or nobody is at its other end.
            (State::Open { link, dialer, .. }, _) if status.source().is_some() => dialer.unheard(link.address),
            // A new pod's token may not be known everywhere yet: it is tried again, and someone should know.
            (_, code @ (Code::Unauthenticated | Code::PermissionDenied | Code::InvalidArgument)) => {
                tracing::warn!(?code, message = status.message(), "the operator refuses this worker");
            }
            _ => {}
        }
        self.lose(status.message())
    }
}
