//! What the program may not say.

use hyperflow_api::{
    ids::ShardIndex,
    message::{Failure, FailureClass},
};

use super::{LONGEST, SLOT_PROTOCOL, failure};

/// What may not be said, or not then. Nothing more is believed of the process that said it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Offence {
    /// No message.
    #[error("'{text}' is no message ({why}): stdout is for messages, one JSON object a line; write all else to stderr")]
    NoMessage {
        /// The line, shortened.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// Too much.
    #[error("'{text}…' is longer than {LONGEST} bytes: stdout is for messages; write all else to stderr")]
    TooLong {
        /// How the line begins.
        text: String,
    },
    /// The first message must be that it is ready.
    #[error("'{text}' came before {{\"type\":\"ready\"}}")]
    BeforeReady {
        /// The line, shortened.
        text: String,
    },
    /// It was ready before.
    #[error("'{text}' came again: it is said once, at the start")]
    ReadyAgain {
        /// The line, shortened.
        text: String,
    },
    /// Not about the shard that was sent.
    #[error("'{text}' is about shard {index}, and shard {sent} was sent")]
    OtherShard {
        /// The line, shortened.
        text: String,
        /// What it is about.
        index: ShardIndex,
        /// What it should be about.
        sent: ShardIndex,
    },
    /// No shard is waiting for an answer.
    #[error("'{text}' came when no shard was left to answer: each is answered once")]
    Unasked {
        /// The line, shortened.
        text: String,
    },
}

impl Offence {
    /// What it means for the shard that was sent.
    #[must_use]
    pub fn failure(&self) -> Failure {
        failure(
            FailureClass::Application,
            SLOT_PROTOCOL,
            format!("what the program wrote to stdout cannot be used: {self}"),
        )
    }
}
