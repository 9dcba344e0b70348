//! Files of the kernel's that are needed again and again: they stay open, so that none is looked up for each program.

use std::{fs::File, io, os::unix::fs::FileExt, sync::OnceLock};

/// What such a file says now: one call, where it is short.
pub fn text(file: &File) -> io::Result<String> {
    let mut buffer = [0; 1024];
    let mut bytes = Vec::new();
    loop {
        let read = file.read_at(&mut buffer, bytes.len() as u64)?;
        bytes.extend_from_slice(&buffer[..read]);
        // The kernel fills the buffer where there is more.
        if read < buffer.len() {
            return Ok(String::from_utf8_lossy(&bytes).into_owned());
        }
    }
}

/// /dev/null.
pub fn nothing() -> io::Result<&'static File> {
    static NOTHING: OnceLock<File> = OnceLock::new();
    match NOTHING.get() {
        Some(file) => Ok(file),
        None => File::open("/dev/null").map(|file| NOTHING.get_or_init(|| file)),
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    #[test]
    fn a_file_says_each_time_what_is_so_then() {
        let file = File::open("/proc/thread-self/children").unwrap();
        assert_eq!(text(&file).unwrap(), "");
        // So many that they do not fit into one reading.
        let start = |_| Command::new("sleep").arg("60").spawn().unwrap();
        let mut children: Vec<Child> = (0..250).map(start).collect();
        let listed = text(&file).unwrap();
        for child in &mut children {
            assert!(listed.split_whitespace().any(|pid| pid == child.id().to_string()), "{listed}");
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert_eq!(text(&file).unwrap(), "");
    }
}
