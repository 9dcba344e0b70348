//! What the environment of a program says: that of the image and of the job, and which shard this is.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::Path,
    sync::OnceLock,
};

use hyperflow_api::ids::ShardIndex;
use hyperflow_core::{
    plan::Shard,
    program::{Program, expand},
    source::Cut,
};

use super::inputs::Placed;
use crate::{attempt::Attempt, work::Work};

/// First part of the names that are ours.
const OURS: &[u8] = b"HYPERFLOW_";

/// What a program is told of its attempt.
#[derive(Debug)]
pub struct About<'a> {
    /// The job.
    pub work: &'a Work,
    /// The attempt.
    pub attempt: &'a Attempt,
    /// Which shard.
    pub index: ShardIndex,
    /// What is in it.
    pub shard: &'a Shard,
    /// How the input was cut.
    pub cut: &'a Cut,
    /// Where its input is.
    pub input: &'a Placed,
    /// The attempt's files.
    pub files: &'a super::scratch::Scratch<'a>,
    /// A copy of the checkpoint that it goes on from.
    pub resume: Option<&'a Path>,
}

/// A name and its value. Most are the same for each program.
pub type Variable = (Cow<'static, OsStr>, Cow<'static, OsStr>);

/// The environment of this process, without what is meant for the worker. It never changes.
fn inherited() -> BTreeMap<Cow<'static, OsStr>, Cow<'static, OsStr>> {
    static INHERITED: OnceLock<Vec<(OsString, OsString)>> = OnceLock::new();
    let ours = |name: &OsString| name.as_bytes().starts_with(OURS);
    let inherited = INHERITED.get_or_init(|| std::env::vars_os().filter(|(name, _)| !ours(name)).collect());
    inherited.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

fn named(name: &'static str, value: impl Into<OsString>) -> Variable {
    (OsStr::new(name).into(), value.into().into())
}

/// All of a program's environment.
pub fn of(program: &Program, about: &About<'_>) -> Vec<Variable> {
    let mut all = inherited();
    all.extend([named("JOB_COMPLETION_INDEX", about.index.to_string()), named("TMPDIR", about.files.temporary())]);
    all.extend(program.names(about.cut).into_iter().map(|name| named(name, value(name, about))));
    all.into_iter().collect()
}

/// All of the environment of a program that lives for many shards, with `temporary` as its TMPDIR.
pub fn of_slot(work: &Work, temporary: &Path) -> Vec<Variable> {
    with(work, temporary, [])
}

/// An environment without a shard: the image's and the job's, who the job is, and `more`.
pub fn with<'v>(
    work: &Work,
    temporary: &Path,
    more: impl IntoIterator<Item = (&'static str, &'v Path)>,
) -> Vec<Variable> {
    let mut all = inherited();
    all.extend([
        named("TMPDIR", temporary),
        named("HYPERFLOW_JOB", work.brief.name.clone()),
        named("HYPERFLOW_RUN", work.brief.run.to_string()),
    ]);
    all.extend(more.into_iter().map(|(name, path)| named(name, path)));
    all.into_iter().collect()
}

fn value(name: &str, about: &About<'_>) -> OsString {
    let About { work, attempt, index, shard, input, files, .. } = about;
    let numbers = || shard.numbers.unwrap_or(hyperflow_core::plan::Numbers { start: 0, count: 0 });
    match name {
        "HYPERFLOW_JOB" => work.brief.name.clone().into(),
        "HYPERFLOW_RUN" => work.brief.run.to_string().into(),
        "HYPERFLOW_SHARD_INDEX" => index.to_string().into(),
        "HYPERFLOW_SHARD_ID" => shard.id().into(),
        "HYPERFLOW_ATTEMPT" => attempt.grant().attempt.to_string().into(),
        "HYPERFLOW_EPOCH" => attempt.grant().epoch.to_string().into(),
        "HYPERFLOW_SHARD" => files.description().into(),
        "HYPERFLOW_CHECKPOINT" => files.checkpoint().into(),
        "HYPERFLOW_RESUME_FROM" => about.resume.map(OsString::from).unwrap_or_default(),
        "HYPERFLOW_RESULT" => files.result().into(),
        "HYPERFLOW_OUTPUT" => files.output().into(),
        "HYPERFLOW_INPUT" => input.path().map(OsString::from).unwrap_or_default(),
        "HYPERFLOW_INPUT_OFFSET" => input.range().start.to_string().into(),
        "HYPERFLOW_INPUT_LENGTH" => (input.range().end - input.range().start).to_string().into(),
        "HYPERFLOW_ITEM" => shard.items.first().cloned().unwrap_or_default().into(),
        "HYPERFLOW_START" => numbers().start.to_string().into(),
        "HYPERFLOW_COUNT" => numbers().count.to_string().into(),
        // Every name that a program may have is above; one that is not would be empty.
        _ => OsString::new(),
    }
}

/// Program and arguments with each $(NAME) replaced. A value that is not UTF-8 is shown as it can be.
pub fn expanded(command: &[String], environment: &[Variable]) -> Vec<OsString> {
    let value = |name: &str| {
        let found = environment.binary_search_by(|(known, _)| (**known).cmp(OsStr::new(name))).ok()?;
        Some(environment.get(found)?.1.to_string_lossy())
    };
    command.iter().map(|argument| expand(argument, value).into()).collect()
}
