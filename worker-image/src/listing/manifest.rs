//! The lines of a manifest, one after the other, however many: the files of the input, or its items.
//!
//! A line is taken literally: no comments, no quotes, and spaces are part of it. It ends with `\n` or `\r\n`; empty
//! lines and a byte order mark at the beginning mean nothing.

use std::{
    borrow::Cow,
    fmt,
    fs::{self, File, Metadata},
    io::{self, BufReader, ErrorKind},
    path::{Path, PathBuf},
};

use hyperflow_api::message::FailureClass;
use hyperflow_core::{layout::FOLDER, paths::file_path};

use super::{
    Found,
    lines::{LONGEST, Lines},
};
use crate::{
    attempt::Attempt,
    fault::{self, Fault},
    input, lookup, store,
    work::Work,
};

/// Most bytes of an item, as in `spec.source.items.values`.
const LONGEST_ITEM: usize = 1024;
/// Most characters of a line that a message shows.
const SHOWN: usize = 80;
/// Bytes read at a time.
const READ: usize = 64 << 10;

/// Where a manifest is.
#[derive(Clone, Copy, Debug)]
pub enum Origin<'a> {
    /// On a volume of the job.
    Url(&'a str),
    /// In a ConfigMap that is mounted.
    ConfigMap {
        /// Of the ConfigMap.
        name: &'a str,
        /// In the ConfigMap.
        key: &'a str,
        /// Where the key's value is.
        path: &'a Path,
    },
}

impl fmt::Display for Origin<'_> {
    fn fmt(&self, to: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Url(url) => write!(to, "'{url}'"),
            Self::ConfigMap { name, key, .. } => write!(to, "key '{key}' of ConfigMap '{name}'"),
        }
    }
}

/// A manifest, and who reads it.
#[derive(Clone, Copy, Debug)]
pub struct Manifest<'a> {
    /// Its mounts are where files may be.
    pub work: &'a Work,
    /// Can be told to stop.
    pub attempt: &'a Attempt,
    /// Where it is.
    pub origin: Origin<'a>,
    /// The field it stands in: "spec.source.files.manifest".
    pub field: &'static str,
}

impl Manifest<'_> {
    /// Gives each file that is listed to `sink`, in the order of the lines, and says how many there were. A file that
    /// is listed twice is given twice.
    pub fn files(&self, sink: &mut dyn FnMut(Found) -> Result<(), Fault>) -> Result<u64, Fault> {
        let mut checked = None;
        self.each(LONGEST, "write the list with one file a line", &mut |number, line| {
            let line = Line { manifest: self, number, text: line };
            let path = line.path()?;
            let relative = line.relative(&path)?;
            let found = line.look(&path, &mut checked)?;
            let (path, url) = (relative.into(), Some(format!("file://{path}")));
            sink(Found { path, url, size: found.len(), version: input::version(&found) })
        })
    }

    /// Gives each item to `sink`, in the order of the lines, and says how many there were.
    pub fn items(&self, sink: &mut dyn FnMut(&str) -> Result<(), Fault>) -> Result<u64, Fault> {
        self.each(LONGEST_ITEM, "put what is longer into files and list those", &mut |number, line| {
            let text = Line { manifest: self, number, text: line };
            if line.contains('\0') {
                return Err(text.wrong("contains a NUL character", "Remove it"));
            }
            sink(line)
        })
    }

    fn each(
        &self,
        longest: usize,
        shorter: &str,
        sink: &mut dyn FnMut(u64, &str) -> Result<(), Fault>,
    ) -> Result<u64, Fault> {
        let (file, path) = self.open()?;
        let mut lines = Lines::new(BufReader::with_capacity(READ, file));
        let mut count = 0;
        while let Some((number, bytes)) = lines.next().map_err(fault::input("read", &path))? {
            self.attempt.go_on()?;
            let lossy = String::from_utf8_lossy(bytes);
            let line = Line { manifest: self, number, text: &lossy };
            if bytes.len() > longest {
                let remedy = format!("A line must have no more: {shorter}");
                return Err(line.wrong(&format!("is longer than {longest} bytes"), &remedy));
            }
            let Cow::Borrowed(text) = lossy else {
                return Err(line.wrong("is not UTF-8", "Write the list as UTF-8"));
            };
            sink(number, text)?;
            count += 1;
        }
        Ok(count)
    }

    fn open(&self) -> Result<(File, PathBuf), Fault> {
        let (file, path) = match self.origin {
            Origin::Url(url) => input::open(self.work, url).map_err(|fault| self.unless_missing(fault))?,
            Origin::ConfigMap { path, .. } => {
                let file = File::open(path).map_err(fault::input("open", path));
                (file.map_err(|fault| self.unless_missing(fault))?, path.into())
            }
        };
        if !file.metadata().map_err(fault::input("look at", &path))?.is_file() {
            return Err(self.refuse("NoInput", &format!("{} is not a regular file", self.origin)));
        }
        Ok((file, path))
    }

    fn unless_missing(&self, fault: Fault) -> Fault {
        match fault {
            Fault::Input { path, source, .. } if is_missing(&source) => {
                let hint = lookup::nearest(&path).map(|name| format!(" (the nearest is '{name}')")).unwrap_or_default();
                self.refuse("NoInput", &format!("{} is not there{hint}", self.origin))
            }
            fault => fault,
        }
    }

    /// The job ends, for its manifest is not looked at again until its spec changes.
    fn refuse(&self, reason: &str, what: &str) -> Fault {
        let message = format!("{what}. Correct `{}`: it may be changed until there is a plan.", self.field);
        fault::end_job(FailureClass::BadInput, reason, message)
    }
}

/// A line that names a file or an item.
struct Line<'a> {
    manifest: &'a Manifest<'a>,
    number: u64,
    text: &'a str,
}

impl Line<'_> {
    /// The absolute path, in its one spelling.
    fn path(&self) -> Result<Cow<'_, str>, Fault> {
        let text = self.text;
        let path = match (file_path(text), self.manifest.origin) {
            (Some(path), _) => Cow::Borrowed(path),
            _ if has_scheme(text) => {
                return Err(self.wrong("is a URL that cannot be read", "Use 'file:///…' or an absolute path"));
            }
            _ if text.starts_with('/') => Cow::Borrowed(text),
            (None, Origin::Url(url)) => {
                let folder = file_path(url).and_then(|path| path.rsplit_once('/')).unwrap_or_default().0;
                Cow::Owned(format!("{folder}/{text}"))
            }
            (None, Origin::ConfigMap { .. }) => {
                let remedy = "A ConfigMap lies in no directory: use 'file:///…' or an absolute path";
                return Err(self.wrong("is a relative path", remedy));
            }
        };
        let parts = || path.split('/').skip(1);
        if path.contains('\0') {
            return Err(self.wrong("contains a NUL character", "Remove it"));
        }
        if path.ends_with('/') {
            return Err(self.a_directory());
        }
        if parts().any(|part| part.is_empty() || part == "." || part == "..") {
            return Err(self.wrong("is not a plain path", "Leave out '..', '.' and empty parts"));
        }
        if parts().any(|part| part == FOLDER) {
            return Err(self.wrong("lies under '_hyperflow/'", "Remove it: the files there are Hyperflow's own"));
        }
        Ok(path)
    }

    /// The path below the mount it lies under; of two mounts one in the other, the inner.
    fn relative<'a>(&self, path: &'a str) -> Result<&'a str, Fault> {
        let mounts = &self.manifest.work.brief.spec.workers.volume_mounts;
        let below = mounts.iter().filter_map(|mount| path.strip_prefix(&mount.mount_path)?.strip_prefix('/'));
        below.min_by_key(|relative| relative.len()).ok_or_else(|| {
            let what = "does not lie under the `mountPath` of an entry in `spec.workers.volumeMounts`";
            self.wrong(what, "Mount the volume it is on, or remove it")
        })
    }

    /// What is at the path. `checked` is the folder of the line before, which is mostly the same: to find out where a
    /// folder really is takes longer than all the rest.
    fn look(&self, path: &str, checked: &mut Option<PathBuf>) -> Result<Metadata, Fault> {
        let path = Path::new(path);
        let look = |found: io::Result<Metadata>| {
            found.map_err(
                |error| if is_missing(&error) { self.missing(path) } else { fault::input("look at", path)(error) },
            )
        };
        let mut found = look(fs::symlink_metadata(path))?;
        if found.is_symlink() {
            found = look(fs::metadata(path))?;
            self.manifest.work.on_volume(FailureClass::BadInput, path)?;
        } else if checked.as_deref() != Some(store::parent(path)) {
            self.manifest.work.on_volume(FailureClass::BadInput, store::parent(path))?;
            *checked = Some(store::parent(path).into());
        }
        if found.is_dir() {
            return Err(self.a_directory());
        }
        if !found.is_file() {
            return Err(self.refuse("NoInput", "is not a regular file", "Remove it"));
        }
        Ok(found)
    }

    fn a_directory(&self) -> Fault {
        self.refuse("NoInput", "is a directory", "List its files instead, or set `spec.source.files.url` to it")
    }

    fn missing(&self, path: &Path) -> Fault {
        let hint = lookup::nearest(path).map(|name| format!(" (the nearest is '{name}')")).unwrap_or_default();
        self.refuse("NoInput", &format!("is not there{hint}"), "Put it there, or remove the line")
    }

    fn wrong(&self, what: &str, remedy: &str) -> Fault {
        self.refuse("ManifestInvalid", what, remedy)
    }

    fn refuse(&self, reason: &str, what: &str, remedy: &str) -> Fault {
        let Manifest { origin, field, .. } = self.manifest;
        let message = format!(
            "line {} of {origin}: '{}' {what}. {remedy}. Name the corrected list in `{field}`, which may be changed \
             until there is a plan, or create a new ShardJob.",
            self.number,
            shown(self.text)
        );
        fault::end_job(FailureClass::BadInput, reason, message)
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidFilename)
}

fn has_scheme(text: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    text.split_once("://").is_some_and(|(scheme, _)| !scheme.is_empty() && scheme.chars().all(letter))
}

/// The beginning of a line, on one line of a message.
fn shown(text: &str) -> String {
    let mut shown = String::new();
    for (at, letter) in text.chars().enumerate() {
        if at == SHOWN {
            shown.push('…');
            break;
        }
        if letter.is_control() {
            shown.extend(letter.escape_default());
        } else {
            shown.push(letter);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use hyperflow_api::message::{Failure, Target};
    use serde_json::json;

    use super::*;
    use crate::tests::{Volume, noise, refused, start};

    /// A volume with `in/a`, `in/b/c` and `in/data`, and a list at `lists/list` that is `in/…`'s neighbour.
    struct Listed {
        volume: Volume,
        list: Vec<u8>,
    }

    impl Listed {
        fn new(list: impl AsRef<[u8]>) -> Self {
            let volume = Volume::new(&noise(10), "4Ki");
            for folder in ["in/b", "lists/d"] {
                fs::create_dir_all(volume.path(folder)).unwrap();
            }
            for (path, bytes) in [("in/a", 1), ("in/b/c", 20), ("lists/e ", 5), ("lists/d/f", 6)] {
                fs::write(volume.path(path), noise(bytes)).unwrap();
            }
            Self { volume, list: list.as_ref().into() }
        }

        fn root(&self) -> String {
            self.volume.path("").display().to_string().trim_end_matches('/').into()
        }

        fn url(&self) -> String {
            format!("file://{}/lists/list", self.root())
        }

        /// As a file on the volume, or as a ConfigMap's.
        fn read(&self, by_url: bool, sink: &mut dyn FnMut(&Manifest) -> Result<u64, Fault>) -> Result<u64, Fault> {
            let (path, url) = (self.volume.path("lists/list"), self.url());
            fs::write(&path, &self.list).unwrap();
            let origin = if by_url {
                Origin::Url(&url)
            } else {
                Origin::ConfigMap { name: "regions", key: "list.txt", path: &path }
            };
            let (work, attempt) = (self.volume.work(1), start(Target::Plan, 1, None).attempt);
            sink(&Manifest { work: &work, attempt: &attempt, origin, field: "spec.source.files.manifest" })
        }

        fn files(&self, by_url: bool) -> Result<Vec<Found>, Fault> {
            let mut files = Vec::new();
            let count = self.read(by_url, &mut |manifest| {
                manifest.files(&mut |found| {
                    files.push(found);
                    Ok(())
                })
            })?;
            assert_eq!(count, files.len() as u64);
            Ok(files)
        }

        fn items(&self) -> Result<Vec<String>, Fault> {
            let mut items = Vec::new();
            let count = self.read(false, &mut |manifest| {
                manifest.items(&mut |item| {
                    items.push(item.into());
                    Ok(())
                })
            })?;
            assert_eq!(count, items.len() as u64);
            Ok(items)
        }
    }

    fn items(list: impl AsRef<[u8]>) -> Vec<String> {
        Listed::new(list).items().unwrap()
    }

    #[test]
    fn lines_end_with_either_newline_or_the_file_and_are_otherwise_literal() {
        assert_eq!(items("a\nb\n"), ["a", "b"]);
        assert_eq!(items("a\r\nb\r\nc"), ["a", "b", "c"]);
        assert_eq!(items("\n\r\na\n\n\nb\n\n"), ["a", "b"], "empty lines are none");
        assert_eq!(items(" a \n#b\n\"c\"\n%2F\na\n"), [" a ", "#b", "\"c\"", "%2F", "a"]);
        assert_eq!(items("a\rb\nc\r"), ["a\rb", "c\r"], "a carriage return alone ends nothing");
        assert_eq!(items("\u{feff}a\n\u{feff}b\n"), ["a", "\u{feff}b"], "only the first mark is one");
        assert!(items("").is_empty() && items("\u{feff}").is_empty() && items("\u{feff}\r\n\n").is_empty());
    }

    #[test]
    fn the_longest_item_passes_and_a_longer_one_does_not_with_any_ending() {
        for end in ["\n", "\r\n", ""] {
            for mark in ["", "\u{feff}"] {
                let item = "ä".repeat(LONGEST_ITEM / 2);
                assert_eq!(items(format!("{mark}{item}{end}")), [item.as_str()]);
                let failure = refused(Listed::new(format!("{mark}{item}x{end}")).items());
                assert_eq!((failure.reason.as_str(), failure.ends_job), ("ManifestInvalid", true));
                assert!(failure.message.contains("…' is longer than 1024 bytes"), "{}", failure.message);
            }
        }
        let failure = refused(Listed::new([b"a\n\n".as_slice(), &[b'x'; 1_000_000]].concat()).items());
        assert!(
            failure.message.starts_with("line 3 of key 'list.txt' of ConfigMap 'regions': 'xxx"),
            "{}",
            failure.message
        );
        assert!(failure.message.len() < 500, "{}", failure.message);
    }

    #[test]
    fn an_item_that_is_no_text_is_refused() {
        for (list, what) in [(&b"a\nb\xff\n"[..], "'b\u{fffd}' is not UTF-8"), (b"a\n\0\n", "contains a NUL")] {
            let failure = refused(Listed::new(list).items());
            assert!(failure.message.starts_with("line 2 of ") && failure.message.contains(what), "{}", failure.message);
        }
    }

    #[test]
    fn files_come_in_the_order_of_the_lines_with_their_path_below_the_mount() {
        let mut listed = Listed::new("");
        let root = listed.root();
        listed.list = format!("{root}/in/b/c\nfile://{root}/in/a\r\ne \nd/f\n{root}/in/a").into();
        let files = listed.files(true).unwrap();
        let told: Vec<_> = files.iter().map(|found| (found.path.as_str(), found.size)).collect();
        assert_eq!(told, [("in/b/c", 20), ("in/a", 1), ("lists/e ", 5), ("lists/d/f", 6), ("in/a", 1)]);
        for found in &files {
            assert_eq!(found.url.as_deref(), Some(&*format!("file://{root}/{}", found.path)));
            assert_eq!(found.version, input::version(&fs::metadata(listed.volume.path(&found.path)).unwrap()));
        }
    }

    #[test]
    fn of_two_mounts_the_inner_names_the_file() {
        let mut listed = Listed::new("");
        let root = listed.root();
        let mounts = &mut listed.volume.spec["workers"]["volumeMounts"];
        mounts.as_array_mut().unwrap().push(json!({"name": "data", "mountPath": format!("{root}/in/b")}));
        listed.list = format!("{root}/in/b/c\n{root}/in/a\n").into();
        let paths: Vec<_> = listed.files(false).unwrap().into_iter().map(|found| found.path).collect();
        assert_eq!(paths, ["c", "in/a"]);
    }

    #[test]
    fn a_link_is_the_file_it_leads_to_and_may_not_lead_out() {
        let mut listed = Listed::new("");
        let root = listed.root();
        let elsewhere = tempfile::tempdir().unwrap();
        fs::write(elsewhere.path().join("x"), b"x").unwrap();
        symlink(listed.volume.path("in/b/c"), listed.volume.path("in/link")).unwrap();
        symlink(elsewhere.path().join("x"), listed.volume.path("in/out")).unwrap();
        symlink(elsewhere.path(), listed.volume.path("in/away")).unwrap();
        listed.list = format!("{root}/in/link\n").into();
        assert_eq!(listed.files(false).unwrap()[0].size, 20);
        for out in ["in/out", "in/away/x"] {
            listed.list = format!("{root}/in/a\n{root}/{out}\n").into();
            assert_eq!(refused(listed.files(false)).reason, "OutsideVolumes", "{out}");
        }
    }

    fn refusal(line: &str, by_url: bool) -> Failure {
        let mut listed = Listed::new("");
        let root = listed.root();
        listed.list = format!("{root}/in/a\n\n{}\n", line.replace("ROOT", &root)).into();
        refused(listed.files(by_url))
    }

    #[test]
    fn a_line_that_names_no_file_is_told_with_its_number_and_a_remedy() {
        for (line, by_url, reason, what) in [
            ("s3://bucket/x", true, "ManifestInvalid", "is a URL that cannot be read. Use 'file:///…' or an"),
            ("file://host/x", true, "ManifestInvalid", "is a URL that cannot be read"),
            ("in/a", false, "ManifestInvalid", "is a relative path. A ConfigMap lies in no directory"),
            ("../in/a", true, "ManifestInvalid", "is not a plain path. Leave out '..'"),
            ("ROOT/in/../in/a", false, "ManifestInvalid", "is not a plain path"),
            ("./d/f", true, "ManifestInvalid", "is not a plain path"),
            ("ROOT//in/a", false, "ManifestInvalid", "is not a plain path"),
            ("ROOT/in/a\0", false, "ManifestInvalid", "in/a\\u{0}' contains a NUL character. Remove it"),
            ("ROOT/out/_hyperflow/x", false, "ManifestInvalid", "lies under '_hyperflow/'"),
            ("/elsewhere/x", false, "ManifestInvalid", "does not lie under the `mountPath` of an entry in"),
            ("ROOTx/in/a", false, "ManifestInvalid", "does not lie under the `mountPath` of an entry in"),
            ("ROOT/in/dat", false, "NoInput", "is not there (the nearest is 'data'). Put it there, or"),
            ("ROOT/in/a/x", false, "NoInput", "is not there"),
            ("ROOT/in/b", false, "NoInput", "is a directory. List its files instead"),
            ("ROOT/in/b/", false, "NoInput", "is a directory. List its files instead"),
        ] {
            let failure = refusal(line, by_url);
            assert_eq!((failure.reason.as_str(), failure.ends_job), (reason, true), "{line}: {}", failure.message);
            assert!(failure.message.contains(what), "{line}: {}", failure.message);
            assert!(failure.message.starts_with("line 3 of "), "{}", failure.message);
            let remedy =
                "Name the corrected list in `spec.source.files.manifest`, which may be changed until there is a plan";
            assert!(failure.message.contains(remedy), "{}", failure.message);
        }
    }

    #[test]
    fn a_manifest_that_is_not_there_or_no_file_is_named() {
        let listed = Listed::new("");
        let (work, attempt) = (listed.volume.work(1), start(Target::Plan, 1, None).attempt);
        let told = |origin| {
            let manifest = Manifest { work: &work, attempt: &attempt, origin, field: "spec.source.items.manifest" };
            let failure = refused(manifest.items(&mut |_| Ok(())));
            assert_eq!(failure.reason, "NoInput");
            failure.message
        };
        let (url, folder) = (format!("file://{}/in/dta", listed.root()), format!("file://{}/in", listed.root()));
        let tail = ". Correct `spec.source.items.manifest`: it may be changed until there is a plan.";
        assert_eq!(told(Origin::Url(&url)), format!("'{url}' is not there (the nearest is 'data'){tail}"));
        assert_eq!(told(Origin::Url(&folder)), format!("'{folder}' is not a regular file{tail}"));
        let gone = Origin::ConfigMap { name: "regions", key: "list.txt", path: Path::new("/nowhere/list.txt") };
        assert_eq!(told(gone), format!("key 'list.txt' of ConfigMap 'regions' is not there{tail}"));
    }
}
