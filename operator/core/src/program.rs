//! A program of the user's, checked: what is run for a shard, how it gets its input, where its result comes from, and what
//! its environment says.

pub mod counted;
pub mod ended;
pub mod slot;

use std::collections::BTreeSet;

use hyperflow_api::exec::{self, Exec, FinallyOutput, InputMode, Lifetime, OutputMode};

use crate::{
    job::{Refusal, Task, refuse},
    output::Output,
    source::{Cut, Source},
};

/// A sound `task.exec`, as far as a worker needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The program and its arguments, not expanded yet.
    pub command: Vec<String>,
    /// Where it is started; the image's own directory if it is none.
    pub working_dir: Option<String>,
    /// How it gets its shard.
    pub input: InputMode,
    /// Where its result comes from.
    pub output: OutputMode,
    /// How long a process lives.
    pub lifetime: Lifetime,
    /// Exit codes that mean success.
    pub success: BTreeSet<i32>,
    /// The image, for messages.
    pub image: String,
    /// Digest of all that makes it the program that it is (P4).
    pub digest: String,
}

/// A sound `finally`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finally {
    /// The program and its arguments, not expanded yet.
    pub command: Vec<String>,
    /// Where its result comes from.
    pub output: FinallyOutput,
    /// Name of its result, relative to the output's directory; {run} stands in it as it is.
    pub path: Option<String>,
}

/// What the environment of every attempt says.
const ALWAYS: [&str; 10] = [
    "HYPERFLOW_JOB",
    "HYPERFLOW_RUN",
    "HYPERFLOW_SHARD_INDEX",
    "HYPERFLOW_SHARD_ID",
    "HYPERFLOW_ATTEMPT",
    "HYPERFLOW_EPOCH",
    "HYPERFLOW_SHARD",
    "HYPERFLOW_CHECKPOINT",
    "HYPERFLOW_RESUME_FROM",
    "HYPERFLOW_RESULT",
];

/// What the environment of a process says that lives for many shards: which shard, it hears by stdin.
const OF_SLOT: [&str; 2] = ["HYPERFLOW_JOB", "HYPERFLOW_RUN"];

/// What the environment of the last command says.
const OF_FINALLY: [&str; 4] = ["HYPERFLOW_JOB", "HYPERFLOW_RUN", "HYPERFLOW_REPORT", "HYPERFLOW_OUTPUT"];

impl Program {
    pub(crate) fn check(exec: &Exec, source: &Source) -> Result<Self, Refusal> {
        const INPUT: &str = "spec.task.exec.input";
        let cut = &source.cut;
        match exec.input {
            InputMode::Unknown => return unknown(INPUT, "'Stdin', 'File', 'Directory', 'Range' or 'None'"),
            InputMode::None if cut.is_of_files() => {
                return refuse(INPUT, "'None' needs `source.items` or `source.numbers`");
            }
            InputMode::None if matches!(cut, Cut::Items { items } if *items != 1) => {
                return refuse(INPUT, "'None' needs `source.items.itemsPerShard` 1: HYPERFLOW_ITEM is one item");
            }
            InputMode::Directory | InputMode::Range if !cut.is_of_files() => {
                return refuse(INPUT, "'Directory' and 'Range' need `source.files`");
            }
            InputMode::File | InputMode::Range if cut.is_of_files() && !cut.is_one_piece() => {
                let message = "'File' and 'Range' need one file per shard: set `source.files.filesPerShard` to 1, or use \
                               'Directory'";
                return refuse(INPUT, message);
            }
            _ => {}
        }
        let slot = match exec.lifetime {
            Lifetime::Shard => false,
            Lifetime::Slot => true,
            Lifetime::Unknown => return unknown("spec.task.exec.lifetime", "'Shard' or 'Slot'"),
        };
        if slot && exec.input == InputMode::Stdin {
            let message = "with `lifetime` 'Slot' stdin carries the shards, as JSON lines: use 'File', 'Directory', 'Range' \
                           or 'None'";
            return refuse(INPUT, message);
        }
        match exec.output {
            OutputMode::Unknown => {
                return unknown("spec.task.exec.output", "'Stdout', 'File', 'Directory' or 'None'");
            }
            OutputMode::Stdout if slot => {
                let message = "with `lifetime` 'Slot' stdout carries the answers, as JSON lines: use 'File', 'Directory' or 'None'";
                return refuse("spec.task.exec.output", message);
            }
            _ => {}
        }
        if exec.image_pull_policy == Some(exec::PullPolicy::Unknown) {
            return unknown("spec.task.exec.imagePullPolicy", "'Always', 'Never' or 'IfNotPresent'");
        }
        if let Some(ours) = exec.env.iter().find(|env| env.name.starts_with(OURS)) {
            let message = format!("'{}' is set by the worker, as all names starting with '{OURS}'", ours.name);
            return refuse("spec.task.exec.env", message);
        }
        let program = Self {
            command: exec.command.clone(),
            working_dir: exec.working_dir.clone(),
            input: exec.input,
            output: exec.output,
            lifetime: exec.lifetime,
            success: exec.success_exit_codes.iter().copied().collect(),
            image: exec.image.clone(),
            digest: digest(exec),
        };
        check_command("spec.task.exec.command", &program.command, &program.names(cut))?;
        Ok(program)
    }

    /// Whether it has a result to publish.
    #[must_use]
    pub fn has_output(&self) -> bool {
        self.output != OutputMode::None
    }

    /// The variables of ours that it finds in its environment.
    #[must_use]
    pub fn names(&self, cut: &Cut) -> Vec<&'static str> {
        if self.lifetime == Lifetime::Slot {
            return OF_SLOT.into();
        }
        let mut names: Vec<&'static str> = ALWAYS.into();
        match self.input {
            InputMode::File | InputMode::Directory => names.push("HYPERFLOW_INPUT"),
            InputMode::Range => {
                names.extend(["HYPERFLOW_INPUT", "HYPERFLOW_INPUT_OFFSET", "HYPERFLOW_INPUT_LENGTH"]);
            }
            InputMode::None if matches!(cut, Cut::Items { .. }) => names.push("HYPERFLOW_ITEM"),
            InputMode::None => names.extend(["HYPERFLOW_START", "HYPERFLOW_COUNT"]),
            InputMode::Stdin | InputMode::Unknown => {}
        }
        if matches!(self.output, OutputMode::File | OutputMode::Directory) {
            names.push("HYPERFLOW_OUTPUT");
        }
        names
    }
}

impl Finally {
    pub(crate) fn check(finally: &exec::Finally, task: &Task, output: Option<&Output>) -> Result<Self, Refusal> {
        const PATH: &str = "spec.finally.path";
        if !matches!(task, Task::Exec(_)) {
            return refuse("spec.finally", "runs in the image of `task.exec`, which is not set");
        }
        match (finally.output, &finally.path) {
            (FinallyOutput::Unknown, _) => return unknown("spec.finally.output", "'Stdout', 'File' or 'None'"),
            (FinallyOutput::None, None) => {}
            (FinallyOutput::Stdout | FinallyOutput::File, Some(_)) if output.is_none() => {
                return refuse(PATH, "is relative to `output.url`, and there is no `output`");
            }
            (FinallyOutput::Stdout | FinallyOutput::File, Some(path)) => Output::check_plain(PATH, path)?,
            _ => {
                let message = "names the result: it is required with `output` 'Stdout' and 'File', and may not be set with \
                               'None'";
                return refuse(PATH, message);
            }
        }
        let (command, output, path) = (finally.command.clone(), finally.output, finally.path.clone());
        let names = if output == FinallyOutput::File { &OF_FINALLY[..] } else { &OF_FINALLY[..3] };
        check_command("spec.finally.command", &command, names)?;
        Ok(Self { command, output, path })
    }

    /// Name of its result in a run, relative to the output's directory.
    #[must_use]
    pub fn name(&self, run: u32) -> Option<String> {
        self.path.as_ref().map(|path| path.replace("{run}", &run.to_string()))
    }
}

/// First part of the names that are ours.
const OURS: &str = "HYPERFLOW_";

fn unknown<T>(field: &'static str, use_these: &str) -> Result<T, Refusal> {
    refuse(field, format!("is not known to this version of the operator; use {use_these}"))
}

/// Digest of image, command and everything else of the program.
fn digest(exec: &Exec) -> String {
    // What came from JSON can be written as JSON, in the order of its fields.
    let bytes = serde_json::to_vec(exec).unwrap_or_default();
    format!("exec/{}", &blake3::hash(&bytes).to_hex()[..32])
}

fn check_command(field: &'static str, command: &[String], ours: &[&str]) -> Result<(), Refusal> {
    if command.first().is_none_or(String::is_empty) {
        return refuse(field, "must begin with the program: the image's ENTRYPOINT is not used");
    }
    if command.iter().any(|argument| argument.contains('\0')) {
        return refuse(field, "must not contain a NUL byte");
    }
    let mut missing = None;
    for argument in command {
        expand(argument, |name| {
            if name.starts_with(OURS) && !ours.contains(&name) {
                missing.get_or_insert_with(|| name.to_owned());
            }
            None
        });
    }
    match missing {
        Some(name) => refuse(field, format!("'$({name})' is not set by this job; it may use {}", ours.join(", "))),
        None => Ok(()),
    }
}

/// Replaces each `$(NAME)` by the value of a variable, as Kubernetes does in a container's `command`: `$$` is `$`, and a name
/// without a value stays as it is written (k8s.io/kubernetes/third_party/forked/golang/expansion).
pub fn expand<'v>(text: &str, value: impl FnMut(&str) -> Option<std::borrow::Cow<'v, str>>) -> String {
    let mut value = value;
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        rest = &rest[dollar..];
        let named = rest.strip_prefix("$(").and_then(|inner| inner.split_once(')'));
        if let Some((name, after)) = named {
            match value(name) {
                Some(value) => out.push_str(&value),
                None => out.push_str(&rest[..rest.len() - after.len()]),
            }
            rest = after;
        } else if let Some(after) = rest.strip_prefix("$$") {
            out.push('$');
            rest = after;
        } else {
            out.push('$');
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_an_argument_become_their_values_as_in_a_pod() {
        let value = |name: &str| (name == "A").then(|| "1".into());
        for (text, expanded) in [
            ("$(A)", "1"),
            ("x$(A)y$(A)", "x1y1"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$(B)", "$(B)"),
            ("$(A", "$(A"),
            ("$A $", "$A $"),
            ("$$$$", "$$"),
            ("ü$(A)", "ü1"),
        ] {
            assert_eq!(expand(text, value), expanded, "{text}");
        }
    }
}
