//! What a program has made: checked, copied from the scratch space into staging, and summed on the way.

use std::{
    collections::BTreeMap,
    fs::{self, File, Metadata, OpenOptions},
    io::{ErrorKind, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use hyperflow_core::{
    layout::{FOLDER, Layout},
    program::{
        Program,
        ended::{Left, RESULT_BYTES},
    },
    publish::Content,
};
use rustix::fs::OFlags;

use super::scratch::Scratch;
use crate::{
    direct::Buffer,
    fault::{self, Fault},
    publish::{Publisher, Tree},
    segments::{Crc32c, Writer},
    store,
};

/// Most files in one directory that is published as one.
const MOST_FILES: usize = 100_000;

/// What is copied for whom, and what to say when it cannot be.
pub struct Results<'a> {
    /// Who publishes.
    pub to: &'a Publisher<'a>,
    /// Who made it.
    pub program: &'a Program,
    /// Where it is.
    pub scratch: &'a Scratch<'a>,
    /// The last that the program said.
    pub said: &'a [u8],
}

impl Results<'_> {
    fn refuse(&self, left: &Left) -> Fault {
        Fault::Refused(Box::new(self.program.left(left, self.said)))
    }

    fn other(&self, why: String) -> Fault {
        self.refuse(&Left::Other(why))
    }

    /// What is at HYPERFLOW_OUTPUT; links are not followed.
    fn made(&self) -> Result<Metadata, Fault> {
        match fs::symlink_metadata(self.scratch.output()) {
            Ok(found) => Ok(found),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(self.refuse(&Left::Nothing)),
            Err(error) => Err(self.other(format!("it cannot be looked at: {error}"))),
        }
    }

    /// The file that the program made, staged.
    pub fn file(&self) -> Result<Writer, Fault> {
        let made = self.made()?;
        if !made.is_file() {
            return Err(self.other(format!("it must be a regular file, and is {}", kind(&made))));
        }
        let mut writer = begin(self.to, made.len())?;
        let mut buffer = Buffer::new(self.to.work.chunk());
        self.copy(&self.scratch.output(), &mut writer, &mut Crc32c::default(), &mut buffer)?;
        Ok(writer)
    }

    /// The directory that the program made, staged: every file of it, in the order of their paths.
    pub fn tree(&self) -> Result<Tree, Fault> {
        let made = self.made()?;
        if !made.is_dir() {
            return Err(self.other(format!("it must be a directory, and is {}", kind(&made))));
        }
        let files = self.list()?;
        let Publisher { work, attempt, places, index, .. } = self.to;
        let stage = places.commits.join(work.layout.stage_folder(*index));
        store::make_folder(&stage)?;
        let folder = stage.join(Layout::private("tree", attempt.grant().epoch, &work.worker));
        store::make_folder(&folder)?;
        let mut tree = Tree { folder, files: Vec::new(), content: Content { bytes: 0, crc32c: 0 } };
        let mut all = Crc32c::default();
        let mut buffer = Buffer::new(work.chunk());
        for (path, real) in files {
            let length = fs::metadata(&real).map_or(0, |found| found.len());
            let mut writer = Writer::create(&tree.folder, Tree::file_name(tree.files.len()), length)?;
            self.copy(&real, &mut writer, &mut all, &mut buffer)?;
            writer.sync()?;
            let segment = writer.segment();
            tree.content.bytes += segment.length;
            tree.files.push((path, Content { bytes: segment.length, crc32c: segment.crc32c }));
        }
        tree.content.crc32c = all.value();
        Ok(tree)
    }

    /// Relative paths of the files, and where each really is. Folders without files are not published: an object store
    /// has none either.
    fn list(&self) -> Result<BTreeMap<String, PathBuf>, Fault> {
        let root = self.scratch.output();
        let real_root = fs::canonicalize(&root).map_err(|error| self.other(error.to_string()))?;
        let mut files = BTreeMap::new();
        let mut left = vec![(String::new(), root)];
        while let Some((path, folder)) = left.pop() {
            self.to.attempt.go_on()?;
            let unreadable = |error: std::io::Error| self.other(format!("'{path}' cannot be listed: {error}"));
            for entry in fs::read_dir(&folder).map_err(unreadable)? {
                let entry = entry.map_err(unreadable)?;
                let name = entry.file_name();
                let Some(name) = name.to_str() else {
                    return Err(self.other(format!("the name {name:?} is not UTF-8")));
                };
                let path = if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
                let found = fs::symlink_metadata(entry.path()).map_err(unreadable)?;
                if found.is_dir() {
                    left.push((path, entry.path()));
                    continue;
                }
                let real = if found.is_symlink() {
                    self.target(&path, &entry.path(), &real_root)?
                } else if found.is_file() {
                    entry.path()
                } else {
                    return Err(self.other(format!("'{path}' is {}", kind(&found))));
                };
                files.insert(path, real);
                if files.len() > MOST_FILES {
                    return Err(self.other(format!("it has more than {MOST_FILES} files")));
                }
            }
        }
        if files.contains_key(FOLDER) || files.keys().any(|path| path.starts_with(&format!("{FOLDER}/"))) {
            return Err(self.other(format!("'{FOLDER}' is Hyperflow's own name")));
        }
        Ok(files)
    }

    /// A link within the directory stands for the file that it leads to.
    fn target(&self, path: &str, link: &Path, root: &Path) -> Result<PathBuf, Fault> {
        let dead = |error| self.other(format!("'{path}' is a link that leads nowhere: {error}"));
        let real = fs::canonicalize(link).map_err(dead)?;
        if !real.starts_with(root) {
            return Err(self.other(format!("'{path}' is a link that leads out of it, to '{}'", real.display())));
        }
        if !real.is_file() {
            return Err(self.other(format!("'{path}' is a link to something that is no file")));
        }
        Ok(real)
    }

    fn copy(&self, from: &Path, to: &mut Writer, all: &mut Crc32c, buffer: &mut Buffer) -> Result<(), Fault> {
        let unreadable = |error| self.other(format!("'{}' cannot be read: {error}", from.display()));
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let opened = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(from);
        let mut file = opened.map_err(unreadable)?;
        loop {
            let length = fill(&mut file, buffer).map_err(unreadable)?;
            if length == 0 {
                return Ok(());
            }
            self.to.work.pace(length as u64, self.to.attempt)?;
            to.append(&buffer[..length])?;
            all.update(&buffer[..length]);
            self.to.work.metrics.bytes_written.inc_by(length as u64);
        }
    }
}

/// What a program says of its shard, for the report.
pub fn text(program: &Program, scratch: &Scratch<'_>, said: &[u8]) -> Result<Option<String>, Fault> {
    let refuse = |left: &Left| Fault::Refused(Box::new(program.left(left, said)));
    let path = scratch.result();
    match fs::symlink_metadata(&path) {
        Ok(found) if found.is_file() && found.len() > RESULT_BYTES => Err(refuse(&Left::LargeResult(found.len()))),
        Ok(found) if found.is_file() => {
            let bytes = fs::read(&path).map_err(fault::output("read", &path))?;
            String::from_utf8(bytes).map(Some).map_err(|_| refuse(&Left::StrangeResult))
        }
        Ok(_) => Err(refuse(&Left::StrangeResult)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(fault::output("look at", &path)(error)),
    }
}

/// An attempt's own file in staging, for about `expected` bytes.
pub fn begin(to: &Publisher<'_>, expected: u64) -> Result<Writer, Fault> {
    let Publisher { work, attempt, places, index, .. } = to;
    let folder = places.commits.join(work.layout.stage_folder(*index));
    store::make_folder(&folder)?;
    Writer::create(&folder, Layout::segment(attempt.grant().epoch, &work.worker), expected)
}

fn fill(file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn kind(found: &Metadata) -> &'static str {
    match found {
        found if found.is_symlink() => "a link",
        found if found.is_dir() => "a directory",
        found if found.is_file() => "a file",
        _ => "a pipe, a socket or a device",
    }
}
