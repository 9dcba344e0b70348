//! An attempt of the model: it does what `publish` and `checkpoint` say, a step at a time, and the world may end between
//! any two.

use hyperflow_api::{
    ids::{JobUid, ShardIndex},
    message::{Checkpoint, Failure, FailureClass, Grant, Planned, Published, Target},
};
use hyperflow_core::{
    checkpoint::{Manifest, Origin, Saving, Segment},
    publish::{Answer, Content, PublishError, Step},
    reasons::OUTPUT_FULL,
    worker::{Outcome, Stop},
};

use super::{
    chance::mix,
    store::{FileId, SHARD_BYTES, Store, reference_byte},
};

/// Bytes that are read at a time, and between two checkpoints.
const CHUNK: usize = 10;
const CHECKPOINT: usize = 30;
const LISTING: usize = 80;
/// Why a shard of which no attempt can do better ends the job.
pub const FATAL: &str = "Fatal";

/// What the store is about to do to the next step of an attempt that goes to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It fails.
    Fails,
    /// It is done, and nobody hears of it.
    AnswerLost,
    /// It fails if it takes room.
    Full,
}

/// How a step ended.
pub enum Acted {
    /// Another follows.
    GoesOn,
    /// A checkpoint is durable.
    Saved(Checkpoint),
    /// The attempt is over.
    Ends(Outcome),
    /// The process is, and the kubelet's word for that.
    Kills(&'static str),
}

pub struct Attempt {
    pub grant: Grant,
    pub stop: Option<Stop>,
    /// Milliseconds of a step.
    pub pace: u64,
    /// The task fails half-way, with this exit code.
    pub fails: Option<i32>,
    /// The run that its worker is of.
    pub of_run: u32,
    /// And no attempt of any shard can do better.
    pub fatal: bool,
    /// Half-way it ends its process.
    pub kills: Option<&'static str>,
    /// The job has an output.
    pub copies: bool,
    step: Step,
    position: usize,
    older: Vec<Segment>,
    own: Option<FileId>,
    whole: Option<FileId>,
    number: u64,
    counted: usize,
    saving: Option<(Saving, Checkpoint)>,
}

impl Attempt {
    pub fn new(grant: Grant, copies: bool, pace: u64) -> Self {
        Self {
            grant,
            stop: None,
            pace,
            fails: None,
            of_run: 1,
            fatal: false,
            kills: None,
            copies,
            step: Step::Look,
            position: 0,
            older: Vec::new(),
            own: None,
            whole: None,
            number: grant.resume.map_or(0, |resume| resume.number),
            counted: 0,
            saving: None,
        }
    }

    pub fn act(&mut self, shards: u32, trouble: Option<Trouble>, store: &mut Store) -> Acted {
        match self.grant.target {
            Target::Shard(index) if self.copies => self.copy(index, trouble, store),
            _ if self.stop.is_some() => Acted::Ends(Outcome::Stopped),
            Target::Shard(index) => self.execute(index, store),
            // To list the input takes a while.
            Target::Plan if self.position < LISTING => {
                self.position += CHUNK;
                Acted::GoesOn
            }
            Target::Plan if self.copies && trouble == Some(Trouble::Full) => Acted::Ends(full()),
            Target::Plan => Acted::Ends(Outcome::Planned(Planned {
                shards,
                files: 1,
                bytes: u64::from(shards) * SHARD_BYTES as u64,
                digest: PLAN.into(),
                url: "file:///plan".into(),
            })),
            Target::Finally if self.position < LISTING => {
                self.position += CHUNK;
                Acted::GoesOn
            }
            Target::Finally if self.fails.is_some() => Acted::Ends(failed(FailureClass::Application, "Broken", false)),
            Target::Finally => {
                store.finished += 1;
                Acted::Ends(Outcome::Finalized)
            }
            Target::Sweep => {
                store.sweep(self.of_run);
                Acted::Ends(Outcome::Swept(None))
            }
        }
    }

    /// A task without output: it is done, and nothing in a store says so (P10).
    fn execute(&mut self, index: ShardIndex, store: &mut Store) -> Acted {
        if let Some(ended) = self.half_way() {
            return ended;
        }
        self.position += CHUNK;
        if self.position < SHARD_BYTES {
            return Acted::GoesOn;
        }
        store.executed.insert(index);
        Acted::Ends(Outcome::Published(Published { bytes: 0, crc32c: 0, found: false }))
    }

    /// The next step reads input.
    pub fn reads(&self) -> bool {
        self.step == Step::Produce && self.own.is_some() && self.saving.is_none() && self.position < SHARD_BYTES
    }

    pub fn is_half_way(&self) -> bool {
        self.step == Step::Produce && self.position >= SHARD_BYTES / 2
    }

    fn half_way(&mut self) -> Option<Acted> {
        if self.position < SHARD_BYTES / 2 {
            return None;
        }
        let kills = self.kills.map(Acted::Kills);
        let fatal = || self.fatal.then(|| Acted::Ends(failed(FailureClass::BadInput, FATAL, true)));
        kills.or_else(fatal).or_else(|| self.fails.map(|code| Acted::Ends(exited(code))))
    }

    fn copy(&mut self, index: ShardIndex, trouble: Option<Trouble>, store: &mut Store) -> Acted {
        if let Some((saving, checkpoint)) = self.saving {
            return self.save(index, saving, checkpoint, store);
        }
        let may_stop = matches!(self.step, Step::Produce | Step::Commit(_));
        if let Some(stop) = self.stop.filter(|_| may_stop) {
            return self.leave(stop, store);
        }
        if trouble == Some(Trouble::Fails) {
            return Acted::Ends(failed(FailureClass::Store, "OutputFailed", false));
        }
        if self.step == Step::Produce && self.own.is_some() {
            if trouble == Some(Trouble::Full) {
                return Acted::Ends(full());
            }
            if let Some(ended) = self.half_way() {
                return ended;
            }
            if self.position < SHARD_BYTES {
                return self.read(index, store);
            }
        }
        let answer = match self.carry_out(index, store) {
            Ok(answer) => answer,
            Err(damaged) => return damaged,
        };
        if trouble == Some(Trouble::AnswerLost) {
            return Acted::Ends(failed(FailureClass::Timeout, "OutputTimeout", false));
        }
        match self.step.next(answer) {
            Ok(Step::Report(published)) => {
                store.report(index);
                Acted::Ends(Outcome::Published(published))
            }
            Ok(step) => {
                self.step = step;
                Acted::GoesOn
            }
            Err(PublishError::StagingGone) => Acted::Ends(failed(FailureClass::Store, "OutputFailed", false)),
            Err(error) => panic!("{error}"),
        }
    }

    fn carry_out(&mut self, index: ShardIndex, store: &mut Store) -> Result<Answer, Acted> {
        let staged = self.whole.or(self.own);
        Ok(match self.step {
            Step::Look | Step::LookAgain if store.is_committed(index) => Answer::Found,
            Step::Look | Step::LookAgain => Answer::Nothing,
            Step::Produce if store.swept => Answer::Gone,
            Step::Produce if self.own.is_none() => {
                self.begin(index, store);
                return Err(Acted::GoesOn);
            }
            Step::Produce => self.assemble(index, store)?,
            Step::Sync(_) => done(|| staged.into_iter().for_each(|file| store.sync(file))),
            Step::Commit(_) => match staged {
                Some(file) if store.is_staged(file) && store.commit(index, file) => Answer::Done,
                Some(file) if store.is_staged(file) => Answer::Found,
                _ => Answer::Gone,
            },
            Step::SyncCommit(_) => done(|| store.sync_commit(index)),
            Step::SyncFound => done(|| store.sync_found(index)),
            Step::Sum => Answer::Summed(content(store.committed_bytes(index).unwrap_or_default())),
            Step::Name(_) if store.name(index) => Answer::Done,
            Step::Name(_) => return Err(Acted::Ends(failed(FailureClass::Store, "OutputExists", true))),
            Step::Record(published) => done(|| store.records.push((index, published.found))),
            Step::Report(_) => unreachable!("the end was said"),
        })
    }

    fn begin(&mut self, index: ShardIndex, store: &mut Store) {
        let job = job();
        let usable = self.grant.resume.and_then(|wanted| {
            let manifest =
                Manifest::resume(store.manifest(index, wanted)?, wanted, origin(&job, index), SHARD_BYTES as u64);
            let there = |segment: &Segment| store.segment(&segment.name, segment.length).is_some();
            manifest.ok().filter(|manifest| manifest.segments.iter().all(there))
        });
        if let Some(manifest) = usable {
            self.position = usize::try_from(manifest.position).unwrap();
            self.older = manifest.segments;
        }
        self.own = Some(store.create(index));
    }

    fn read(&mut self, index: ShardIndex, store: &mut Store) -> Acted {
        let end = SHARD_BYTES.min(self.position + CHUNK);
        let bytes: Vec<u8> = (self.position..end).map(|place| reference_byte(index, place)).collect();
        if let Some(own) = self.own {
            store.append(own, &bytes);
        }
        self.position = end;
        if end < SHARD_BYTES && self.uncounted(store) >= CHECKPOINT {
            self.begin_to_save();
        }
        Acted::GoesOn
    }

    /// What has been written by this attempt and is in no checkpoint.
    fn uncounted(&self, store: &Store) -> usize {
        self.own.map_or(0, |own| store.read(own).len()) - self.counted
    }

    /// All segments in one file, for older ones may still be written to by somebody who does not know better.
    fn assemble(&mut self, index: ShardIndex, store: &mut Store) -> Result<Answer, Acted> {
        if !self.older.is_empty() && self.whole.is_none() {
            let mut whole = Vec::new();
            for segment in self.segments(store) {
                let id = store.segment(&segment.name, segment.length);
                let Some(id) = id else { return Ok(Answer::Gone) };
                let bytes = &store.read(id)[..usize::try_from(segment.length).unwrap()];
                if content(bytes).crc32c != segment.crc32c {
                    let Outcome::Failed(failure) = failed(FailureClass::Application, "CheckpointDamaged", false) else {
                        unreachable!("it is a failure")
                    };
                    let failure = Failure { checkpoint_unusable: true, ..failure };
                    return Err(Acted::Ends(Outcome::Failed(failure)));
                }
                whole.extend_from_slice(bytes);
            }
            let id = store.create(index);
            store.append(id, &whole);
            self.whole = Some(id);
        }
        let staged = self.whole.or(self.own).map_or(&[][..], |file| store.read(file));
        Ok(Answer::Staged(content(staged)))
    }

    fn segments(&self, store: &Store) -> Vec<Segment> {
        let own = self.own.map(|own| {
            let Content { bytes, crc32c } = content(store.read(own));
            Segment { name: own.0.to_string(), length: bytes, crc32c }
        });
        self.older.iter().cloned().chain(own.filter(|segment| segment.length > 0)).collect()
    }

    fn begin_to_save(&mut self) {
        let unwritten = Checkpoint { number: self.number + 1, position: self.position as u64, digest: 0 };
        self.saving = Some((Saving::FIRST, unwritten));
    }

    fn save(&mut self, index: ShardIndex, saving: Saving, mut checkpoint: Checkpoint, store: &mut Store) -> Acted {
        match saving {
            Saving::SyncOutput => self.own.into_iter().for_each(|own| store.sync(own)),
            Saving::SyncNames => store.sync_names(index),
            Saving::Write if store.swept => return Acted::Ends(failed(FailureClass::Store, "OutputFailed", false)),
            Saving::Write => {
                let job = job();
                let (number, position) = (checkpoint.number, checkpoint.position);
                let manifest = Manifest::new(origin(&job, index), number, position, self.segments(store));
                checkpoint.digest = store.write_manifest(index, number, manifest.encode().unwrap());
            }
            Saving::SyncName => store.sync_manifests(index),
            Saving::Report => {
                self.number = checkpoint.number;
                self.counted = self.own.map_or(0, |own| store.read(own).len());
                self.saving = None;
                return Acted::Saved(checkpoint);
            }
        }
        self.saving = saving.next().map(|next| (next, checkpoint));
        Acted::GoesOn
    }

    fn leave(&mut self, stop: Stop, store: &Store) -> Acted {
        if stop == Stop::AfterCheckpoint && self.own.is_some() && self.uncounted(store) > 0 {
            self.begin_to_save();
            return Acted::GoesOn;
        }
        Acted::Ends(Outcome::Stopped)
    }
}

pub const PLAN: &str = "blake3:plan";

fn job() -> JobUid {
    JobUid("5b1e0c44".into())
}

fn origin(job: &JobUid, index: ShardIndex) -> Origin<'_> {
    Origin { job, plan: PLAN, program: "copy/1", index }
}

fn done(act: impl FnOnce()) -> Answer {
    act();
    Answer::Done
}

/// Size and checksum, of a kind.
fn content(bytes: &[u8]) -> Content {
    let sum = bytes.iter().fold(bytes.len() as u64, |sum, byte| mix((sum << 8) | u64::from(*byte)));
    Content { bytes: bytes.len() as u64, crc32c: u32::try_from(sum >> 32).unwrap() }
}

fn full() -> Outcome {
    failed(FailureClass::Store, OUTPUT_FULL, false)
}

fn exited(code: i32) -> Outcome {
    match failed(FailureClass::Application, &format!("ExitCode{code}"), false) {
        Outcome::Failed(failure) => Outcome::Failed(Failure { exit_code: Some(code), ..failure }),
        other => other,
    }
}

pub fn failed(class: FailureClass, reason: &str, ends_job: bool) -> Outcome {
    let message = "as the model has it".into();
    Outcome::Failed(Failure {
        class,
        reason: reason.into(),
        message,
        ends_job,
        checkpoint_unusable: false,
        exit_code: None,
    })
}
