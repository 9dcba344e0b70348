//! What the environment of a program says: that of the image and of the job, and which shard this is.

use std::{
    borrow::Cow,
    ffi::{CStr, CString, NulError, OsStr, OsString},
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

/// All of what the environment of a program says: what this process has of its own, but for what is meant for the
/// worker, and what is said to this program.
#[derive(Debug)]
pub struct Environment {
    own: Vec<(&'static str, OsString)>,
}

impl Environment {
    /// Of a program that has one shard.
    pub fn of_shard(program: &Program, about: &About<'_>) -> Self {
        let shard = [("JOB_COMPLETION_INDEX", about.index.to_string().into()), temporary(&about.files.temporary())];
        let asked = program.names(about.cut).into_iter().map(|name| (name, value(name, about)));
        Self::of(shard.into_iter().chain(asked))
    }

    /// Of a program that lives for many shards, with `folder` as its TMPDIR.
    pub fn of_slot(work: &Work, folder: &Path) -> Self {
        Self::of(job(work, folder))
    }

    /// Of the job's last command, with `folder` as its TMPDIR: which files are its own, is in `files`.
    pub fn of_last<'f>(work: &Work, folder: &Path, files: impl IntoIterator<Item = (&'static str, &'f Path)>) -> Self {
        Self::of(job(work, folder).into_iter().chain(files.into_iter().map(|(name, path)| (name, path.into()))))
    }

    /// With these variables, whatever this process has of the same names.
    pub fn of(own: impl IntoIterator<Item = (&'static str, OsString)>) -> Self {
        Self { own: own.into_iter().collect() }
    }

    /// What a variable says.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.pairs().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// Each variable once.
    pub fn pairs(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        let own = self.own.iter().map(|(name, value)| (OsStr::new(*name), &**value));
        own.chain(self.kept().map(split))
    }

    /// Each variable once, as the system takes it; an error if one has a NUL.
    pub fn strings(&self) -> Result<Vec<Cow<'_, CStr>>, NulError> {
        let own = self
            .own
            .iter()
            .map(|(name, value)| CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).map(Cow::Owned));
        own.chain(self.kept().map(|variable| Ok(Cow::Borrowed(variable)))).collect()
    }

    /// Program and arguments with each $(NAME) replaced. A value that is not UTF-8 is shown as it can be.
    pub fn expand(&self, command: &[String]) -> Vec<OsString> {
        let value = |name: &str| self.get(name).map(OsStr::to_string_lossy);
        command.iter().map(|argument| expand(argument, value).into()).collect()
    }

    fn kept(&self) -> impl Iterator<Item = &CStr> {
        let own = |name: &OsStr| self.own.iter().any(|(known, _)| *known == name);
        inherited().iter().map(CString::as_c_str).filter(move |variable| !own(split(variable).0))
    }
}

/// The environment of this process, without what is meant for the worker. It never changes.
fn inherited() -> &'static [CString] {
    static INHERITED: OnceLock<Vec<CString>> = OnceLock::new();
    INHERITED.get_or_init(|| {
        let foreign = std::env::vars_os().filter(|(name, _)| !name.as_bytes().starts_with(OURS));
        let one = |(name, value): (OsString, OsString)| [name.as_bytes(), b"=", value.as_bytes()].concat();
        // The system had it in this form, which has no NUL.
        foreign.filter_map(|variable| CString::new(one(variable)).ok()).collect()
    })
}

/// Name and value. A name may begin with the sign, as std reads it too.
fn split(variable: &CStr) -> (&OsStr, &OsStr) {
    let bytes = variable.to_bytes();
    let sign = bytes.iter().skip(1).position(|byte| *byte == b'=').map_or(bytes.len(), |found| found + 1);
    (OsStr::from_bytes(&bytes[..sign]), OsStr::from_bytes(bytes.get(sign + 1..).unwrap_or_default()))
}

fn temporary(folder: &Path) -> (&'static str, OsString) {
    ("TMPDIR", folder.into())
}

/// Which job it is, for what has no shard.
fn job(work: &Work, folder: &Path) -> [(&'static str, OsString); 3] {
    let run = work.brief.run.to_string().into();
    [temporary(folder), ("HYPERFLOW_JOB", work.brief.name.clone().into()), ("HYPERFLOW_RUN", run)]
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
