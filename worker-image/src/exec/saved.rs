//! Checkpoints of a program: the file that it keeps at HYPERFLOW_CHECKPOINT, copied beside the manifests when it has
//! changed (P20), and given back to the next attempt.

use std::{
    fs::{self, File, Metadata},
    io::{ErrorKind, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Instant,
};

use hyperflow_core::{
    checkpoint::{Manifest, Origin},
    layout::Layout,
    program::ended::CHECKPOINT_BYTES,
};
use serde::{Deserialize, Serialize};

use super::scratch::Scratch;
use crate::{
    checkpoints,
    fault::{self, Fault},
    logs,
    publish::Publisher,
    store,
};

/// Where the bytes are: the state of the manifest.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    /// Name in the shard's folder of checkpoints.
    file: String,
    /// How many.
    bytes: u64,
    /// Their BLAKE3.
    blake3: String,
}

/// What came of a look at the program's checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saved {
    /// There is none, or the same, or it is just being written.
    Nothing,
    /// It is durable, and told.
    New,
    /// It has so many bytes.
    TooLarge(u64),
}

/// Keeps the checkpoints of one attempt.
#[derive(Debug)]
pub struct Saver<'a> {
    to: &'a Publisher<'a>,
    origin: Origin<'a>,
    path: PathBuf,
    /// Of the last one: its number, and its position, which never goes back.
    number: u64,
    position: u64,
    /// When, inode and size of what was saved last.
    known: Option<(i64, i64, u64, u64)>,
    since: Instant,
}

impl<'a> Saver<'a> {
    /// Goes on from `from`, the checkpoint that the attempt was given.
    pub fn new(to: &'a Publisher<'a>, origin: Origin<'a>, scratch: &Scratch<'_>) -> Self {
        let resume = to.attempt.grant().resume;
        let (number, position) = resume.map_or((0, 0), |checkpoint| (checkpoint.number, checkpoint.position));
        Self { to, origin, path: scratch.checkpoint(), number, position, known: None, since: Instant::now() }
    }

    /// Saves the program's checkpoint if it is time, and it has changed. The attempt has read `fed` bytes of its input.
    pub fn save_changed(&mut self, fed: u64) -> Result<Saved, Fault> {
        let Some(found) = self.look()? else { return Ok(Saved::Nothing) };
        if found.len() > CHECKPOINT_BYTES {
            return Ok(Saved::TooLarge(found.len()));
        }
        let millis = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        if Some(stamp(&found)) == self.known || millis < self.to.work.job.cadence.millis {
            return Ok(Saved::Nothing);
        }
        self.save(&found, fed)
    }

    /// Saves what the program, which has ended, saved last.
    pub fn save_last(&mut self, fed: u64) -> Result<Saved, Fault> {
        match self.look()? {
            Some(found) if found.len() > CHECKPOINT_BYTES => Ok(Saved::TooLarge(found.len())),
            Some(found) if Some(stamp(&found)) != self.known => self.save(&found, fed),
            _ => Ok(Saved::Nothing),
        }
    }

    fn look(&self) -> Result<Option<Metadata>, Fault> {
        match fs::symlink_metadata(&self.path) {
            Ok(found) => Ok(Some(found).filter(Metadata::is_file)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(fault::output("look at", &self.path)(error)),
        }
    }

    fn save(&mut self, found: &Metadata, fed: u64) -> Result<Saved, Fault> {
        let Some(bytes) = self.read(found)? else { return Ok(Saved::Nothing) };
        let (work, attempt, root) = (self.to.work, self.to.attempt, &self.to.places.commits);
        let number = self.number + 1;
        // Without stdin there is no position: the number rises as well.
        let position = self.position.max(fed).max(number);
        let folder = root.join(work.layout.checkpoint_folder(self.origin.index));
        if store::make_folder(&folder)? == store::Created::Us {
            store::sync_folder(store::parent(&folder))?;
        }
        let file = Layout::private(&format!("data{number}"), attempt.grant().epoch, &work.worker);
        store::write_new(&folder.join(&file), &bytes)?;
        let place = Place { file, bytes: bytes.len() as u64, blake3: blake3::hash(&bytes).to_hex().to_string() };
        let state = serde_json::to_string(&place).map_err(|error| fault::output("write", &folder)(error.into()))?;
        let manifest = Manifest::new(self.origin, number, position, Vec::new()).with_state(state);
        let checkpoint = checkpoints::write(work, root, attempt, &manifest)?;
        checkpoints::sync_names(work, root, self.origin.index)?;
        (self.number, self.position) = (number, position);
        (self.known, self.since) = (Some(stamp(found)), Instant::now());
        work.metrics.checkpoints.inc();
        attempt.checkpointed(checkpoint);
        Ok(Saved::New)
    }

    /// The bytes of what was found, if it is still that when they are read.
    fn read(&self, found: &Metadata) -> Result<Option<Vec<u8>>, Fault> {
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(fault::output("open", &self.path))?,
        };
        let mut bytes = Vec::new();
        let read = (&file).take(CHECKPOINT_BYTES + 1).read_to_end(&mut bytes);
        read.map_err(fault::output("read", &self.path))?;
        let now = file.metadata().map_err(fault::output("look at", &self.path))?;
        let same = stamp(&now) == stamp(found) && bytes.len() as u64 == found.len();
        Ok(Some(bytes).filter(|_| same))
    }
}

fn stamp(found: &Metadata) -> (i64, i64, u64, u64) {
    (found.mtime(), found.mtime_nsec(), found.ino(), found.len())
}

/// A private copy of the checkpoint that the attempt may go on from. One that cannot be used is none.
pub fn find(to: &Publisher<'_>, origin: Origin<'_>, scratch: &Scratch<'_>) -> Option<PathBuf> {
    let wanted = to.attempt.grant().resume?;
    let root = &to.places.commits;
    let unused = |why: &str| tracing::warn!(error = why, "the checkpoint is not used: the shard starts from zero");
    let manifest = match checkpoints::find(to.work, root, wanted, origin, u64::MAX) {
        Ok(manifest) => manifest,
        Err(error) => {
            unused(&logs::causes(&error));
            return None;
        }
    };
    let folder = root.join(to.work.layout.checkpoint_folder(origin.index));
    match bytes_of(&manifest, &folder) {
        Ok(bytes) => {
            let path = scratch.resume();
            fs::write(&path, bytes).map_err(|error| unused(&error.to_string())).ok()?;
            tracing::info!(number = manifest.number, "the program goes on from a checkpoint");
            Some(path)
        }
        Err(why) => {
            unused(&why);
            None
        }
    }
}

fn bytes_of(manifest: &Manifest, folder: &Path) -> Result<Vec<u8>, String> {
    let state = manifest.state.as_deref().unwrap_or_default();
    let place: Place = serde_json::from_str(state).map_err(|error| format!("its state cannot be read: {error}"))?;
    if place.file.contains('/') {
        return Err("it names a file that is not beside it".into());
    }
    let path = folder.join(&place.file);
    let bytes = fs::read(&path).map_err(|error| format!("cannot read '{}': {error}", path.display()))?;
    if bytes.len() as u64 != place.bytes || blake3::hash(&bytes).to_hex().as_str() != place.blake3 {
        return Err(format!("'{}' was changed", path.display()));
    }
    Ok(bytes)
}
