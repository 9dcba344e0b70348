//! Processes that programs leave behind: they become children of this one, which reaps them, and kills them when the
//! attempt that they belong to is over.
//!
//! A process that leaves its program's group, and whose parent ends, is listed by the kernel as a child of the first thread
//! of this process. The programs themselves are children of the threads that started them. So nobody's exit status is
//! taken here from whoever waits for it, and looking costs the reading of one short file.

use std::{
    fs::{self, File},
    sync::{
        Mutex, Once, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitOptions, getpgid, getpid, kill_process, set_child_subreaper, waitpid},
};

use super::kernel;
use crate::work::locked;

/// How long the end of what is killed is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// Rest between two looks at it.
const REST: Duration = Duration::from_millis(2);

/// Programs that run now.
static LIVE: Mutex<Vec<Live>> = Mutex::new(Vec::new());

struct Live {
    key: u64,
    /// Known once it is started.
    group: Option<Pid>,
    mark: Option<String>,
}

/// A program that runs or is just being started, to which processes may belong.
#[derive(Debug)]
pub struct Owner {
    key: u64,
    group: Option<Pid>,
    mark: Option<String>,
}

/// Whose a process is.
#[derive(PartialEq)]
enum Of {
    Us,
    Other,
    Unknown,
}

/// From now on orphans come to this process, as they do to the first one of a container anyway.
pub fn adopt_all() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if let Err(error) = set_child_subreaper(Some(getpid())) {
            tracing::warn!(%error, "what programs leave behind is not cleared away");
        }
    });
}

impl Owner {
    /// A program that is about to be started; `mark` will be the HYPERFLOW_EPOCH of its processes.
    pub fn new(mark: Option<String>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let key = NEXT.fetch_add(1, Ordering::Relaxed);
        locked(&LIVE).push(Live { key, group: None, mark: mark.clone() });
        Self { key, group: None, mark }
    }

    /// It runs, in this group.
    pub fn leads(&mut self, group: Pid) {
        self.group = Some(group);
        locked(&LIVE).iter_mut().filter(|live| live.key == self.key).for_each(|live| live.group = Some(group));
    }

    /// The program has ended and is reaped: what it left behind is killed. True if there was nothing.
    pub fn end(&self) -> bool {
        let all = orphans();
        let nothing = all.is_empty();
        let since = Instant::now();
        let mut left = self.kill(all);
        // The one killed may have had children, which are ours then.
        while left && since.elapsed() < PATIENCE {
            thread::sleep(REST);
            left = self.kill(orphans());
        }
        nothing
    }

    /// Kills and reaps what is left; false when nothing was. Whose parent is gone is an orphan only now, so what went is
    /// reason to look again.
    fn kill(&self, orphans: Vec<Pid>) -> bool {
        let mut left = false;
        for pid in orphans {
            let went = reap(pid);
            left |= went;
            if went || self.whose(pid) != Of::Us {
                continue;
            }
            // It is our child and not reaped, so this is still its number.
            let _ = kill_process(pid, Signal::KILL);
            reap(pid);
            left = true;
        }
        left
    }

    fn whose(&self, pid: Pid) -> Of {
        let group = getpgid(Some(pid)).ok();
        let mark = mark(pid);
        let live = locked(&LIVE);
        let others = || live.iter().filter(|live| live.key != self.key);
        if group.is_some() && group == self.group {
            Of::Us
        } else if group.is_some() && others().any(|live| live.group == group) {
            Of::Other
        } else if mark.is_some() {
            // A mark of nobody that lives is nobody else's.
            if mark == self.mark || others().all(|live| live.mark != mark) { Of::Us } else { Of::Other }
        } else if others().next().is_none() {
            Of::Us
        } else {
            Of::Unknown
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        locked(&LIVE).retain(|live| live.key != self.key);
    }
}

/// Takes note of orphans that have ended, for as long as their program runs.
pub fn reap_ended() {
    for pid in orphans() {
        reap(pid);
    }
}

/// Whether it is gone. Nobody else waits for an orphan.
fn reap(pid: Pid) -> bool {
    match waitpid(Some(pid), WaitOptions::NOHANG) {
        Ok(ended) => ended.is_some(),
        Err(error) => error == Errno::CHILD,
    }
}

/// The HYPERFLOW_EPOCH in a process's environment.
fn mark(pid: Pid) -> Option<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let name = b"HYPERFLOW_EPOCH=";
    let value = environment.split(|byte| *byte == 0).find_map(|variable| variable.strip_prefix(name))?;
    Some(String::from_utf8_lossy(value).into_owned())
}

/// Children of this process's first thread that no [`Owner`] is.
fn orphans() -> Vec<Pid> {
    static LISTED: OnceLock<Option<File>> = OnceLock::new();
    let listed = LISTED.get_or_init(|| {
        let path = format!("/proc/self/task/{}/children", getpid());
        File::open(path).ok()
    });
    let children = match listed {
        Some(file) => match kernel::text(file) {
            Ok(text) => text.split_whitespace().filter_map(number).collect(),
            Err(_) => Vec::new(),
        },
        // Some kernels do not list children.
        None => children_of(getpid()),
    };
    if children.is_empty() {
        return children;
    }
    let live = locked(&LIVE);
    children.into_iter().filter(|pid| live.iter().all(|live| live.group != Some(*pid))).collect()
}

fn number(text: &str) -> Option<Pid> {
    text.parse().ok().and_then(Pid::from_raw)
}

/// Children of a process, but for those that another thread may just be starting: they lead a group, and no session.
fn children_of(parent: Pid) -> Vec<Pid> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let is_child = |pid: &Pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name before may have spaces and parentheses in it.
        let after = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().skip(1);
        let numbers: Vec<Option<Pid>> = after.take(3).map(number).collect();
        matches!(numbers[..], [of, group, session] if of == Some(parent) && (group != Some(*pid) || session == Some(*pid)))
    };
    let pids = processes.filter_map(|entry| number(entry.ok()?.file_name().to_str()?));
    pids.filter(is_child).collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn where_the_kernel_lists_no_children_they_are_looked_for() {
        let mut child = Command::new("setsid").args(["sleep", "60"]).spawn().unwrap();
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).unwrap();
        let since = Instant::now();
        while !children_of(getpid()).contains(&pid) && since.elapsed() < PATIENCE {
            thread::sleep(REST);
        }
        assert!(children_of(getpid()).contains(&pid));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!children_of(getpid()).contains(&pid));
    }
}
