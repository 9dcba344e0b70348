//! Checkpoints in the store: written once, found by number and digest, and never trusted before they are verified (P20).

use std::{fs, path::Path};

use hyperflow_api::{ids::ShardIndex, message::Checkpoint};
use hyperflow_core::{
    checkpoint::{Manifest, ManifestError, Origin, digest},
    layout::Layout,
};

use crate::{
    attempt::Attempt,
    fault::{self, Fault},
    segments, store,
    work::Work,
};

/// Why a checkpoint is not used; the shard starts from zero.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// The store does not have it, or does not give it.
    #[error("cannot read the checkpoint in '{folder}'")]
    Read {
        /// The shard's folder of checkpoints.
        folder: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It is in no file of that folder.
    #[error("there is no checkpoint {number} in '{folder}'")]
    Missing {
        /// The one wanted.
        number: u64,
        /// The shard's folder of checkpoints.
        folder: String,
    },
    /// It is damaged, or of something else.
    #[error("checkpoint {number} cannot be used")]
    Manifest {
        /// The one wanted.
        number: u64,
        /// What is wrong.
        #[source]
        source: ManifestError,
    },
    /// Output that it counts is gone.
    #[error("segments of checkpoint {number} are missing or too short")]
    Segments {
        /// The one wanted.
        number: u64,
    },
}

/// Finds and verifies the checkpoint of a lease on a shard of `length` bytes.
pub fn find(
    work: &Work,
    root: &Path,
    wanted: Checkpoint,
    origin: Origin<'_>,
    length: u64,
) -> Result<Manifest, Unusable> {
    let folder = root.join(work.layout.checkpoint_folder(origin.index));
    let number = wanted.number;
    let unreadable = |source| Unusable::Read { folder: folder.display().to_string(), source };
    let mut found = None;
    for entry in fs::read_dir(&folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        if Layout::is_checkpoint(&entry.file_name().to_string_lossy(), number, wanted.digest) {
            found = Some(entry.path());
            break;
        }
    }
    let Some(path) = found else { return Err(Unusable::Missing { number, folder: folder.display().to_string() }) };
    let bytes = fs::read(path).map_err(unreadable)?;
    let manifest =
        Manifest::resume(&bytes, wanted, origin, length).map_err(|source| Unusable::Manifest { number, source })?;
    if !segments::all_there(&root.join(work.layout.stage_folder(origin.index)), &manifest.segments) {
        return Err(Unusable::Segments { number });
    }
    Ok(manifest)
}

/// Writes a manifest, its content durable. Everything it names is durable already; its own name is not yet.
pub fn write(work: &Work, root: &Path, attempt: &Attempt, manifest: &Manifest) -> Result<Checkpoint, Fault> {
    let folder = root.join(work.layout.checkpoint_folder(manifest.index));
    if store::make_folder(&folder)? == store::Created::Us {
        store::sync_folder(store::parent(&folder))?;
    }
    let bytes = manifest.encode().map_err(|error| fault::output("write", &folder)(std::io::Error::other(error)))?;
    let digest = digest(&bytes);
    let path = folder.join(Layout::checkpoint(manifest.number, attempt.grant().epoch, &work.worker, digest));
    store::write_new(&path, &bytes)?;
    Ok(Checkpoint { number: manifest.number, position: manifest.position, digest })
}

/// Makes the names of a shard's manifests durable.
pub fn sync_names(work: &Work, root: &Path, index: ShardIndex) -> Result<(), Fault> {
    store::sync_folder(&root.join(work.layout.checkpoint_folder(index)))
}

/// Removes what a committed shard no longer needs (P21): its segments and checkpoints.
pub fn remove(work: &Work, index: ShardIndex) -> Result<(), Fault> {
    let commits = work.places()?.commits;
    store::remove_tree(&commits.join(work.layout.stage_folder(index)))?;
    store::remove_tree(&commits.join(work.layout.checkpoint_folder(index)))
}
