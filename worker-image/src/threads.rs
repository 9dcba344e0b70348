//! Threads for attempts. One that has nothing more to do waits a while for the next attempt: to start a thread costs more
//! than a short program's worker does otherwise.

use std::{
    fmt, io,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::Duration,
};

use crate::work::locked;

/// How long a thread waits for something to do before it ends.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a thread does: its work, which gives what is to be said of it. That is said when the thread can be used again, so
/// that who hears it finds a free one.
type Job = Box<dyn FnOnce() -> Said + Send>;
type Said = Box<dyn FnOnce()>;

/// Threads that wait.
#[derive(Debug, Default)]
pub struct Threads {
    idle: Arc<Mutex<Vec<Idle>>>,
}

struct Idle {
    key: u64,
    jobs: Sender<Job>,
}

impl fmt::Debug for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Idle").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Threads {
    /// Does `work` in a thread, then says what it gives. It must not panic.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn run<S: FnOnce() + 'static>(&self, work: impl FnOnce() -> S + Send + 'static) -> io::Result<()> {
        let mut job: Job = Box::new(move || Box::new(work()));
        // The one that waits for the shortest time: the others may end.
        while let Some(idle) = self.pop() {
            match idle.jobs.send(job) {
                Ok(()) => return Ok(()),
                // Such a thread is gone, which none is while it is listed.
                Err(mpsc::SendError(back)) => job = back,
            }
        }
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let key = NEXT.fetch_add(1, Ordering::Relaxed);
        let all = Arc::downgrade(&self.idle);
        thread::Builder::new().name(format!("run-{key}")).spawn(move || live(key, job, &all)).map(drop)
    }

    fn pop(&self) -> Option<Idle> {
        locked(&self.idle).pop()
    }
}

/// The life of a thread.
fn live(key: u64, first: Job, all: &Weak<Mutex<Vec<Idle>>>) {
    let mut job = first;
    loop {
        let say = job();
        let Some(idle) = all.upgrade() else { return say() };
        // The list has the only sender, so that a thread ends with it.
        let (sender, jobs) = mpsc::channel();
        locked(&idle).push(Idle { key, jobs: sender });
        drop(idle);
        say();
        let Some(next) = next(key, &jobs, all) else { return };
        job = next;
    }
}

/// What there is to do next; nothing for too long is nothing any more.
fn next(key: u64, jobs: &Receiver<Job>, all: &Weak<Mutex<Vec<Idle>>>) -> Option<Job> {
    match jobs.recv_timeout(PATIENCE) {
        Ok(job) => return Some(job),
        Err(RecvTimeoutError::Disconnected) => return None,
        Err(RecvTimeoutError::Timeout) => {}
    }
    let idle = all.upgrade()?;
    let mut idle = locked(&idle);
    let listed = idle.iter().position(|one| one.key == key);
    match listed {
        Some(place) => {
            idle.remove(place);
            None
        }
        // Somebody took it just now, and has something to do.
        None => {
            drop(idle);
            jobs.recv().ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        sync::Barrier,
        thread::{ThreadId, current},
    };

    use super::*;

    #[test]
    fn who_hears_of_an_end_finds_the_thread_free() {
        let threads = Threads::default();
        let (tell, told) = mpsc::channel();
        let mut used = BTreeSet::new();
        for _ in 0..100 {
            let tell = tell.clone();
            let work = move || {
                let name = current().name().map(str::to_owned);
                move || tell.send(name).unwrap()
            };
            threads.run(work).unwrap();
            used.insert(told.recv().unwrap());
        }
        assert_eq!(used.len(), 1, "{used:?}");
        assert_eq!(locked(&threads.idle).len(), 1);
    }

    #[test]
    fn as_many_threads_as_are_needed_run_at_once() {
        let threads = Threads::default();
        let together = Arc::new(Barrier::new(8));
        let (tell, told) = mpsc::channel::<ThreadId>();
        for _ in 0..3 {
            for _ in 0..8 {
                let (tell, together) = (tell.clone(), together.clone());
                let work = move || {
                    together.wait();
                    move || tell.send(current().id()).unwrap()
                };
                threads.run(work).unwrap();
            }
            let used: Vec<ThreadId> = told.iter().take(8).collect();
            assert!((0..8).all(|one| !used[..one].contains(&used[one])));
            assert_eq!(locked(&threads.idle).len(), 8);
        }
    }

    #[test]
    fn threads_end_with_who_had_them() {
        let threads = Threads::default();
        let (tell, told) = mpsc::channel();
        let (release, held) = mpsc::channel::<()>();
        let work = move || {
            held.recv().unwrap();
            move || tell.send(()).unwrap()
        };
        threads.run(work).unwrap();
        let idle = Arc::downgrade(&threads.idle);
        drop(threads);
        release.send(()).unwrap();
        assert_eq!(told.iter().count(), 1);
        assert!(idle.upgrade().is_none());
    }
}
