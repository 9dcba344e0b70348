//! The store on a volume: one file for each replica, complete and immutable once it has its name.
//!
//! ```text
//! {dir}/uuid
//! {dir}/{job}/tmp/{pod}.{nonce}.{number}        being written
//! {dir}/{job}/{group}/{shard}.{part}.{version}  a replica
//! {dir}/{job}/{group}/….corrupt                 one that was found damaged
//! ```
//!
//! Two processes may share a volume: names are created by renaming whole files, and nobody removes what another one may be
//! writing.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, ErrorKind},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use hyperflow_api::ids::{JobUid, WorkerId};

use super::{
    error::{BlockError, disk},
    replica::{CORRUPT, Crc, HEADER, Head, JobTag, Name},
    room::{Reserved, Room},
    setting_up,
    writing::Writing,
};
use crate::work::locked;

/// Bytes read at a time when a replica is verified.
const STEP: usize = 1 << 20;

/// The replicas of one job on a volume.
#[derive(Debug)]
pub struct Disk {
    folder: PathBuf,
    tag: JobTag,
    uuid: String,
    owner: String,
    room: Arc<Room>,
    next: AtomicU64,
    /// When this process last read all of a replica and found it sound.
    verified: Mutex<BTreeMap<Name, Instant>>,
}

/// A file in a group's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which.
    pub name: Name,
    /// It was found damaged before.
    pub corrupt: bool,
}

/// An open replica, verified: its file stays readable when its name goes.
#[derive(Debug)]
pub struct Replica {
    file: File,
    head: Head,
}

impl Replica {
    /// Of a file that has this head, and the bytes that it says.
    pub fn new(file: File, head: Head) -> Self {
        Self { file, head }
    }

    /// What its header says.
    pub fn head(&self) -> Head {
        self.head
    }

    /// Fills the buffer from a byte of its data on.
    pub fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, HEADER as u64 + offset)
    }
}

impl Disk {
    /// Opens the store in `root` for a job, makes it if need be, and removes what dead processes left half written.
    pub fn open(root: &Path, job: &JobUid, me: &WorkerId, limit: Option<u64>) -> Result<Self, BlockError> {
        let set = setting_up::set_up(root, job, me, limit)?;
        Ok(Self {
            folder: set.folder,
            tag: JobTag::new(job),
            uuid: set.uuid,
            owner: setting_up::owner(me),
            room: Room::new(set.limit, set.used),
            next: AtomicU64::new(0),
            verified: Mutex::default(),
        })
    }

    /// The store's own UUID (P30).
    pub fn uuid(&self) -> &str {
        &self.uuid
    }

    /// The job's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// How much may be kept.
    pub fn room(&self) -> &Arc<Room> {
        &self.room
    }

    /// Begins to write a replica of `length` bytes.
    pub fn begin(&self, name: Name, length: u64) -> Result<Writing, BlockError> {
        let reserved = self.room.reserve(length + HEADER as u64)?;
        self.write(name, length, reserved)
    }

    /// Begins to write what is read once and not kept: the limit is for replicas.
    pub fn borrow(&self, name: Name, length: u64) -> Result<Writing, BlockError> {
        self.write(name, length, Reserved::nothing(&self.room))
    }

    fn write(&self, name: Name, length: u64, reserved: Reserved) -> Result<Writing, BlockError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let folder = self.folder.join(setting_up::TEMPORARY);
        let path = folder.join(format!("{}.{number}", self.owner));
        Writing::begin(path, name, length, self.tag, reserved)
    }

    /// Gives what was written whole its name.
    pub fn keep(&self, writing: Writing) -> Result<(), BlockError> {
        let name = writing.name();
        writing.keep(&self.group(name.group), &self.path(&name))?;
        // It is another file than one that was verified before under this name.
        locked(&self.verified).remove(&name);
        Ok(())
    }

    /// The folder of a group.
    fn group(&self, group: u32) -> PathBuf {
        self.folder.join(group.to_string())
    }

    fn path(&self, name: &Name) -> PathBuf {
        self.group(name.group).join(name.file())
    }

    /// Opens a replica and looks at its header. None if there is none.
    fn look(&self, name: &Name) -> Result<Option<Replica>, BlockError> {
        let path = self.path(name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(disk("open the replica", &path)(error)),
        };
        let damaged = |why| BlockError::Damaged { path: path.clone(), why };
        let mut bytes = [0; HEADER];
        match file.read_exact_at(&mut bytes, 0) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Err(damaged("it has no whole header")),
            read => read.map_err(disk("read the replica", &path))?,
        }
        let head = Head::decode(&bytes, self.tag).filter(|head| head.is_of(name));
        let head = head.ok_or_else(|| damaged("its header is not that of this block"))?;
        let length = file.metadata().map_err(disk("look at the replica", &path))?.len();
        if length != head.length + HEADER as u64 {
            return Err(damaged("its length is not what its header says"));
        }
        Ok(Some(Replica { file, head }))
    }

    /// Opens a replica whose data is verified by whoever reads all of it.
    pub fn open_unread(&self, name: &Name) -> Result<Option<Replica>, BlockError> {
        self.look(name)
    }

    /// What the header of a replica says, if that is sound. Its data is not read.
    pub fn head(&self, name: &Name) -> Result<Option<Head>, BlockError> {
        Ok(self.look(name)?.map(|replica| replica.head))
    }

    /// Opens a replica and verifies all of its data: that it was sound an hour ago says nothing of now.
    pub fn open_sound(&self, name: &Name) -> Result<Option<Replica>, BlockError> {
        let Some(replica) = self.look(name)? else { return Ok(None) };
        self.verify(name, &replica, |_| {})?;
        Ok(Some(replica))
    }

    /// Reads all of a replica again; `pause` is called with the bytes of each step.
    pub fn scrub(&self, name: &Name, pause: impl FnMut(u64)) -> Result<(), BlockError> {
        match self.look(name)? {
            Some(replica) => self.verify(name, &replica, pause),
            None => Ok(()),
        }
    }

    fn verify(&self, name: &Name, replica: &Replica, mut pause: impl FnMut(u64)) -> Result<(), BlockError> {
        let length = replica.head.length;
        let mut buffer = vec![0; usize::try_from(length).unwrap_or(STEP).min(STEP)];
        let (mut crc, mut at) = (Crc::new(), 0);
        while at < length {
            let step = usize::try_from(length - at).unwrap_or(STEP).min(STEP);
            replica.read(&mut buffer[..step], at).map_err(disk("read the replica", &self.path(name)))?;
            crc.update(&buffer[..step]);
            at += step as u64;
            pause(step as u64);
        }
        if crc.value() != replica.head.crc32c {
            return Err(BlockError::Damaged { path: self.path(name), why: "its checksum is not that of its data" });
        }
        locked(&self.verified).insert(*name, Instant::now());
        Ok(())
    }

    /// When this process has last read all of it.
    pub fn verified_at(&self, name: &Name) -> Option<Instant> {
        locked(&self.verified).get(name).copied()
    }

    /// Puts a damaged replica aside: it is never read again.
    pub fn put_aside(&self, name: &Name) -> Result<(), BlockError> {
        let path = self.path(name);
        let aside = path.with_file_name(format!("{}{CORRUPT}", name.file()));
        locked(&self.verified).remove(name);
        match fs::rename(&path, &aside) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            renamed => renamed.map_err(disk("rename the damaged replica", &path)),
        }
    }

    /// What is in a group's folder.
    pub fn list(&self, group: u32) -> Result<Vec<Found>, BlockError> {
        let folder = self.group(group);
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(disk("list", &folder)(error)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(disk("list", &folder))?;
            let read = entry.file_name().to_str().and_then(|file| Name::read(group, file));
            found.extend(read.map(|(name, corrupt)| Found { name, corrupt }));
        }
        Ok(found)
    }

    /// Groups that have a folder.
    pub fn groups(&self) -> Result<Vec<u32>, BlockError> {
        let mut groups = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(disk("list", &self.folder))? {
            let entry = entry.map_err(disk("list", &self.folder))?;
            groups.extend(entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
        }
        groups.sort_unstable();
        Ok(groups)
    }

    /// Removes a file of a group. Whoever has it open reads on.
    pub fn remove(&self, found: &Found) -> Result<(), BlockError> {
        let suffix = if found.corrupt { CORRUPT } else { "" };
        let path = self.group(found.name.group).join(format!("{}{suffix}", found.name.file()));
        let bytes = fs::symlink_metadata(&path).map(|metadata| metadata.len()).unwrap_or(0);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            removed => removed.map_err(disk("remove", &path))?,
        }
        self.room.give_back(bytes);
        if !found.corrupt {
            locked(&self.verified).remove(&found.name);
        }
        Ok(())
    }
}
