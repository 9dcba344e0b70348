//! The store when a process starts: its UUID, what dead processes left half written, and folders of jobs long over.

use std::{
    fs::{self, File, Metadata},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use hyperflow_api::ids::{JobUid, WorkerId};

use super::error::{BlockError, disk};
use crate::chance;

/// Folder of what is being written.
pub const TEMPORARY: &str = "tmp";
const UUID: &str = "uuid";
/// What a process that is not of this pod has not written to for so long, it writes no more.
const ABANDONED: Duration = Duration::from_secs(3600);
/// A folder of a job that no worker has touched for so long is nobody's.
const FORGOTTEN: Duration = Duration::from_secs(7 * 86_400);
/// Part of a file system that is left free.
const RESERVE: u64 = 20;

/// A store that is ready.
pub struct SetUp {
    /// Of the job.
    pub folder: PathBuf,
    /// Of the store.
    pub uuid: String,
    /// Most bytes of replicas.
    pub limit: u64,
    /// Bytes of them.
    pub used: u64,
}

/// How the names of a process's temporary files begin.
pub fn owner(me: &WorkerId) -> String {
    format!("{}.{:016x}", me.pod_uid, me.nonce)
}

/// Makes what is missing and removes what nobody needs.
pub fn set_up(root: &Path, job: &JobUid, me: &WorkerId, limit: Option<u64>) -> Result<SetUp, BlockError> {
    let folder = root.join(&job.0);
    let temporary = folder.join(TEMPORARY);
    fs::create_dir_all(&temporary).map_err(disk("create", &temporary))?;
    let uuid = uuid(root, me)?;
    remove_half_written(&temporary, me)?;
    forget_jobs(root, job);
    let used = bytes_in(root).map_err(disk("look through", root))?;
    let limit = match limit {
        Some(limit) => limit,
        None => {
            let found = rustix::fs::statvfs(root).map_err(|errno| disk("look at", root)(errno.into()))?;
            let reserve = found.f_blocks.saturating_mul(found.f_frsize) / RESERVE;
            found.f_bavail.saturating_mul(found.f_frsize).saturating_add(used).saturating_sub(reserve)
        }
    };
    Ok(SetUp { folder, uuid, limit, used })
}

/// The store's UUID: the first process on the volume draws it, the others read it.
fn uuid(root: &Path, me: &WorkerId) -> Result<String, BlockError> {
    let path = root.join(UUID);
    for _ in 0..2 {
        match fs::read_to_string(&path) {
            Ok(text) => return Ok(text.trim().into()),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(disk("read", &path)(error)),
        }
        let aside = root.join(format!("{UUID}.{}", owner(me)));
        let drawn = draw().map_err(disk("draw a UUID for", root))?;
        let written = File::create(&aside).and_then(|mut file| {
            file.write_all(drawn.as_bytes())?;
            file.sync_all()
        });
        written.map_err(disk("write", &aside))?;
        // Create-only: of two processes, one gives the name.
        let linked = fs::hard_link(&aside, &path);
        fs::remove_file(&aside).map_err(disk("remove", &aside))?;
        match linked {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(disk("link", &path)(error)),
            _ => File::open(root).and_then(|open| open.sync_all()).map_err(disk("sync the folder", root))?,
        }
    }
    fs::read_to_string(&path).map(|text| text.trim().into()).map_err(disk("read", &path))
}

/// A random UUID of version 4.
fn draw() -> io::Result<String> {
    let (high, low) = (chance::random()?, chance::random()?);
    let high = high & !0xf000 | 0x4000;
    let low = low & !(0b11 << 62) | 0b10 << 62;
    Ok(format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    ))
}

/// Whether a temporary file is one of a process that is dead, by its name and its age.
fn is_dead(file: &str, age: Duration, me: &WorkerId) -> bool {
    let own_pod = file.strip_prefix(&me.pod_uid).is_some_and(|rest| rest.starts_with('.'));
    let own = file.strip_prefix(&owner(me)).is_some_and(|rest| rest.starts_with('.'));
    // Of one pod only one process runs at a time.
    !own && (own_pod || age >= ABANDONED)
}

fn remove_half_written(temporary: &Path, me: &WorkerId) -> Result<(), BlockError> {
    for entry in fs::read_dir(temporary).map_err(disk("list", temporary))? {
        let entry = entry.map_err(disk("list", temporary))?;
        let path = entry.path();
        let age = match entry.metadata() {
            Ok(found) => age(&found),
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(disk("look at", &path)(error)),
        };
        if is_dead(&entry.file_name().to_string_lossy(), age, me) {
            remove(&path, false)?;
        }
    }
    Ok(())
}

fn age(found: &Metadata) -> Duration {
    let modified = found.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    SystemTime::now().duration_since(modified).unwrap_or_default()
}

/// Removes folders of jobs that no worker has touched for long. What cannot be removed is only in the way.
fn forget_jobs(root: &Path, job: &JobUid) {
    let Ok(entries) = fs::read_dir(root) else { return };
    for entry in entries.flatten() {
        let forgotten = entry.metadata().is_ok_and(|found| found.is_dir() && age(&found) >= FORGOTTEN);
        // The name of a job's folder is its UID: what else may lie on the volume is not ours.
        let name = entry.file_name();
        let of_a_job = name.len() == 36 && name.to_string_lossy().bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        if !forgotten || !of_a_job || *name == *job.0 {
            continue;
        }
        match remove(&entry.path(), true) {
            Ok(()) => tracing::info!(folder = %entry.path().display(), "blocks of a job that is long over are removed"),
            Err(error) => tracing::warn!(error = crate::logs::causes(&error), "blocks of an old job take room"),
        }
    }
}

/// Removes a file or a folder, which another process may remove as well.
pub fn remove(path: &Path, folder: bool) -> Result<(), BlockError> {
    let removed = if folder { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(disk("remove", path)),
    }
}

/// Bytes of all files in a folder and the folders in it.
fn bytes_in(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            match entry.metadata() {
                Ok(found) if found.is_dir() => folders.push(entry.path()),
                Ok(found) => bytes += found.len(),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(pod: &str, nonce: u64) -> WorkerId {
        WorkerId { pod_uid: pod.into(), nonce }
    }

    #[test]
    fn a_store_keeps_its_uuid_and_what_live_processes_write() {
        let folder = tempfile::tempdir().unwrap();
        let job = JobUid("5b1e0c44-0000-4000-8000-000000000001".into());
        let me = worker("pod-a", 2);
        let set = |me: &WorkerId| set_up(folder.path(), &job, me, None).unwrap();
        let first = set(&me);
        assert_eq!(first.uuid.len(), 36);
        assert_eq!(&first.uuid[14..15], "4");
        let temporary = first.folder.join(TEMPORARY);
        for name in ["pod-a.0000000000000001.7", "pod-a.0000000000000002.7", "pod-b.0000000000000001.7"] {
            fs::write(temporary.join(name), "x").unwrap();
        }
        let old = temporary.join("pod-c.0000000000000001.1");
        fs::write(&old, "x").unwrap();
        File::open(&old).unwrap().set_modified(SystemTime::now() - ABANDONED).unwrap();
        let again = set(&me);
        assert_eq!(again.uuid, first.uuid);
        assert_eq!(
            crate::tests::names(&temporary),
            ["pod-a.0000000000000002.7", "pod-b.0000000000000001.7"],
            "what another live pod writes stays"
        );
    }

    #[test]
    fn folders_of_jobs_long_over_go() {
        let folder = tempfile::tempdir().unwrap();
        let (old, young) = ("5b1e0c44-0000-4000-8000-00000000000a", "5b1e0c44-0000-4000-8000-00000000000b");
        for name in [old, young, "lost+found"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        for name in [old, "lost+found"] {
            File::open(folder.path().join(name)).unwrap().set_modified(SystemTime::now() - FORGOTTEN).unwrap();
        }
        let job = JobUid("5b1e0c44-0000-4000-8000-000000000001".into());
        set_up(folder.path(), &job, &worker("pod-a", 1), Some(5)).unwrap();
        assert_eq!(crate::tests::names(folder.path()), [job.0.as_str(), young, "lost+found", "uuid"]);
    }
}
