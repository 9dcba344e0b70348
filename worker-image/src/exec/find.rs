//! Which file a program is: looked for as execvp does.

use std::{
    ffi::{OsStr, OsString},
    io::ErrorKind,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Mutex,
};

use hyperflow_core::program::ended::NotStarted;
use rustix::fs::{Access, access};

use super::environment::Environment;
use crate::work::locked;

/// Where programs are looked for when PATH is not set, as execvp does.
const PATH: &str = "/bin:/usr/bin";

/// Where the program of a job was found last: the next attempt runs the same one. If it has gone meanwhile, its start
/// says so.
#[derive(Debug, Default)]
pub struct Found(Mutex<Option<Last>>);

#[derive(Debug)]
struct Last {
    name: OsString,
    search: OsString,
    path: PathBuf,
}

impl Found {
    /// The file of a program that starts in `dir`, in the PATH that it will have itself.
    pub fn find(&self, name: &OsStr, environment: &Environment, dir: Option<&Path>) -> Result<PathBuf, NotStarted> {
        let search = environment.get("PATH").unwrap_or(OsStr::new(PATH));
        if dir.is_some() {
            return find(name, search, dir);
        }
        if let Some(last) = locked(&self.0).as_ref().filter(|last| last.name == name && last.search == search) {
            return Ok(last.path.clone());
        }
        let path = find(name, search, None)?;
        *locked(&self.0) = Some(Last { name: name.into(), search: search.into(), path: path.clone() });
        Ok(path)
    }

    /// It is looked for anew next time.
    pub fn forget(&self) {
        *locked(&self.0) = None;
    }
}

/// Finds a program in the folders of `search`, as execvp does.
fn find(name: &OsStr, search: &OsStr, dir: Option<&Path>) -> Result<PathBuf, NotStarted> {
    if name.as_encoded_bytes().contains(&b'/') {
        let path = Path::new(name);
        return match look(&from(dir, path)) {
            Look::Missing => Err(NotStarted::NoFile),
            Look::Denied => Err(NotStarted::Denied),
            Look::Good => Ok(path.into()),
        };
    }
    let mut denied = false;
    for folder in std::env::split_paths(search) {
        // An empty part is the working directory.
        let path = if folder.as_os_str().is_empty() { Path::new(".").join(name) } else { folder.join(name) };
        match look(&from(dir, &path)) {
            Look::Missing => {}
            Look::Denied => denied = true,
            Look::Good => return Ok(path),
        }
    }
    Err(if denied { NotStarted::Denied } else { NotStarted::NoFile })
}

enum Look {
    Missing,
    Denied,
    Good,
}

fn look(path: &Path) -> Look {
    match path.metadata() {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Look::Denied,
        Err(_) => Look::Missing,
        // Root may execute what anybody may.
        Ok(found) if !found.is_file() || found.permissions().mode() & 0o111 == 0 => Look::Denied,
        Ok(_) => {
            if access(path, Access::EXEC_OK).is_ok() {
                Look::Good
            } else {
                Look::Denied
            }
        }
    }
}

/// A path as it is from here.
pub fn from(dir: Option<&Path>, path: &Path) -> PathBuf {
    dir.map_or_else(|| path.into(), |dir| dir.join(path))
}
