//! Every file beneath a directory, one after the other as the folders give them: nothing is held but the folders that
//! are open.
//!
//! What is not listed: folders of ours, the job's own output, and what is no regular file. A folder that may not be
//! read ends the listing, for nobody knows what is missed, except `lost+found`. A link to a file is that file, if it is
//! on a volume of the job. A link to a folder is not followed: it could lead round in a circle, or list a file twice.

use std::{
    ffi::OsStr,
    fs::{self, DirEntry, FileType, Metadata, ReadDir},
    io::{self, ErrorKind},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use hyperflow_api::message::FailureClass;
use hyperflow_core::layout::FOLDER;
use rustix::io::Errno;

use super::{Found, nearest::Nearest};
use crate::{
    attempt::Attempt,
    fault::{self, Fault},
    input,
    work::Work,
};

/// Most folders open at a time. Those that lie deeper wait as paths.
const OPEN: usize = 64;

/// What is listed.
pub struct Selection<'a> {
    /// The globs that a file must match one of; empty for all files. Only for the nearest path.
    pub include: &'a [String],
    /// Whether the file with this path, relative to the directory, is listed.
    pub selects: &'a dyn Fn(&str) -> bool,
}

/// What was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Regular files, and links to them.
    pub files: u64,
    /// Those of them that were listed.
    pub selected: u64,
    /// Links to folders, which are not followed.
    pub linked_folders: u64,
    /// Links to nothing.
    pub broken_links: u64,
    /// Sockets, pipes and devices.
    pub special: u64,
    /// If nothing was selected: the path that comes nearest to what `include` asks for.
    pub nearest: Option<String>,
}

/// Gives every selected file beneath `directory` to `sink`, in no order, and never what is in `output`.
pub fn run(
    work: &Work,
    attempt: &Attempt,
    directory: &Path,
    output: Option<&Path>,
    selection: &Selection,
    sink: &mut dyn FnMut(Found) -> Result<(), Fault>,
) -> Result<Seen, Fault> {
    let root = work.on_volume(FailureClass::BadInput, directory)?;
    let nearest = Nearest::new(selection.include);
    let output = match output {
        Some(output) => there(fs::metadata(output)).map_err(fault::output("look at", output))?,
        None => None,
    };
    let mut walk = Walk { work, attempt, root, output, selection, seen: Seen::default(), nearest, sink };
    walk.everything()?;
    if walk.seen.selected == 0 {
        walk.seen.nearest = walk.nearest.path();
    }
    Ok(walk.seen)
}

struct Walk<'a> {
    work: &'a Work,
    attempt: &'a Attempt,
    root: PathBuf,
    output: Option<Metadata>,
    selection: &'a Selection<'a>,
    seen: Seen,
    nearest: Nearest,
    sink: &'a mut dyn FnMut(Found) -> Result<(), Fault>,
}

/// A folder that is being read, and its path relative to the root.
struct Folder {
    path: PathBuf,
    entries: ReadDir,
}

impl Walk<'_> {
    fn everything(&mut self) -> Result<(), Fault> {
        let (mut open, mut waiting) = (Vec::<Folder>::new(), vec![PathBuf::new()]);
        loop {
            let Some(folder) = open.last_mut() else {
                let Some(path) = waiting.pop() else { return Ok(()) };
                open.extend(self.open(path)?);
                continue;
            };
            self.attempt.go_on()?;
            let Some(entry) = folder.entries.next() else {
                open.pop();
                continue;
            };
            let entry = entry.map_err(|error| fault::input("list", &self.root.join(&folder.path))(error))?;
            let Some(kind) = there(entry.file_type()).map_err(look_at(&entry))? else { continue };
            let path = folder.path.join(entry.file_name());
            if !kind.is_dir() {
                self.file(&entry, path, kind)?;
            } else if self.is_ours(&entry)? {
                continue;
            } else if open.len() < OPEN {
                open.extend(self.open(path)?);
            } else {
                waiting.push(path);
            }
        }
    }

    /// Opens a folder, unless it is gone.
    fn open(&self, path: PathBuf) -> Result<Option<Folder>, Fault> {
        let whole = self.root.join(&path);
        match there(fs::read_dir(&whole)) {
            Err(error) if is_for_repairs(&path, &error) => Ok(None),
            entries => {
                let entries = entries.map_err(fault::input("list", &whole))?;
                Ok(entries.map(|entries| Folder { path, entries }))
            }
        }
    }

    /// Whether the folder holds files of ours, or the job's results. The output is known by what it is and not by its
    /// path: one volume may be mounted twice.
    fn is_ours(&self, entry: &DirEntry) -> Result<bool, Fault> {
        if entry.file_name() == OsStr::new(FOLDER) {
            return Ok(true);
        }
        let Some(output) = &self.output else { return Ok(false) };
        let found = there(entry.metadata()).map_err(look_at(entry))?;
        Ok(found.is_some_and(|found| (found.dev(), found.ino()) == (output.dev(), output.ino())))
    }

    /// Whatever is no folder.
    fn file(&mut self, entry: &DirEntry, path: PathBuf, kind: FileType) -> Result<(), Fault> {
        let mut linked = None;
        let mut kind = kind;
        if kind.is_symlink() {
            let Some(found) = target(&entry.path()).map_err(look_at(entry))? else {
                self.seen.broken_links += 1;
                return Ok(());
            };
            kind = found.file_type();
            linked = Some(found);
        }
        if kind.is_dir() {
            self.seen.linked_folders += 1;
        } else if kind.is_file() {
            self.regular(entry, path, linked)?;
        } else {
            self.seen.special += 1;
        }
        Ok(())
    }

    /// A regular file, or a link to one. Only what is selected is looked at: on a server that may be a call for each.
    fn regular(&mut self, entry: &DirEntry, path: PathBuf, linked: Option<Metadata>) -> Result<(), Fault> {
        let shown = path.to_string_lossy();
        if !(self.selection.selects)(&shown) {
            self.seen.files += 1;
            if self.seen.selected == 0 {
                self.nearest.consider(&shown);
            }
            return Ok(());
        }
        let found = if linked.is_some() {
            match self.work.on_volume(FailureClass::BadInput, &entry.path()) {
                Err(Fault::Input { source, .. }) if source.kind() == ErrorKind::NotFound => None,
                real => real.map(|_| linked)?,
            }
        } else {
            there(entry.metadata()).map_err(look_at(entry))?.filter(Metadata::is_file)
        };
        let Some(found) = found else { return Ok(()) };
        self.seen.files += 1;
        self.seen.selected += 1;
        let path = path.into_os_string().into_string().map_err(|_| no_text(&entry.path()))?;
        (self.sink)(Found { path, url: None, size: found.size(), version: input::version(&found) })
    }
}

fn look_at(entry: &DirEntry) -> impl FnOnce(io::Error) -> Fault {
    |error| fault::input("look at", &entry.path())(error)
}

/// What a link leads to, if anything.
fn target(link: &Path) -> io::Result<Option<Metadata>> {
    match fs::metadata(link) {
        // A link into a file, or round to itself, leads nowhere either.
        Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::NOTDIR | Errno::LOOP)) => Ok(None),
        found => there(found),
    }
}

/// Nothing is an answer: who lists a folder that is in use finds names that are gone a moment later.
fn there<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

/// Every volume with ext4 has a folder at its root that only root may read. No file of the user's is in it.
fn is_for_repairs(path: &Path, error: &io::Error) -> bool {
    error.kind() == ErrorKind::PermissionDenied && path.file_name() == Some(OsStr::new("lost+found"))
}

fn no_text(path: &Path) -> Fault {
    let message = format!(
        "the name of '{}' is not UTF-8, and no URL can name it. Rename the file, or leave it out with \
         `spec.source.files.exclude`, where '*' stands for the wrong bytes: it may be changed until there is a plan.",
        path.display()
    );
    fault::end_job(FailureClass::BadInput, "InputName", message)
}

#[cfg(test)]
mod tests {
    use std::{
        ffi::OsString,
        os::unix::{
            ffi::OsStringExt,
            fs::{PermissionsExt, symlink},
            net::UnixListener,
        },
    };

    use hyperflow_api::message::Target;

    use super::*;
    use crate::tests::{Started, Volume, noise, refused, start};

    fn volume() -> Volume {
        let volume = Volume::new(&noise(10), "4Ki");
        fs::remove_file(volume.path("in/data")).unwrap();
        volume
    }

    fn write(volume: &Volume, path: &str, bytes: usize) {
        let path = volume.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, noise(bytes)).unwrap();
    }

    fn walk_by(
        volume: &Volume,
        directory: &str,
        include: &[&str],
        selects: &dyn Fn(&str) -> bool,
    ) -> (Vec<Found>, Result<Seen, Fault>) {
        let (work, Started { attempt, .. }) = (volume.work(1), start(Target::Plan, 1, None));
        let include: Vec<String> = include.iter().map(ToString::to_string).collect();
        let selection = Selection { include: &include, selects };
        let mut all = Vec::new();
        let output = volume.path("out");
        let seen = run(&work, &attempt, &volume.path(directory), Some(&output), &selection, &mut |found| {
            all.push(found);
            Ok(())
        });
        all.sort_by(|one, other| one.path.cmp(&other.path));
        (all, seen)
    }

    fn walk(volume: &Volume, directory: &str) -> (Vec<String>, Seen) {
        let (all, seen) = walk_by(volume, directory, &[], &|_| true);
        (all.into_iter().map(|found| found.path).collect(), seen.unwrap())
    }

    #[test]
    fn every_file_at_any_depth_has_its_path_size_and_version() {
        let volume = volume();
        for (path, bytes) in [("in/a", 1), ("in/b/x#1", 20), ("in/b/c/d/.hidden", 0), ("in/a b/%2F\n", 3)] {
            write(&volume, path, bytes);
        }
        let (all, seen) = walk_by(&volume, "in", &[], &|_| true);
        let told: Vec<_> = all.iter().map(|found| (found.path.as_str(), found.size)).collect();
        assert_eq!(told, [("a", 1), ("a b/%2F\n", 3), ("b/c/d/.hidden", 0), ("b/x#1", 20)]);
        for found in &all {
            assert_eq!(found.version, input::version(&fs::metadata(volume.path("in").join(&found.path)).unwrap()));
        }
        assert_eq!(seen.unwrap(), Seen { files: 4, selected: 4, ..Seen::default() });
    }

    #[test]
    fn files_of_ours_and_the_output_are_not_listed() {
        let volume = volume();
        for path in
            ["in/a", "in/_hyperflow/b", "in/c/_hyperflow/d", "in/e/_hyperflow.txt", "out/f", "out/g/h", "outer/i"]
        {
            write(&volume, path, 1);
        }
        assert_eq!(walk(&volume, "").0, ["in/a", "in/e/_hyperflow.txt", "outer/i"]);
        assert_eq!(walk(&volume, "out/g").0, ["h"], "what lies in the output may be asked for by name");
        write(&volume, "in/c/_hyperflow-is-a-file/_hyperflow", 1);
        assert_eq!(walk(&volume, "in/c").0, ["_hyperflow-is-a-file/_hyperflow"], "only folders are ours");
    }

    #[test]
    fn a_link_to_a_file_is_that_file_and_a_link_to_a_folder_is_not_followed() {
        let volume = volume();
        write(&volume, "elsewhere/file", 7);
        write(&volume, "in/real", 1);
        symlink(volume.path("elsewhere/file"), volume.path("in/link")).unwrap();
        symlink(volume.path("in"), volume.path("in/round")).unwrap();
        symlink("nothing", volume.path("in/broken")).unwrap();
        symlink("self", volume.path("in/self")).unwrap();
        symlink("real/x", volume.path("in/through-a-file")).unwrap();
        let (all, seen) = walk_by(&volume, "in", &[], &|_| true);
        let target = fs::metadata(volume.path("elsewhere/file")).unwrap();
        assert_eq!((all[0].path.as_str(), all[0].size, &all[0].version), ("link", 7, &input::version(&target)));
        assert_eq!((all.len(), all[1].path.as_str()), (2, "real"));
        assert_eq!(
            seen.unwrap(),
            Seen { files: 2, selected: 2, linked_folders: 1, broken_links: 3, ..Seen::default() }
        );
    }

    #[test]
    fn a_link_out_of_the_volume_is_refused_unless_it_is_not_selected() {
        let volume = volume();
        let elsewhere = tempfile::NamedTempFile::new().unwrap();
        symlink(elsewhere.path(), volume.path("in/out")).unwrap();
        let failure = refused(walk_by(&volume, "in", &[], &|_| true).1);
        assert_eq!((failure.reason.as_str(), failure.ends_job), ("OutsideVolumes", true));
        assert!(failure.message.contains("in/out' leads to '"), "{}", failure.message);
        assert_eq!(walk_by(&volume, "in", &[], &|_| false).1.unwrap().files, 1);
    }

    #[test]
    fn what_is_no_file_is_counted_and_nothing_hangs() {
        let volume = volume();
        let _socket = UnixListener::bind(volume.path("in/socket")).unwrap();
        let mode = rustix::fs::Mode::RUSR;
        rustix::fs::mknodat(rustix::fs::CWD, volume.path("in/pipe"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
        symlink(volume.path("in/pipe"), volume.path("in/linked-pipe")).unwrap();
        let (all, seen) = walk(&volume, "in");
        assert_eq!((all.len(), seen.special, seen.files), (0, 3, 0));
    }

    #[test]
    fn when_nothing_is_selected_the_nearest_path_is_told() {
        let volume = volume();
        for path in ["in/a/report.PDF", "in/a/report.txt", "in/b/x"] {
            write(&volume, path, 1);
        }
        let seen = walk_by(&volume, "in", &["**/*.pdf"], &|path| path.ends_with(".pdf")).1.unwrap();
        let nearest = Some("a/report.PDF".into());
        assert_eq!(seen, Seen { files: 3, nearest, ..Seen::default() });
        let (all, seen) = walk_by(&volume, "in", &["**/*.txt"], &|path| path.ends_with(".txt"));
        assert_eq!((all.len(), seen.unwrap().nearest), (1, None));
    }

    #[test]
    fn a_name_that_is_not_utf_8_is_refused_and_can_be_left_out() {
        let volume = volume();
        let folder = volume.path("in").join(OsString::from_vec(b"caf\xe9".to_vec()));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("menu.txt"), b"x").unwrap();
        let failure = refused(walk_by(&volume, "in", &[], &|_| true).1);
        assert_eq!((failure.reason.as_str(), failure.ends_job), ("InputName", true));
        assert!(failure.message.contains("in/caf\u{fffd}/menu.txt' is not UTF-8"), "{}", failure.message);
        assert!(failure.message.contains("Rename the file, or leave it out"), "{}", failure.message);
        assert_eq!(walk_by(&volume, "in", &[], &|path| !path.starts_with("caf")).1.unwrap().selected, 0);
    }

    #[test]
    fn deeper_than_folders_are_open_and_a_folder_that_may_not_be_read() {
        let volume = volume();
        let deep = |depth: usize| format!("in/{}file", "d/".repeat(depth));
        for depth in [OPEN - 2, OPEN - 1, OPEN, OPEN + 1, 3 * OPEN] {
            write(&volume, &deep(depth), 1);
        }
        assert_eq!(walk(&volume, "in").0.len(), 5);
        fs::set_permissions(volume.path("in/d"), fs::Permissions::from_mode(0o0)).unwrap();
        // Root may read everything, so only another user sees the refusal.
        if fs::read_dir(volume.path("in/d")).is_err() {
            let failure = refused(walk_by(&volume, "in", &[], &|_| true).1);
            assert_eq!(failure.reason, "InputDenied");
            assert!(failure.message.contains("in/d'"), "{}", failure.message);
        }
        fs::set_permissions(volume.path("in/d"), fs::Permissions::from_mode(0o700)).unwrap();
    }

    #[test]
    fn only_the_file_systems_own_folder_may_be_denied() {
        let denied = io::Error::from(ErrorKind::PermissionDenied);
        assert!(is_for_repairs(Path::new("lost+found"), &denied));
        assert!(!is_for_repairs(Path::new("lost"), &denied));
        assert!(!is_for_repairs(Path::new(""), &denied));
        assert!(!is_for_repairs(Path::new("lost+found"), &ErrorKind::TimedOut.into()));
    }

    #[test]
    fn an_order_to_stop_ends_it() {
        let volume = volume();
        write(&volume, "in/a", 1);
        let (work, Started { attempt, stop, .. }) = (volume.work(1), start(Target::Plan, 1, None));
        let selection = Selection { include: &[], selects: &|_| true };
        stop.order(hyperflow_core::worker::Stop::Now);
        let ended = run(&work, &attempt, &volume.path("in"), None, &selection, &mut |_| Ok(()));
        assert!(matches!(ended, Err(Fault::Stopped)), "{ended:?}");
    }

    #[test]
    fn files_that_go_while_they_are_listed_are_skipped() {
        let volume = volume();
        for number in 0..20 {
            write(&volume, &format!("in/{}/{number}", number % 3), 1);
        }
        let (work, Started { attempt, .. }) = (volume.work(1), start(Target::Plan, 1, None));
        let selection = Selection { include: &[], selects: &|_| true };
        let mut listed = 0;
        let seen = run(&work, &attempt, &volume.path("in"), None, &selection, &mut |_| {
            listed += 1;
            if listed == 1 {
                fs::remove_dir_all(volume.path("in")).unwrap();
            }
            Ok(())
        });
        assert_eq!(seen.unwrap(), Seen { files: listed, selected: listed, ..Seen::default() });
        assert!(listed < 20, "{listed}");
    }
}
