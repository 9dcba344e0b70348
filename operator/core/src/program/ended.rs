//! How a program's end, or its not beginning, is to be understood: what kind of failure, in which words.

use hyperflow_api::message::{Failure, FailureClass};

use super::Program;

/// Largest checkpoint of a program.
pub const CHECKPOINT_BYTES: u64 = 4 << 20;
/// Largest result of a shard that is kept in the report.
pub const RESULT_BYTES: u64 = 4 << 10;
/// Last bytes of what a program said that are repeated in a failure's message: status keeps 1024 bytes of it, and the last
/// line is the one that matters.
pub const TAIL_BYTES: usize = 700;
/// The exit code that says "this input is wrong": EX_DATAERR of sysexits.h.
const BAD_INPUT: i32 = 65;
/// What a shell makes of a child that SIGKILL has ended.
const KILLED_IN_SHELL: i32 = 128 + SIGKILL;
const SIGKILL: i32 = 9;

/// How long a program may take to leave after SIGTERM, in a pod that gets so many seconds: the worker must tell of it
/// afterwards.
#[must_use]
pub fn grace_millis(period_seconds: i64) -> u64 {
    let millis = u64::try_from(period_seconds).unwrap_or(0).saturating_mul(1000);
    millis - (millis / 4).min(5000)
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With an exit code.
    Exited(i32),
    /// By a signal.
    Killed(i32),
}

/// Why a program could not be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotStarted {
    /// There is no such file.
    NoFile,
    /// The file is there, and the program that runs it is not: the one in its `#!` line, or the loader of its format.
    NoInterpreter(String),
    /// There is no such working directory.
    NoDirectory(String),
    /// It may not be executed.
    Denied,
    /// It is no program for this machine, whose architecture is named.
    Format(&'static str),
    /// Arguments and environment are too long.
    TooLong,
    /// What the system said.
    Other(String),
}

/// A limit that an attempt has passed, for which it is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// So many seconds were over.
    Deadline(u64),
    /// Nothing was read or written for so many seconds.
    NoProgress(u64),
    /// It had so many bytes in its scratch space, and may have so many.
    Scratch(u64, u64),
    /// Its checkpoint has so many bytes.
    Checkpoint(u64),
}

/// What is wrong with what a program left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Left {
    /// It made no output.
    Nothing,
    /// What it made is not what the job says.
    Other(String),
    /// Its result has so many bytes.
    LargeResult(u64),
    /// Its result is not UTF-8.
    StrangeResult,
}

impl Program {
    fn name(&self) -> &str {
        self.command.first().map_or("", String::as_str)
    }

    /// What it means that it could not be started: the same on every worker, so that the job ends.
    #[must_use]
    pub fn not_started(&self, why: &NotStarted) -> Failure {
        let at = format!("cannot execute '{}' in image '{}'", self.name(), self.image);
        let correct = "Correct it together with a new `spec.rerun.nonce`.";
        let (reason, message) = match why {
            NotStarted::NoFile => (
                "ProgramNotFound",
                format!(
                    "{at}: no such file. The image's ENTRYPOINT is not used: `spec.task.exec.command` must begin with the \
                     program, for example 'python'. {correct}"
                ),
            ),
            NotStarted::NoInterpreter(name) => {
                ("ProgramFormat", format!("{at}: the file is there, but what runs it is not: {name}. {correct}"))
            }
            NotStarted::NoDirectory(path) => (
                "ProgramNotFound",
                format!("{at}: there is no directory '{path}', which is `spec.task.exec.workingDir`. {correct}"),
            ),
            NotStarted::Denied => (
                "ProgramNotExecutable",
                format!(
                    "{at}: permission denied. It must be a file that the pod's user may execute: set its mode to 0755 in \
                     the image, or `spec.workers.securityContext`. {correct}"
                ),
            ),
            NotStarted::Format(machine) => (
                "ProgramFormat",
                format!(
                    "{at}: it is not a program for this machine ({machine}), or a script without a `#!` line. Build it for \
                     {machine}, or let `spec.task.exec.command` begin with what runs it. {correct}"
                ),
            ),
            NotStarted::TooLong => {
                ("ProgramNotStarted", format!("{at}: its arguments and environment are too long for the system"))
            }
            NotStarted::Other(why) => ("ProgramNotStarted", format!("{at}: {why}")),
        };
        let ends_job = !matches!(why, NotStarted::TooLong | NotStarted::Other(_));
        Failure { ends_job, ..failure(FailureClass::Application, reason, message) }
    }

    /// What its end means; nothing if it is a success. `out_of_memory`: the kernel has killed a process of the container
    /// for its memory meanwhile. `said` is the end of what it wrote to stderr.
    #[must_use]
    pub fn ended(&self, ended: Ended, out_of_memory: bool, said: &[u8]) -> Option<Failure> {
        let name = self.name();
        let said = after(said);
        let memory = |how: &str| {
            let message = format!(
                "the kernel killed '{name}' because the memory limit was reached ({how}): raise \
                 `spec.workers.resources.limits.memory`, or lower `spec.workers.slots`{said}"
            );
            failure(FailureClass::OutOfMemory, "OOMKilled", message)
        };
        match ended {
            Ended::Exited(code) if self.success.contains(&code) => None,
            Ended::Exited(code) => {
                let failure = if code == KILLED_IN_SHELL && out_of_memory {
                    memory(&format!("exit code {code}"))
                } else {
                    let (class, reason) = match code {
                        BAD_INPUT => (FailureClass::BadInput, "BadInput"),
                        _ => (FailureClass::Application, "ExitCode"),
                    };
                    failure(class, reason, format!("'{name}' ended with exit code {code}{said}"))
                };
                Some(Failure { exit_code: Some(code), ..failure })
            }
            Ended::Killed(SIGKILL) if out_of_memory => Some(memory("SIGKILL")),
            Ended::Killed(signal) => {
                let message = format!("'{name}' was ended by {}{said}", signal_name(signal));
                Some(failure(FailureClass::Application, "Signal", message))
            }
        }
    }

    /// What it means that it was ended for a limit.
    #[must_use]
    pub fn beyond(&self, limit: Limit, said: &[u8]) -> Failure {
        let name = self.name();
        let (class, reason, what) = match limit {
            Limit::Deadline(seconds) => (
                FailureClass::Timeout,
                "AttemptDeadline",
                format!("was ended after {seconds} s: `spec.failurePolicy.attemptDeadlineSeconds`"),
            ),
            Limit::NoProgress(seconds) => (
                FailureClass::Timeout,
                "NoProgress",
                format!(
                    "was ended because it read and wrote nothing for {seconds} s, and made no checkpoint: \
                     `spec.failurePolicy.progressTimeoutSeconds`"
                ),
            ),
            Limit::Scratch(bytes, most) => (
                FailureClass::Application,
                "ScratchFull",
                format!(
                    "was ended because it has {bytes} bytes in its scratch space, and may have {most}: raise \
                     `spec.workers.scratch.sizeLimit`, which is shared by `spec.workers.slots`"
                ),
            ),
            Limit::Checkpoint(bytes) => (
                FailureClass::Application,
                "CheckpointTooLarge",
                format!("was ended because its checkpoint has {bytes} bytes, and may have {CHECKPOINT_BYTES}"),
            ),
        };
        failure(class, reason, format!("'{name}' {what}{}", after(said)))
    }

    /// What it means that it ended well and left something else than it should.
    #[must_use]
    pub fn left(&self, what: &Left, said: &[u8]) -> Failure {
        let name = self.name();
        let (reason, what) = match what {
            Left::Nothing => (
                "NoOutput",
                "ended well, and there is nothing at HYPERFLOW_OUTPUT: it must make its result there".into(),
            ),
            Left::Other(why) => ("BadOutput", format!("ended well, and its result cannot be published: {why}")),
            Left::LargeResult(bytes) => (
                "ResultTooLarge",
                format!(
                    "wrote {bytes} bytes to HYPERFLOW_RESULT, which may have {RESULT_BYTES}: put more into its output"
                ),
            ),
            Left::StrangeResult => ("BadResult", "wrote something else than UTF-8 text to HYPERFLOW_RESULT".into()),
        };
        failure(FailureClass::Application, reason, format!("'{name}' {what}{}", after(said)))
    }
}

fn failure(class: FailureClass, reason: &str, message: String) -> Failure {
    Failure { class, reason: reason.into(), message, ends_job: false, checkpoint_unusable: false, exit_code: None }
}

/// What a program said last, to stand after something else.
fn after(said: &[u8]) -> String {
    let text = readable(said);
    if text.is_empty() { text } else { format!(": {text}") }
}

/// The end of what a program wrote, as one line that is safe to show: not UTF-8 becomes U+FFFD, line ends become '|', and
/// what controls terminals goes.
#[must_use]
pub fn readable(bytes: &[u8]) -> String {
    let from = bytes.len().saturating_sub(TAIL_BYTES);
    let mut tail = &bytes[from..];
    if from > 0 {
        // Half a line, or half a letter, tells nothing; a line that is longer than all of this is kept.
        let newline = tail.iter().position(|byte| *byte == b'\n').filter(|at| at + 1 < tail.len());
        let letter = tail.iter().position(|byte| byte & 0xc0 != 0x80).unwrap_or(0);
        tail = &tail[newline.map_or(letter, |at| at + 1)..];
    }
    let text = String::from_utf8_lossy(tail);
    let lines = text.lines().map(|line| line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>());
    let lines: Vec<String> = lines.map(|line| line.trim_end().to_owned()).filter(|line| !line.is_empty()).collect();
    lines.join(" | ")
}

/// The name of a signal; those that end programs have the same number on every machine that we run on.
fn signal_name(signal: i32) -> String {
    let name = match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        31 => "SIGSYS",
        other => return format!("signal {other}"),
    };
    name.into()
}

#[cfg(test)]
mod tests {
    use hyperflow_api::exec::{InputMode, Lifetime, OutputMode};

    use super::*;

    fn program() -> Program {
        Program {
            command: vec!["/app/convert.py".into()],
            working_dir: None,
            input: InputMode::File,
            output: OutputMode::File,
            lifetime: Lifetime::Shard,
            success: [0, 1].into(),
            image: "registry.example/etl:3.4".into(),
            digest: "exec/1".into(),
        }
    }

    #[test]
    fn what_cannot_be_started_says_what_to_correct() {
        let failure = program().not_started(&NotStarted::NoFile);
        assert_eq!(
            failure.message,
            "cannot execute '/app/convert.py' in image 'registry.example/etl:3.4': no such file. The image's ENTRYPOINT is \
             not used: `spec.task.exec.command` must begin with the program, for example 'python'. Correct it together \
             with a new `spec.rerun.nonce`."
        );
        assert_eq!((failure.reason.as_str(), failure.ends_job), ("ProgramNotFound", true));
        assert!(!program().not_started(&NotStarted::Other("?".into())).ends_job);
    }

    #[test]
    fn ends_are_told_apart() {
        let of = |ended, oom| program().ended(ended, oom, b"").map(|failure| (failure.class, failure.reason));
        let is = |class, reason: &str| Some((class, reason.to_owned()));
        assert_eq!(of(Ended::Exited(0), true), None);
        assert_eq!(of(Ended::Exited(1), false), None);
        assert_eq!(of(Ended::Exited(2), true), is(FailureClass::Application, "ExitCode"));
        assert_eq!(of(Ended::Exited(65), false), is(FailureClass::BadInput, "BadInput"));
        assert_eq!(of(Ended::Exited(137), true), is(FailureClass::OutOfMemory, "OOMKilled"));
        assert_eq!(of(Ended::Exited(137), false), is(FailureClass::Application, "ExitCode"));
        assert_eq!(of(Ended::Killed(9), true), is(FailureClass::OutOfMemory, "OOMKilled"));
        assert_eq!(of(Ended::Killed(9), false), is(FailureClass::Application, "Signal"));
        assert_eq!(of(Ended::Killed(11), true), is(FailureClass::Application, "Signal"));
        let failure = program().ended(Ended::Exited(3), false, b"one\ntwo\n").unwrap();
        assert_eq!(failure.message, "'/app/convert.py' ended with exit code 3: one | two");
        assert_eq!(failure.exit_code, Some(3));
    }

    #[test]
    fn a_program_leaves_before_its_pod_must() {
        assert_eq!([0, 1, 4, 30, 600].map(grace_millis), [0, 750, 3000, 25_000, 595_000]);
        assert_eq!(grace_millis(-1), 0);
    }

    #[test]
    fn the_tail_is_one_safe_line_of_whole_lines() {
        assert_eq!(readable(b"\x1b[31mred\x07\r\n\n\xffend"), " [31mred | \u{fffd}end");
        assert_eq!(readable(&[&b"x".repeat(2000)[..], b"\nlast\n"].concat()), "last");
        let long = "ü".repeat(2000);
        let tail = readable(long.as_bytes());
        assert!(tail.chars().all(|c| c == 'ü') && tail.len() <= TAIL_BYTES && tail.len() > TAIL_BYTES - 4);
    }
}
