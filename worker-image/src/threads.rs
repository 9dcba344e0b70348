//! Threads for attempts, one for each slot. An attempt that is given while all are busy waits in line: the thread that is
//! free first begins it at once, without the session's loop in between. A thread that has nothing to do waits a while for
//! the next: to start one costs more than a short program's worker does otherwise.

use std::{
    collections::VecDeque,
    fmt, io,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::Duration,
};

use crate::work::locked;

/// How long a thread waits for something to do before it ends.
const PATIENCE: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce() + Send>;

/// Threads that work, or wait for work.
#[derive(Debug)]
pub struct Threads {
    shared: Arc<Shared>,
    most: usize,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    more: Condvar,
}

#[derive(Default)]
struct State {
    line: VecDeque<Job>,
    /// Threads that wait, each of which takes one job when there are any.
    idle: usize,
    all: usize,
    /// Who has them is gone.
    closed: bool,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, idle, all, closed } = self;
        let mut shown = f.debug_struct("State");
        shown.field("line", &line.len()).field("idle", idle).field("all", all).field("closed", closed).finish()
    }
}

impl Threads {
    /// So many threads, of which none has been started.
    pub fn new(most: usize) -> Self {
        Self { shared: Arc::default(), most: most.max(1) }
    }

    /// Does `job` in a thread, after all that were given before it have begun. It must not panic.
    ///
    /// # Errors
    /// When a thread is needed and cannot be started.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let mut state = locked(&self.shared.state);
        state.line.push_back(Box::new(job));
        if state.line.len() <= state.idle || state.all == self.most {
            drop(state);
            self.shared.more.notify_one();
            return Ok(());
        }
        let shared = self.shared.clone();
        let started = thread::Builder::new().name(format!("run-{}", state.all)).spawn(move || live(&shared));
        match started {
            Ok(_) => state.all += 1,
            Err(_) => drop(state.line.pop_back()),
        }
        started.map(drop)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        locked(&self.shared.state).closed = true;
        self.shared.more.notify_all();
    }
}

/// The life of a thread.
fn live(shared: &Shared) {
    while let Some(job) = next(shared) {
        job();
    }
}

/// What there is to do next; nothing for too long is nothing any more.
fn next(shared: &Shared) -> Option<Job> {
    let mut state = locked(&shared.state);
    if state.line.is_empty() && !state.closed {
        state.idle += 1;
        let nothing = |state: &mut State| state.line.is_empty() && !state.closed;
        let waited = shared.more.wait_timeout_while(state, PATIENCE, nothing);
        (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.idle -= 1;
    }
    let next = state.line.pop_front().filter(|_| !state.closed);
    if next.is_none() {
        state.all -= 1;
    }
    next
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashSet,
        sync::{Barrier, mpsc},
        thread::{ThreadId, current},
    };

    use super::*;

    #[test]
    fn what_is_in_line_is_begun_in_order_by_who_is_free() {
        let threads = Threads::new(1);
        let (tell, told) = mpsc::channel();
        for number in 0..100 {
            let tell = tell.clone();
            threads.run(move || tell.send((number, current().id())).unwrap()).unwrap();
        }
        let all: Vec<(i32, ThreadId)> = told.iter().take(100).collect();
        assert!(all.iter().map(|(number, _)| *number).eq(0..100));
        assert_eq!(all.iter().map(|(_, thread)| *thread).collect::<HashSet<_>>().len(), 1);
    }

    #[test]
    fn as_many_as_there_are_slots_run_at_once() {
        let threads = Threads::new(8);
        let together = Arc::new(Barrier::new(8));
        let (tell, told) = mpsc::channel::<ThreadId>();
        for _ in 0..3 {
            for _ in 0..8 {
                let (tell, together) = (tell.clone(), together.clone());
                let work = move || {
                    together.wait();
                    tell.send(current().id()).unwrap();
                };
                threads.run(work).unwrap();
            }
            let used: HashSet<ThreadId> = told.iter().take(8).collect();
            assert_eq!(used.len(), 8);
        }
        assert_eq!(locked(&threads.shared.state).all, 8);
    }

    #[test]
    fn one_that_does_not_end_holds_up_nobody_else() {
        let threads = Threads::new(2);
        let (release, held) = mpsc::channel::<()>();
        threads.run(move || held.recv().unwrap()).unwrap();
        let (tell, told) = mpsc::channel();
        for number in 0..10 {
            let tell = tell.clone();
            threads.run(move || tell.send(number).unwrap()).unwrap();
        }
        assert!(told.iter().take(10).eq(0..10));
        release.send(()).unwrap();
    }

    #[test]
    fn threads_end_with_who_had_them() {
        let threads = Threads::new(2);
        let (release, held) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        for work in 0..2 {
            let tell = tell.clone();
            threads.run(move || tell.send(work).unwrap()).unwrap();
        }
        assert_eq!(told.iter().take(2).count(), 2);
        let begun = Arc::new(Barrier::new(2));
        let begins = begun.clone();
        let work = move || {
            begins.wait();
            held.recv().unwrap();
        };
        threads.run(work).unwrap();
        begun.wait();
        let shared = Arc::downgrade(&threads.shared);
        drop(threads);
        release.send(()).unwrap();
        while shared.strong_count() > 0 {
            thread::sleep(Duration::from_millis(1));
        }
    }
}
