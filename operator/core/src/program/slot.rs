//! What a program that lives for many shards and its worker say to each other (version 1): one JSON object a line, to the
//! program on its stdin, from it on its stdout. Users' programs are written against this: `docs/slot.md`.
//!
//! ```text
//! worker ──▶ program                          program ──▶ worker
//! {"hyperflow":1,"type":"hello",…}
//!                                             {"type":"ready"}
//! {"type":"shard","index":17,…}
//!                                             {"type":"progress","index":17,"done":0.4}     as often as it likes
//!                                             {"type":"done","index":17,"result":"…"}       or
//!                                             {"type":"failed","index":17,"message":"…"}
//! stdin is closed
//! ```

mod offence;
mod order;

use hyperflow_api::{
    ids::ShardIndex,
    message::{Failure, FailureClass},
};
use serde::Deserialize;

pub use self::{
    offence::Offence,
    order::{Asked, Order},
};
use super::{
    Program,
    ended::{Ended, readable},
};
use crate::policy::BAD_INPUT;

/// Version of all that is said.
pub const VERSION: u32 = 1;

/// Most bytes of a line from the program, without its newline.
pub const LONGEST: usize = 64 << 10;

/// Seconds that a program may take to be ready, where the job does not say how long it may do nothing.
pub const START_SECONDS: u32 = 600;

/// Reason of what is not said as this page says.
pub const SLOT_PROTOCOL: &str = "SlotProtocol";

/// Reason of a failure that the program told of.
pub const PROGRAM_FAILED: &str = "ProgramFailed";

/// Starts in a row that fail before shards fail with them.
const STARTS: u32 = 3;

/// Most bytes of a line that are shown.
const SHOWN: usize = 200;

/// A line from the program. Fields that are not known are left for a later version.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
enum Line {
    Ready,
    Progress {
        index: ShardIndex,
        done: f64,
    },
    Done {
        index: ShardIndex,
        #[serde(default)]
        result: Option<String>,
    },
    Failed {
        index: ShardIndex,
        message: String,
        #[serde(default)]
        class: Class,
    },
}

/// What a program may say of its failure; the other classes are about workers, nodes and stores.
#[derive(Deserialize, Default)]
enum Class {
    /// Another attempt may do better.
    #[default]
    Application,
    /// None can.
    BadInput,
    /// One on another node may.
    OutOfMemory,
    /// It took too long.
    Timeout,
}

/// What was said, where it may be said.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// Shards may be sent.
    Ready,
    /// It is at work: so much is done, from 0 to 1.
    Progress(f64),
    /// The shard is done, with a text for the report.
    Done(Option<String>),
    /// The shard is not done.
    Failed(Failure),
}

fn failure(class: FailureClass, reason: &str, message: String) -> Failure {
    Failure { class, reason: reason.into(), message, ends_job: false, checkpoint_unusable: false, exit_code: None }
}

impl Program {
    fn of_slot(&self, class: FailureClass, reason: &str, what: &str, said: &[u8]) -> Failure {
        let name = self.command.first().map_or("", String::as_str);
        let said = readable(said);
        let said = if said.is_empty() { said } else { format!(": {said}") };
        failure(class, reason, format!("'{name}' {what}{said}"))
    }

    /// What it means that it was not ready after so many seconds. `said` is the end of what it wrote to stderr.
    #[must_use]
    pub fn not_ready(&self, seconds: u64, said: &[u8]) -> Failure {
        let what = format!(
            "was not ready after {seconds} s: it must write {{\"type\":\"ready\"}} to stdout, and flush it. \
             `spec.failurePolicy.progressTimeoutSeconds` is how long it may take, or {START_SECONDS} s"
        );
        self.of_slot(FailureClass::Timeout, "NotReady", &what, said)
    }

    /// What it means that it ended and had not said what it must: a success is none then.
    #[must_use]
    pub fn unanswered(&self, ended: Ended, out_of_memory: bool, said: &[u8]) -> Failure {
        self.ended(ended, out_of_memory, said).unwrap_or_else(|| {
            let (code, how) = match ended {
                Ended::Exited(code) => (Some(code), format!("exit code {code}")),
                Ended::Killed(signal) => (None, format!("signal {signal}")),
            };
            let what = format!("ended with {how} and without an answer: it lives until its stdin is closed");
            Failure { exit_code: code, ..self.of_slot(FailureClass::Application, "ExitCode", &what, said) }
        })
    }

    /// What it means that it runs and cannot be talked to.
    #[must_use]
    pub fn mute(&self, said: &[u8]) -> Failure {
        let what = "has closed its stdin or its stdout, and had not said all: it lives until its stdin is closed";
        self.of_slot(FailureClass::Application, SLOT_PROTOCOL, what, said)
    }
}

/// How far a process and its worker are with each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Talk {
    /// It is not ready.
    #[default]
    Starting,
    /// It waits for a shard.
    Idle,
    /// It has one.
    Busy(ShardIndex),
}

impl Talk {
    /// A shard is sent. False where that is not its turn: nothing may be sent then.
    #[must_use]
    pub fn send(&mut self, index: ShardIndex) -> bool {
        let may = *self == Self::Idle;
        if may {
            *self = Self::Busy(index);
        }
        may
    }

    /// The program has said a line, without its newline; of one that is too long, at least one byte more than it may have.
    ///
    /// # Errors
    /// When it may not say that now.
    pub fn hear(&mut self, line: &[u8]) -> Result<Heard, Offence> {
        if line.len() > LONGEST {
            return Err(Offence::TooLong { text: shown(line) });
        }
        let text = || shown(line);
        let no_message = |why: String| Offence::NoMessage { text: text(), why };
        let said: Line = serde_json::from_slice(line).map_err(|error| no_message(error.to_string()))?;
        let index = match (*self, &said) {
            (Self::Starting, Line::Ready) => {
                *self = Self::Idle;
                return Ok(Heard::Ready);
            }
            (Self::Starting, _) => return Err(Offence::BeforeReady { text: text() }),
            (_, Line::Ready) => return Err(Offence::ReadyAgain { text: text() }),
            (_, Line::Progress { index, .. } | Line::Done { index, .. } | Line::Failed { index, .. }) => *index,
        };
        match *self {
            Self::Busy(sent) if sent == index => {}
            Self::Busy(sent) => return Err(Offence::OtherShard { text: text(), index, sent }),
            Self::Starting | Self::Idle => return Err(Offence::Unasked { text: text() }),
        }
        let answer = match said {
            Line::Progress { done, .. } if (0.0..=1.0).contains(&done) => return Ok(Heard::Progress(done)),
            Line::Progress { .. } | Line::Ready => return Err(no_message("`done` goes from 0 to 1".into())),
            Line::Done { result, .. } => Heard::Done(result),
            Line::Failed { message, class, .. } => {
                let class = class.of();
                // By this word it is told from input that could not be read, which another attempt may do (policy.rs).
                let reason = if class == FailureClass::BadInput { BAD_INPUT } else { PROGRAM_FAILED };
                Heard::Failed(failure(class, reason, message))
            }
        };
        *self = Self::Idle;
        Ok(answer)
    }
}

impl Class {
    fn of(&self) -> FailureClass {
        match self {
            Self::Application => FailureClass::Application,
            Self::BadInput => FailureClass::BadInput,
            Self::OutOfMemory => FailureClass::OutOfMemory,
            Self::Timeout => FailureClass::Timeout,
        }
    }
}

/// The beginning of a line, fit for a message.
fn shown(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(&line[..line.len().min(SHOWN)]);
    text.chars().map(|char| if char.is_control() { '\u{fffd}' } else { char }).collect()
}

/// Starts of a program that failed, one after the other, in one worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Starts {
    failed: u32,
}

impl Starts {
    /// It was ready.
    pub fn succeeded(&mut self) {
        self.failed = 0;
    }

    /// It ended before it was ready, or was not ready in its time. Whether another start may do better: if not, the shard
    /// fails with what the start failed with, and so does each after it whose one start fails.
    #[must_use]
    pub fn failed(&mut self) -> bool {
        self.failed = self.failed.saturating_add(1);
        self.failed < STARTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Numbers;

    /// Ready, and busy with shard 17.
    fn busy() -> Talk {
        let mut talk = Talk::default();
        assert_eq!(talk.hear(br#"{"type":"ready"}"#), Ok(Heard::Ready));
        assert!(talk.send(17));
        talk
    }

    fn refused(talk: Talk, line: &str) -> String {
        let mut after = talk;
        let offence = after.hear(line.as_bytes()).unwrap_err();
        assert_eq!(after, talk, "what is refused changes nothing");
        let failure = offence.failure();
        assert_eq!((failure.class, failure.reason.as_str()), (FailureClass::Application, SLOT_PROTOCOL));
        failure.message
    }

    #[test]
    fn what_the_worker_says_is_what_the_page_says() {
        let hello = Order::Hello { hyperflow: VERSION, job: "nightly", run: 1, slot: 0 };
        let line = "{\"type\":\"hello\",\"hyperflow\":1,\"job\":\"nightly\",\"run\":1,\"slot\":0}\n";
        assert_eq!(String::from_utf8(hello.line().unwrap()).unwrap(), line);
        let asked = Asked {
            index: 17,
            id: "9b1e5a0c77d0f3a2",
            attempt: 2,
            epoch: "3.9f.1",
            input: Some("/data/a \"b\""),
            input_offset: Some(0),
            input_length: Some(9),
            output: Some("/s/out"),
            checkpoint: "/s/c",
            result: "/s/r",
            tmp: "/s/t",
            shard: "/s/shard.json",
            ..Asked::default()
        };
        let line = concat!(
            r#"{"type":"shard","index":17,"id":"9b1e5a0c77d0f3a2","attempt":2,"epoch":"3.9f.1","input":"/data/a \"b\"","#,
            r#""inputOffset":0,"inputLength":9,"output":"/s/out","checkpoint":"/s/c","resumeFrom":null,"#,
            r#""result":"/s/r","tmp":"/s/t","shard":"/s/shard.json"}"#,
            "\n"
        );
        assert_eq!(String::from_utf8(Order::Shard(Box::new(asked)).line().unwrap()).unwrap(), line);
        let numbers = Asked { numbers: Some(Numbers { start: -5, count: 7 }), ..Asked::default() };
        let line = String::from_utf8(Order::Shard(Box::new(numbers)).line().unwrap()).unwrap();
        assert!(line.contains(r#""input":null,"start":-5,"count":7,"output":null"#), "{line}");
    }

    #[test]
    fn one_shard_after_the_other_is_answered() {
        let mut talk = busy();
        assert_eq!(talk.hear(br#"{"type":"progress","index":17,"done":0.4}"#), Ok(Heard::Progress(0.4)));
        let done = br#"{"type":"done","index":17,"result":"loss 0.25","more":[1]}"#;
        assert_eq!(talk.hear(done), Ok(Heard::Done(Some("loss 0.25".into()))));
        assert!(talk.send(18));
        assert_eq!(talk.hear(b" { \"index\" : 18, \"type\" : \"done\" } "), Ok(Heard::Done(None)));
        assert_eq!(talk, Talk::Idle);
    }

    #[test]
    fn a_shard_that_failed_fails_as_the_program_says_and_the_process_goes_on() {
        for (said, class) in [
            ("", FailureClass::Application),
            (r#","class":"Application""#, FailureClass::Application),
            (r#","class":"BadInput""#, FailureClass::BadInput),
            (r#","class":"OutOfMemory""#, FailureClass::OutOfMemory),
            (r#","class":"Timeout""#, FailureClass::Timeout),
        ] {
            let mut talk = busy();
            let line = format!(r#"{{"type":"failed","index":17,"message":"page 3 is no text"{said}}}"#);
            let Ok(Heard::Failed(failure)) = talk.hear(line.as_bytes()) else { panic!("{line}") };
            let reason = if class == FailureClass::BadInput { BAD_INPUT } else { PROGRAM_FAILED };
            assert_eq!((failure.class, failure.reason.as_str()), (class, reason));
            assert_eq!((failure.message.as_str(), failure.ends_job), ("page 3 is no text", false));
            assert!(talk.send(18));
        }
        refused(busy(), r#"{"type":"failed","index":17,"message":"x","class":"NodeLost"}"#);
        refused(busy(), r#"{"type":"failed","index":17}"#);
    }

    #[test]
    fn a_shard_is_sent_only_to_who_waits_for_one() {
        assert!(!Talk::default().send(1), "not ready");
        let mut talk = busy();
        assert!(!talk.send(18));
        assert_eq!(talk, Talk::Busy(17));
    }

    #[test]
    fn garbage_is_refused_and_shown() {
        let message = refused(busy(), "Loading weights\u{1b}[32m 10%");
        assert!(message.contains("'Loading weights\u{fffd}[32m 10%' is no message"), "{message}");
        assert!(message.contains("write all else to stderr"), "{message}");
        for garbage in ["", "17", "{}", "[]", r#"{"type":"finished","index":17}"#, r#"{"type":"done"}"#] {
            refused(busy(), garbage);
            refused(Talk::Starting, garbage);
        }
        for done in ["-0.1", "1.5", "1e999", "\"half\""] {
            refused(busy(), &format!(r#"{{"type":"progress","index":17,"done":{done}}}"#));
        }
        assert!(busy().hear(b"\xff\xfe").is_err());
    }

    #[test]
    fn an_answer_for_another_shard_is_refused() {
        let message = refused(busy(), r#"{"type":"done","index":16}"#);
        assert!(message.contains("is about shard 16, and shard 17 was sent"), "{message}");
    }

    #[test]
    fn a_second_answer_is_refused() {
        let mut talk = busy();
        let done = r#"{"type":"done","index":17}"#;
        talk.hear(done.as_bytes()).unwrap();
        assert!(refused(talk, done).contains("each is answered once"));
        refused(talk, r#"{"type":"progress","index":17,"done":1}"#);
        assert!(talk.send(18));
        assert!(refused(talk, done).contains("shard 18 was sent"));
    }

    #[test]
    fn what_comes_before_ready_and_a_second_ready_are_refused() {
        let message = refused(Talk::Starting, r#"{"type":"done","index":0}"#);
        assert!(message.contains(r#"came before {"type":"ready"}"#), "{message}");
        assert!(refused(busy(), r#"{"type":"ready"}"#).contains("came again"));
    }

    #[test]
    fn a_line_is_as_long_as_it_may_be_and_no_longer() {
        let frame = r#"{"type":"done","index":17,"result":""}"#;
        let line = |length: usize| {
            let text = "x".repeat(length - frame.len());
            format!(r#"{{"type":"done","index":17,"result":"{text}"}}"#)
        };
        assert!(busy().hear(line(LONGEST).as_bytes()).is_ok());
        let message = refused(busy(), &line(LONGEST + 1));
        assert!(message.contains("is longer than 65536 bytes") && message.len() < 500, "{message}");
    }

    #[test]
    fn after_three_starts_that_failed_each_shard_has_one_until_one_succeeds() {
        let mut starts = Starts::default();
        assert_eq!([starts.failed(), starts.failed(), starts.failed(), starts.failed()], [true, true, false, false]);
        starts.succeeded();
        assert!(starts.failed());
    }
}
