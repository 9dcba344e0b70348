//! The plan before it is stored: the input as it is now, listed, put in order and cut, in a file of the worker's own
//! scratch space. However many files there are, a few megabytes of memory hold what is needed of them.

use std::{
    fs::File,
    io::{BufWriter, Read, Write},
    path::Path,
};

use hyperflow_api::message::FailureClass;
use hyperflow_core::{
    job::{Cut, Listing, Source},
    paths::file_path,
    plan::{Draft, Entry, FileEntry, Head, ItemEntry, Numbers, PlanError},
    selection::Selection,
};

use crate::{
    attempt::Attempt,
    fault::{self, Fault},
    input,
    listing::{
        Found,
        manifest::{Manifest, Origin},
        sort::Sorter,
        walk,
    },
    lookup,
    plan_file::PlanFile,
    work::{Work, directory},
};

/// Bytes of paths that are held before they are sorted on disk.
const SORTED_IN_MEMORY: usize = 8 << 20;
/// Where the key of a manifest's ConfigMap is mounted; the operator builds the pods so.
const MANIFEST: &str = "/hyperflow/manifest/list";

/// The plan of the input as it is now.
pub fn make(work: &Work, attempt: &Attempt) -> Result<PlanFile, Fault> {
    let Source { listing, cut } = &work.job.source;
    let mut writer = Writer::new(work, base(listing), cut)?;
    match listing {
        Listing::File(url) => writer.file(one(work, url)?)?,
        Listing::Directory(url, selection) => tree(work, attempt, url, selection, &mut writer)?,
        Listing::Manifest(url) => manifest(work, attempt, Origin::Url(url), &mut writer)?,
        Listing::ConfigMap { name, key } => {
            let origin = Origin::ConfigMap { name, key, path: Path::new(MANIFEST) };
            manifest(work, attempt, origin, &mut writer)?;
        }
        Listing::Items(items) => {
            items.iter().try_for_each(|item| writer.add(&Entry::Item(ItemEntry { item: item.clone() })))?;
        }
        Listing::Numbers { start, count } => {
            writer.add(&Entry::Numbers(Numbers { start: *start, count: *count }))?;
        }
    }
    writer.end()
}

/// What paths are relative to; a manifest names each file by itself.
fn base(listing: &Listing) -> &str {
    match listing {
        Listing::File(url) => &url[..=url.rfind('/').unwrap_or(0)],
        Listing::Directory(url, _) => url,
        Listing::Manifest(_) | Listing::ConfigMap { .. } | Listing::Items(_) | Listing::Numbers { .. } => "",
    }
}

fn one(work: &Work, url: &str) -> Result<Found, Fault> {
    lookup::is_there(url)?;
    let (file, path) = input::open(work, url)?;
    let found = file.metadata().map_err(fault::input("look at", &path))?;
    if !found.is_file() {
        return Err(lookup::no_file(url));
    }
    let path = url.rsplit('/').next().unwrap_or(url).into();
    Ok(Found { path, url: None, size: found.len(), version: input::version(&found) })
}

/// Everything beneath a directory, in the order of its paths.
fn tree(work: &Work, attempt: &Attempt, url: &str, selection: &Selection, to: &mut Writer<'_>) -> Result<(), Fault> {
    lookup::is_directory(url)?;
    let scratch = std::env::temp_dir();
    let mut sorter = Sorter::new(&scratch, SORTED_IN_MEMORY);
    let output = work.job.output.as_ref().map(|output| directory(&output.url));
    let selected = walk::Selection { include: selection.include(), selects: &|path| selection.selects(path) };
    let seen = walk::run(work, attempt, directory(url), output, &selected, &mut |found| {
        sorter.push(&record(&found)).map_err(fault::output("sort paths in", &scratch))
    })?;
    if seen.selected == 0 {
        return Err(lookup::no_match(url, selection.include(), selection.exclude(), &seen));
    }
    let mut sorted = sorter.finish().map_err(fault::output("sort paths in", &scratch))?;
    while let Some(record) = sorted.next().map_err(fault::output("sort paths in", &scratch))? {
        attempt.go_on()?;
        to.file(found(record))?;
    }
    Ok(())
}

/// The path first, because by it they are sorted; a NUL, which is in no path, ends it.
fn record(found: &Found) -> Vec<u8> {
    [found.path.as_bytes(), &[0], &found.size.to_be_bytes(), found.version.as_bytes()].concat()
}

fn found(record: &[u8]) -> Found {
    let end = record.iter().position(|byte| *byte == 0).unwrap_or(record.len());
    let (path, rest) = record.split_at(end);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match rest.get(1..).and_then(|rest| rest.split_first_chunk()) {
        Some((size, version)) => {
            Found { path: text(path), url: None, size: u64::from_be_bytes(*size), version: text(version) }
        }
        None => Found { path: text(path), url: None, size: 0, version: String::new() },
    }
}

fn manifest(work: &Work, attempt: &Attempt, origin: Origin<'_>, to: &mut Writer<'_>) -> Result<(), Fault> {
    let items = matches!(to.cut, Cut::Items { .. });
    let field = if items { "spec.source.items.manifest" } else { "spec.source.files.manifest" };
    let manifest = Manifest { work, attempt, origin, field };
    let entries = match items {
        true => manifest.items(&mut |item| to.add(&Entry::Item(ItemEntry { item: item.into() })))?,
        false => manifest.files(&mut |found| to.file(found))?,
    };
    if entries == 0 {
        let message = format!("{origin} lists nothing. Correct `{field}`: it may be changed until there is a plan");
        return Err(fault::end_job(FailureClass::BadInput, "NoInput", message));
    }
    Ok(())
}

/// Writes entries into the plan.
struct Writer<'a> {
    work: &'a Work,
    base: &'a str,
    cut: &'a Cut,
    draft: Draft,
    file: BufWriter<File>,
}

impl<'a> Writer<'a> {
    fn new(work: &'a Work, base: &'a str, cut: &'a Cut) -> Result<Self, Fault> {
        let scratch = std::env::temp_dir();
        let file = tempfile::tempfile_in(&scratch).map_err(fault::output("write a plan in", &scratch))?;
        let head = Head::new(&work.brief.uid, &work.job.frozen, base, cut);
        let (draft, line) = Draft::new(&head).map_err(|error| not_made(work, &error))?;
        let mut writer = Self { work, base, cut, draft, file: BufWriter::with_capacity(256 << 10, file) };
        writer.line(&line)?;
        Ok(writer)
    }

    fn file(&mut self, found: Found) -> Result<(), Fault> {
        let Found { path, url, size, version } = found;
        let place = url.clone().unwrap_or_else(|| format!("{}{path}", self.base));
        if matches!(self.cut, Cut::Lines { bytes, .. } if size > *bytes) {
            check_splittable(self.work, &place)?;
        }
        self.add(&Entry::File(FileEntry { path, url, size, version }))
    }

    fn add(&mut self, entry: &Entry) -> Result<(), Fault> {
        let line = self.draft.add(entry).map_err(|error| not_made(self.work, &error))?;
        self.line(&line)
    }

    fn line(&mut self, line: &[u8]) -> Result<(), Fault> {
        self.file.write_all(line).map_err(fault::output("write a plan in", &std::env::temp_dir()))
    }

    fn end(mut self) -> Result<PlanFile, Fault> {
        let scratch = std::env::temp_dir();
        let line = self.draft.end().map_err(|error| not_made(self.work, &error))?;
        self.file.write_all(&line).map_err(fault::output("write a plan in", &scratch))?;
        let file =
            self.file.into_inner().map_err(|error| fault::output("write a plan in", &scratch)(error.into_error()))?;
        PlanFile::of(file, &scratch.join("plan"), None)
    }
}

fn not_made(work: &Work, error: &PlanError) -> Fault {
    let raise = match &work.job.source.cut {
        Cut::Files { bytes: None, .. } => "raise `filesPerShard`, or set `bytesPerShard`,",
        Cut::Items { .. } => "raise `itemsPerShard`",
        Cut::Numbers { .. } => "raise `numbersPerShard`",
        _ => "raise `bytesPerShard`",
    };
    let message = match error {
        PlanError::TooManyShards => format!(
            "the input is too much for its shards: {error}; {raise} in `spec.source`, which may be changed until there is \
             a plan"
        ),
        error => format!("the plan cannot be made: {error}"),
    };
    fault::end_job(FailureClass::BadInput, "TooManyShards", message)
}

/// First bytes of what is compressed as a whole: there are no lines to cut between.
const COMPRESSED: [(&str, &[u8]); 5] = [
    ("gzip", &[0x1f, 0x8b]),
    ("zstd", &[0x28, 0xb5, 0x2f, 0xfd]),
    ("xz", &[0xfd, b'7', b'z', b'X', b'Z']),
    ("bzip2", b"BZh"),
    ("lz4", &[0x04, 0x22, 0x4d, 0x18]),
];

fn check_splittable(work: &Work, url: &str) -> Result<(), Fault> {
    let (file, path) = input::open(work, url)?;
    let mut first = Vec::new();
    file.take(8).read_to_end(&mut first).map_err(fault::input("read", &path))?;
    let Some((name, _)) = COMPRESSED.iter().find(|(_, magic)| first.starts_with(magic)) else { return Ok(()) };
    let name_of = file_path(url).and_then(|path| path.rsplit('/').next()).unwrap_or(url);
    let message =
        format!("'{name_of}' is {name} and cannot be cut: set `spec.source.files.boundary` to 'File' ('{url}')");
    Err(fault::end_job(FailureClass::BadInput, "InputNotSplittable", message))
}
