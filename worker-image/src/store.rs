//! The output store on a file system: everything is created once and never replaced (P5, P6, P8).

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io::{self, ErrorKind, Seek, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use hyperflow_api::message::FailureClass;
use rustix::io::Errno;

use crate::fault::{self, Fault};

/// Who created a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// We did, now or in an earlier try of the same call.
    Us,
    /// It was there.
    Before,
}

/// Opens a file that must not exist yet, for writing.
pub fn create_new(path: &Path) -> Result<File, Fault> {
    OpenOptions::new().write(true).create_new(true).open(path).map_err(fault::output("create", path))
}

/// Makes a file of `bytes` that must not exist yet, durable but for its name.
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<(), Fault> {
    let mut file = create_new(path)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(fault::output("write", path))
}

/// Makes names in a folder durable.
pub fn sync_folder(path: &Path) -> Result<(), Fault> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(fault::output("sync the folder", path))
}

/// Makes the content of a file that is there durable, and its name: its creator may have died before (P6).
pub fn sync_found(path: &Path) -> Result<(), Fault> {
    File::open(path).and_then(|file| file.sync_all()).map_err(fault::output("sync", path))?;
    sync_folder(parent(path))
}

/// Links `from` to the name `to`, create-only (P5). The name is not durable yet.
///
/// An answer that was lost on the way (NFS repeats the call) shows as a name that exists and is the same file.
pub fn link_new(from: &Path, to: &Path) -> Result<Created, Fault> {
    match fs::hard_link(from, to) {
        Ok(()) => Ok(Created::Us),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Ok(if same_file(from, to)? { Created::Us } else { Created::Before })
        }
        Err(error) if refuses_links(&error) => Err(not_fenced(to, &format!("it refuses hard links ({error})"))),
        Err(error) => Err(fault::output("link", to)(error)),
    }
}

fn refuses_links(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::PERM | Errno::NOTSUP | Errno::NOSYS | Errno::XDEV))
}

fn not_fenced(path: &Path, why: &str) -> Fault {
    let message = format!(
        "the file system of '{}' cannot publish a result exactly once: {why}. Put `spec.output.url` on a file system \
         with hard links, such as ext4, xfs or NFS",
        path.display()
    );
    fault::end_job(FailureClass::Store, "OutputNotFenced", message)
}

/// Whether two names are one file.
pub fn same_file(one: &Path, other: &Path) -> Result<bool, Fault> {
    let identity = |path: &Path| fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()));
    Ok(identity(one).map_err(fault::output("look at", one))?
        == identity(other).map_err(fault::output("look at", other))?)
}

/// What is at `path`, if anything.
pub fn look(path: &Path) -> Result<Option<Metadata>, Fault> {
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(fault::output("look at", path)(error)),
    }
}

/// Gives `target` the content `bytes`, whole or not at all, create-only, and durable. `aside` is a private name on the
/// same file system; nothing stays there.
pub fn put_new(aside: &Path, target: &Path, bytes: &[u8]) -> Result<Created, Fault> {
    write_new(aside, bytes)?;
    let created = link_new(aside, target);
    remove(aside)?;
    if created? == Created::Before {
        return Ok(Created::Before);
    }
    sync_folder(parent(target))?;
    Ok(Created::Us)
}

/// The same of what is in an open file, however much.
pub fn put_copy(aside: &Path, target: &Path, mut from: &File) -> Result<Created, Fault> {
    let mut file = create_new(aside)?;
    from.rewind().map_err(fault::output("read", aside))?;
    io::copy(&mut from, &mut file).and_then(|_| file.sync_all()).map_err(fault::output("write", aside))?;
    let created = link_new(aside, target);
    remove(aside)?;
    if created? == Created::Us {
        sync_folder(parent(target))?;
        return Ok(Created::Us);
    }
    Ok(Created::Before)
}

/// Proves that the file system refuses to create a name twice (P8). `one` and `other` are private names in one folder.
pub fn probe(one: &Path, other: &Path) -> Result<(), Fault> {
    write_new(one, b"first")?;
    let proof = prove(one, other);
    remove(one)?;
    remove(other)?;
    proof
}

fn prove(one: &Path, other: &Path) -> Result<(), Fault> {
    if create_new(one).is_ok() {
        return Err(not_fenced(one, "it creates a file a second time that exists"));
    }
    if link_new(one, other)? != Created::Us || !same_file(one, other)? {
        return Err(not_fenced(other, "a hard link is not the same file"));
    }
    match fs::hard_link(one, other) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(fault::output("link", other)(error)),
        Ok(()) => Err(not_fenced(other, "it links a name a second time that exists")),
    }
}

/// Removes a file; one that is not there is fine.
pub fn remove(path: &Path) -> Result<(), Fault> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(fault::output("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Removes a folder with all in it; one that is not there is fine.
pub fn remove_tree(path: &Path) -> Result<(), Fault> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(fault::output("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Makes a folder and those above it, durable, and says which were new, outermost first.
pub fn make_folders(path: &Path) -> Result<Vec<PathBuf>, Fault> {
    let missing: Vec<&Path> = path.ancestors().take_while(|folder| !folder.is_dir()).collect();
    let mut made = Vec::new();
    for folder in missing.into_iter().rev() {
        match make_folder(folder)? {
            Created::Us => made.push(folder.to_path_buf()),
            Created::Before => {}
        }
        sync_folder(parent(folder))?;
    }
    Ok(made)
}

/// Makes one folder in a folder that must exist. Its name is not durable yet.
pub fn make_folder(path: &Path) -> Result<Created, Fault> {
    match fs::create_dir(path) {
        Ok(()) => Ok(Created::Us),
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(Created::Before),
        Err(error) => Err(fault::output("create the folder", path)(error)),
    }
}

/// The folder a path is in.
pub fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use std::{sync::Barrier, thread};

    use super::*;

    #[test]
    fn of_two_racers_one_creates_and_the_other_finds_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("17");
        for _ in 0..50 {
            let barrier = Barrier::new(2);
            let race = |name: &str| {
                let aside = folder.path().join(name);
                barrier.wait();
                put_new(&aside, &target, name.as_bytes()).unwrap()
            };
            let (a, b) = thread::scope(|scope| {
                let (a, b) = (scope.spawn(|| race("a")), scope.spawn(|| race("b")));
                (a.join().unwrap(), b.join().unwrap())
            });
            let winner = if a == Created::Us { "a" } else { "b" };
            assert_ne!(a, b);
            assert_eq!(fs::read_to_string(&target).unwrap(), winner);
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left aside");
            fs::remove_file(&target).unwrap();
        }
    }

    #[test]
    fn a_link_that_was_made_before_the_answer_was_lost_is_ours() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        write_new(&from, b"x").unwrap();
        assert_eq!(link_new(&from, &to).unwrap(), Created::Us);
        assert_eq!(link_new(&from, &to).unwrap(), Created::Us);
    }

    #[test]
    fn a_sound_file_system_passes_the_probe_and_keeps_nothing_of_it() {
        let folder = tempfile::tempdir().unwrap();
        probe(&folder.path().join("one"), &folder.path().join("other")).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn folders_are_made_once_and_the_new_ones_named() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("a/b"));
        assert_eq!(make_folders(&b).unwrap(), [a, b.clone()]);
        assert!(make_folders(&b).unwrap().is_empty());
        fs::write(folder.path().join("file"), b"").unwrap();
        assert!(make_folders(&folder.path().join("file/x")).is_err());
    }
}
