//! What can go wrong with files, and what each of it means for the shard and for the job. Nowhere else is an I/O error
//! given a class, a reason or a remedy.

use std::{
    io,
    path::{Path, PathBuf},
};

use hyperflow_api::message::{Failure, FailureClass};
use hyperflow_core::{
    reasons::{NO_INPUT, OUTPUT_FULL},
    worker::Outcome,
};
use rustix::io::Errno;

/// Why an attempt did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The lease is fenced, or the worker leaves.
    #[error("the attempt was told to stop")]
    Stopped,
    /// The input store did not do as asked.
    #[error("cannot {doing} input '{}'", path.display())]
    Input {
        /// What was being done: "read".
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The output store did not do as asked.
    #[error("cannot {doing} '{}'", path.display())]
    Output {
        /// What was being done: "sync".
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Everything works, and what was found forbids to go on.
    #[error("{}", .0.message)]
    Refused(Box<Failure>),
}

/// Makes an error of the input store.
pub fn input(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Fault {
    move |source| Fault::Input { doing, path: path.into(), source }
}

/// Makes an error of the output store.
pub fn output(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Fault {
    move |source| Fault::Output { doing, path: path.into(), source }
}

/// A refusal that no other attempt can do better than.
pub fn end_job(class: FailureClass, reason: &str, message: String) -> Fault {
    Fault::Refused(Box::new(failure(class, reason, message, true)))
}

/// A refusal that another attempt may do better than.
pub fn try_again(class: FailureClass, reason: &str, message: String) -> Fault {
    Fault::Refused(Box::new(failure(class, reason, message, false)))
}

/// The checkpoint that was resumed from is not what it says: the next attempt starts from zero.
pub fn damaged_checkpoint(message: String) -> Fault {
    let failure = failure(FailureClass::Application, "CheckpointDamaged", message, false);
    Fault::Refused(Box::new(Failure { checkpoint_unusable: true, ..failure }))
}

fn failure(class: FailureClass, reason: &str, message: String, ends_job: bool) -> Failure {
    Failure { class, reason: reason.into(), message, ends_job, checkpoint_unusable: false, exit_code: None }
}

impl Fault {
    /// Whether a file of ours was gone: a sweeper deletes staging once the shard is committed, so it may have been.
    pub fn vanished(&self) -> bool {
        matches!(self, Self::Output { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Whether the output store has no room: what nobody needs is given back then.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Output { source, .. } if of_output(source).0 == OUTPUT_FULL)
    }

    /// How the attempt ends.
    pub fn outcome(self) -> Outcome {
        match self {
            Self::Stopped => Outcome::Stopped,
            Self::Refused(failure) => Outcome::Failed(*failure),
            Self::Input { ref source, .. } => {
                let (reason, ends_job, remedy) = of_input(source);
                let message = format!("{self}: {source}{remedy}");
                let class = if is_late(source) { FailureClass::Timeout } else { FailureClass::BadInput };
                Outcome::Failed(failure(class, reason, message, ends_job))
            }
            Self::Output { ref source, .. } => {
                let (reason, ends_job, remedy) = of_output(source);
                let message = format!("{self}: {source}{remedy}");
                let class = if is_late(source) { FailureClass::Timeout } else { FailureClass::Store };
                Outcome::Failed(failure(class, reason, message, ends_job))
            }
        }
    }
}

/// Whether the store did not answer in its time: a server of NFS that is gone, mounted `soft`. ESTALE is none of these,
/// for there the server has answered: it does not know the file any more, and the next attempt opens what is there now.
fn is_late(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::TimedOut
}

fn of_input(error: &io::Error) -> (&'static str, bool, String) {
    match Errno::from_io_error(error) {
        Some(Errno::NOENT | Errno::NOTDIR) => {
            let remedy = ". It was there when the plan was made. When it is back as it was, set another `spec.rerun.nonce`; if it \
                          was written anew, create a new ShardJob";
            (NO_INPUT, true, remedy.into())
        }
        Some(Errno::ACCESS | Errno::PERM) => ("InputDenied", true, allow("read")),
        _ if is_late(error) => ("InputTimeout", false, String::new()),
        _ => ("InputUnreadable", false, String::new()),
    }
}

fn of_output(error: &io::Error) -> (&'static str, bool, String) {
    match Errno::from_io_error(error) {
        Some(Errno::NOSPC | Errno::DQUOT) => {
            (OUTPUT_FULL, false, ". Make room on the volume of `spec.output.url`, or choose a larger one".into())
        }
        Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => ("OutputDenied", true, allow("write")),
        _ if is_late(error) => ("OutputTimeout", false, String::new()),
        _ => ("OutputFailed", false, String::new()),
    }
}

/// What to do about a permission that is missing.
pub fn allow(doing: &str) -> String {
    let uid = rustix::process::getuid().as_raw();
    format!(". Allow uid {uid} to {doing} it, or set `spec.workers.securityContext`")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(fault: Fault) -> Failure {
        match fault.outcome() {
            Outcome::Failed(failure) => failure,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_full_store_is_tried_again_and_a_denied_one_is_not() {
        let at = |errno: Errno| failed(output("write", Path::new("/data/x"))(errno.into()));
        let full = at(Errno::NOSPC);
        assert_eq!((full.class, full.reason.as_str(), full.ends_job), (FailureClass::Store, "OutputFull", false));
        assert!(hyperflow_core::causes::is_full(&full), "the operator would charge the shard with it");
        assert!(output("write", Path::new("x"))(Errno::DQUOT.into()).is_full());
        assert!(!output("write", Path::new("x"))(Errno::IO.into()).is_full());
        assert!(full.message.starts_with("cannot write '/data/x': No space left"), "{}", full.message);
        for errno in [Errno::ACCESS, Errno::ROFS] {
            let denied = at(errno);
            assert_eq!((denied.reason.as_str(), denied.ends_job), ("OutputDenied", true));
            assert!(denied.message.contains("uid "), "{}", denied.message);
        }
        assert!(!at(Errno::IO).ends_job && !at(Errno::NOENT).ends_job);
    }

    #[test]
    fn input_that_cannot_be_read_names_who_may_not() {
        let denied = failed(input("open", Path::new("/data/in"))(Errno::ACCESS.into()));
        assert_eq!(
            (denied.class, denied.reason.as_str(), denied.ends_job),
            (FailureClass::BadInput, "InputDenied", true)
        );
        assert!(!failed(input("read", Path::new("/data/in"))(Errno::IO.into())).ends_job);
    }

    #[test]
    fn a_store_that_does_not_answer_is_a_timeout_and_tried_again() {
        let at = |source: io::Error| failed(output("sync", Path::new("/data/x"))(source));
        for late in [Errno::TIMEDOUT.into(), io::Error::from(io::ErrorKind::TimedOut)] {
            let late = at(late);
            assert_eq!((late.class, late.reason.as_str()), (FailureClass::Timeout, "OutputTimeout"));
            assert!(!late.ends_job && late.message.starts_with("cannot sync '/data/x': "), "{}", late.message);
        }
        let late = failed(input("read", Path::new("/data/in"))(Errno::TIMEDOUT.into()));
        assert_eq!((late.class, late.reason.as_str(), late.ends_job), (FailureClass::Timeout, "InputTimeout", false));
        let stale = at(Errno::STALE.into());
        assert_eq!((stale.class, stale.ends_job), (FailureClass::Store, false), "the server has answered");
    }

    #[test]
    fn only_a_missing_file_of_ours_has_vanished() {
        assert!(output("link", Path::new("x"))(Errno::NOENT.into()).vanished());
        assert!(!output("link", Path::new("x"))(Errno::IO.into()).vanished());
        assert!(!input("open", Path::new("x"))(Errno::NOENT.into()).vanished());
    }
}
