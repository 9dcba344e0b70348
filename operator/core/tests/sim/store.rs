//! The output store of the model: files whose bytes and names are durable only once they are synced, create-only links
//! (P5), and power that fails.

use std::collections::{BTreeMap, BTreeSet};

use hyperflow_api::{ids::ShardIndex, message::Checkpoint};
use hyperflow_core::{
    checkpoint::digest,
    invariants::{self, demand},
    ranges::RangeSet,
};

use super::chance::{Chance, mix};

/// Bytes of a shard.
pub const SHARD_BYTES: usize = 120;

/// What a shard's result must be, computed without anything that could be wrong.
pub fn reference(index: ShardIndex) -> Vec<u8> {
    (0..SHARD_BYTES).map(|place| reference_byte(index, place)).collect()
}

pub fn reference_byte(index: ShardIndex, place: usize) -> u8 {
    mix((u64::from(index) << 32) | (place as u64 + 1)).to_le_bytes()[0]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileId(pub u64);

struct File {
    shard: ShardIndex,
    bytes: Vec<u8>,
    synced: usize,
    /// Its private name is there, and there for good.
    named: bool,
    name_durable: bool,
}

struct Manifest {
    bytes: Vec<u8>,
    name_durable: bool,
}

/// A name that was linked to a file, create-only.
struct Link {
    file: FileId,
    durable: bool,
}

#[derive(Default)]
pub struct Store {
    files: BTreeMap<FileId, File>,
    last: u64,
    manifests: BTreeMap<(ShardIndex, u64, u64), Manifest>,
    commits: BTreeMap<ShardIndex, Link>,
    names: BTreeMap<ShardIndex, Link>,
    /// Staging folders are gone for good: the job was swept.
    pub swept: bool,
    /// How often the last command ran to its end.
    pub finished: u64,
    /// The run whose folders these are.
    run: u32,
    /// Without an output nothing is published: what was done, at least once (P10).
    pub executed: BTreeSet<ShardIndex>,
    /// Durable lines: a shard, and whether its author found it committed (P9).
    pub records: Vec<(ShardIndex, bool)>,
    /// Everything that a worker ever said is published.
    reported: RangeSet,
}

impl Store {
    pub fn create(&mut self, shard: ShardIndex) -> FileId {
        self.last += 1;
        let file = File { shard, bytes: Vec::new(), synced: 0, named: true, name_durable: false };
        self.files.insert(FileId(self.last), file);
        FileId(self.last)
    }

    pub fn append(&mut self, id: FileId, bytes: &[u8]) {
        if let Some(file) = self.files.get_mut(&id) {
            file.bytes.extend_from_slice(bytes);
        }
    }

    pub fn read(&self, id: FileId) -> &[u8] {
        self.files.get(&id).map_or(&[], |file| &file.bytes)
    }

    pub fn sync(&mut self, id: FileId) {
        if let Some(file) = self.files.get_mut(&id) {
            file.synced = file.bytes.len();
        }
    }

    /// The names in a shard's staging folder.
    pub fn sync_names(&mut self, shard: ShardIndex) {
        self.files.values_mut().filter(|file| file.shard == shard).for_each(|file| file.name_durable = true);
    }

    pub fn write_manifest(&mut self, shard: ShardIndex, number: u64, bytes: Vec<u8>) -> u64 {
        let digest = digest(&bytes);
        self.manifests.entry((shard, number, digest)).or_insert(Manifest { bytes, name_durable: false });
        digest
    }

    pub fn sync_manifests(&mut self, shard: ShardIndex) {
        let of_shard = (shard, 0, 0)..=(shard, u64::MAX, u64::MAX);
        self.manifests.range_mut(of_shard).for_each(|(_, manifest)| manifest.name_durable = true);
    }

    pub fn manifest(&self, shard: ShardIndex, checkpoint: Checkpoint) -> Option<&[u8]> {
        let key = (shard, checkpoint.number, checkpoint.digest);
        self.manifests.get(&key).map(|manifest| manifest.bytes.as_slice())
    }

    /// A staged file by its name in a manifest, if it is there and so long.
    pub fn segment(&self, name: &str, length: u64) -> Option<FileId> {
        let id = FileId(name.parse().ok()?);
        self.files.get(&id).filter(|file| file.named && file.bytes.len() as u64 >= length).map(|_| id)
    }

    /// Whether a checkpoint would outlive a failure of power: its manifest, and the segments that this names.
    pub fn is_durable(&self, shard: ShardIndex, checkpoint: Checkpoint) -> bool {
        let Some(manifest) = self.manifests.get(&(shard, checkpoint.number, checkpoint.digest)) else { return false };
        let Ok(read) = serde_json::from_slice::<hyperflow_core::checkpoint::Manifest>(&manifest.bytes) else {
            return false;
        };
        let safe = |segment: &hyperflow_core::checkpoint::Segment| {
            let file = segment.name.parse().ok().and_then(|id| self.files.get(&FileId(id)));
            file.is_some_and(|file| file.name_durable && file.synced as u64 >= segment.length)
        };
        manifest.name_durable && read.segments.iter().all(safe)
    }

    pub fn is_committed(&self, shard: ShardIndex) -> bool {
        self.commits.contains_key(&shard)
    }

    pub fn is_staged(&self, id: FileId) -> bool {
        !self.swept && self.files.get(&id).is_some_and(|file| file.named)
    }

    /// True for the first.
    pub fn commit(&mut self, shard: ShardIndex, file: FileId) -> bool {
        let first = self.commits.get(&shard).is_none_or(|commit| commit.file == file);
        if first {
            self.commits.entry(shard).or_insert(Link { file, durable: false });
        }
        first
    }

    pub fn sync_commit(&mut self, shard: ShardIndex) {
        if let Some(commit) = self.commits.get_mut(&shard) {
            commit.durable = true;
        }
    }

    pub fn sync_found(&mut self, shard: ShardIndex) {
        if let Some(file) = self.commits.get(&shard).map(|commit| commit.file) {
            self.sync(file);
            self.sync_commit(shard);
        }
    }

    pub fn committed_bytes(&self, shard: ShardIndex) -> Option<&[u8]> {
        self.commits.get(&shard).map(|commit| self.read(commit.file))
    }

    /// The name that the user asked for. False if another file has it.
    pub fn name(&mut self, shard: ShardIndex) -> bool {
        let Some(file) = self.commits.get(&shard).map(|commit| commit.file) else { return false };
        let link = self.names.entry(shard).or_insert(Link { file, durable: false });
        let ours = link.file == file;
        link.durable |= ours;
        ours
    }

    /// Everything that a reader of this shard's result relies on would outlive a failure of power.
    pub fn is_published_for_good(&self, shard: ShardIndex) -> bool {
        let whole = |link: &Link| self.files.get(&link.file).is_some_and(|file| file.synced == SHARD_BYTES);
        let good =
            |links: &BTreeMap<ShardIndex, Link>| links.get(&shard).is_some_and(|link| link.durable && whole(link));
        self.executed.contains(&shard) || good(&self.commits) && good(&self.names)
    }

    /// A worker says that a shard is published.
    pub fn report(&mut self, shard: ShardIndex) {
        self.reported.insert(shard);
        let reported = RangeSet::of(shard..shard + 1);
        demand(invariants::commits_stay(&reported, |index| self.is_published_for_good(index)));
    }

    /// Removes a shard's staging. Files that a commit links to stay, without their private names.
    pub fn remove_staging(&mut self, shard: ShardIndex) {
        self.manifests.retain(|(of, ..), _| *of != shard);
        self.files.values_mut().filter(|file| file.shard == shard).for_each(|file| file.named = false);
    }

    /// Another run has folders of its own, which no sweep of an earlier one takes away.
    pub fn begin_run(&mut self, run: u32) {
        if run > self.run {
            (self.run, self.swept) = (run, false);
        }
    }

    /// Status was restored and speaks of this run: there are no others as far as anybody knows.
    pub fn back_in_run(&mut self, run: u32) {
        self.run = run;
    }

    pub fn sweep(&mut self, run: u32) {
        if run < self.run {
            return;
        }
        self.swept = true;
        self.manifests.clear();
        self.files.values_mut().for_each(|file| file.named = false);
    }

    /// What is temporary and still there.
    pub fn leftovers(&self) -> Vec<String> {
        let manifests = self.manifests.keys().map(|(shard, number, _)| format!("checkpoint {number} of shard {shard}"));
        let staged =
            self.files.values().filter(|file| file.named).map(|file| format!("staging of shard {}", file.shard));
        manifests.chain(staged).collect()
    }

    /// What was not synced is gone, whole or in part, as chance will have it.
    pub fn lose_power(&mut self, chance: &mut Chance) {
        for file in self.files.values_mut().filter(|file| file.synced < file.bytes.len()) {
            let rest = file.bytes.len() - file.synced;
            let kept = file.synced + usize::try_from(chance.below(rest as u64 + 1)).unwrap();
            let length = file.bytes.len();
            file.bytes.truncate(kept);
            if chance.once_in(2) {
                // The length was written, the bytes were not.
                file.bytes.resize(length, 0);
            }
        }
        let mut lost = |durable: bool| !durable && chance.once_in(2);
        self.files.values_mut().for_each(|file| file.named &= !lost(file.name_durable));
        self.manifests.retain(|_, manifest| !lost(manifest.name_durable));
        self.commits.retain(|_, link| !lost(link.durable));
        self.names.retain(|_, link| !lost(link.durable));
        let (reported, files) = (self.reported.clone(), &self.files);
        let there = |index: ShardIndex| {
            let whole = |link: &Link| files.get(&link.file).is_some_and(|file| file.bytes.len() == SHARD_BYTES);
            self.executed.contains(&index) || self.commits.get(&index).is_some_and(whole)
        };
        demand(invariants::commits_stay(&reported, there));
    }

    pub fn published(&self) -> impl Iterator<Item = ShardIndex> {
        self.commits.keys().copied()
    }
}
