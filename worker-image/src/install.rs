//! Puts this very program where a container of another image finds it: what the init container of a pod with the user's
//! image does.

use std::{fs, io, os::unix::fs::PermissionsExt, path::PathBuf};

use clap::Parser;

/// The first argument that asks for it.
pub const NAME: &str = "install";

/// Copies this program to a path, from where a container of any image can start it.
#[derive(Clone, Debug, Parser)]
#[command(name = "hyperflow-worker install")]
pub struct Install {
    /// Where to
    path: PathBuf,
}

impl Install {
    /// Copies it, whole or not at all.
    pub fn run(&self) -> Result<(), io::Error> {
        let part = self.path.with_extension("part");
        fs::copy(std::env::current_exe()?, &part)?;
        fs::set_permissions(&part, fs::Permissions::from_mode(0o755))?;
        fs::rename(part, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_installed_is_this_program_and_can_be_started() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("worker");
        let twice = Install { path: path.clone() };
        twice.run().unwrap();
        twice.run().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(fs::metadata(&path).unwrap().len(), fs::metadata(std::env::current_exe().unwrap()).unwrap().len());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
