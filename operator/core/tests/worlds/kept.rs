//! Parts of a state that are kept once and told apart by a digest, and steps that are taken once and remembered.
//!
//! The core's types have neither hash nor order, so a part is told apart by its text. What only counts up, and is never
//! compared with anything but itself, is left out of that: two states that differ in nothing else are one.

use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    ops::Deref,
    sync::{Arc, Mutex, PoisonError, RwLock, Weak},
};

/// More remembered steps than this are forgotten: they are taken again when they are needed.
const REMEMBERED: usize = 1_000_000;

/// A part of a state. Equal are those with the same digest.
pub struct Kept<T> {
    id: u128,
    it: Arc<T>,
}

impl<T> Kept<T> {
    /// `text` says everything that matters.
    pub fn new(it: T, text: &str) -> Self {
        let mut id = [0; 16];
        id.copy_from_slice(&blake3::hash(text.as_bytes()).as_bytes()[..16]);
        Self { id: u128::from_be_bytes(id), it: Arc::new(it) }
    }

    pub fn id(&self) -> u128 {
        self.id
    }
}

impl<T: fmt::Debug> Kept<T> {
    /// Everything that its text says matters.
    pub fn whole(it: T) -> Self {
        let text = format!("{it:?}");
        Self::new(it, &text)
    }
}

impl<T> Clone for Kept<T> {
    fn clone(&self) -> Self {
        Self { id: self.id, it: Arc::clone(&self.it) }
    }
}

impl<T> Deref for Kept<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.it
    }
}

impl<T: fmt::Debug> fmt::Debug for Kept<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.it.fmt(f)
    }
}

impl<T> PartialEq for Kept<T> {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl<T> Eq for Kept<T> {}

impl<T> PartialOrd for Kept<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Kept<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.id.cmp(&other.id)
    }
}

impl<T> Hash for Kept<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

/// Parts that are in use, so that none is kept twice.
pub struct Shelf<T> {
    #[allow(clippy::disallowed_types, reason = "only ever asked by key")]
    kept: Mutex<std::collections::HashMap<u128, Weak<T>>>,
}

impl<T> Shelf<T> {
    pub fn new() -> Self {
        Self { kept: Mutex::default() }
    }

    pub fn keep(&self, it: T, text: &str) -> Kept<T> {
        let new = Kept::new(it, text);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(it) = kept.get(&new.id).and_then(Weak::upgrade) {
            return Kept { id: new.id, it };
        }
        if kept.len() == kept.capacity() {
            kept.retain(|_, it| it.strong_count() > 0);
        }
        kept.insert(new.id, Arc::downgrade(&new.it));
        new
    }
}

/// Steps by what was there and what happened. Most states differ elsewhere, so most steps were taken before.
pub struct Steps<K, V> {
    #[allow(clippy::disallowed_types, reason = "only ever asked by key")]
    taken: RwLock<std::collections::HashMap<K, Arc<V>>>,
}

impl<K: Eq + Hash, V> Steps<K, V> {
    pub fn new() -> Self {
        Self { taken: RwLock::default() }
    }

    pub fn take(&self, key: K, step: impl FnOnce() -> V) -> Arc<V> {
        if let Some(taken) = self.taken.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Arc::clone(taken);
        }
        let new = Arc::new(step());
        let mut taken = self.taken.write().unwrap_or_else(PoisonError::into_inner);
        if taken.len() >= REMEMBERED {
            taken.clear();
        }
        Arc::clone(taken.entry(key).or_insert(new))
    }
}

/// The number behind the first `key` at or after `from`, with where its digits begin and end.
fn number(text: &str, key: &str, from: usize) -> Option<(usize, usize, u64)> {
    let start = from + text.get(from..)?.find(key)? + key.len();
    let digits = text[start..].bytes().take_while(u8::is_ascii_digit).count();
    Some((start, start + digits, text[start..start + digits].parse().ok()?))
}

fn replace(text: &mut String, key: &str, from: usize, with: impl FnOnce(u64) -> u64) {
    if let Some((start, end, value)) = number(text, key, from) {
        text.replace_range(start..end, &with(value).to_string());
    }
}

/// What matters in a coordinator's text. Left out is what never changes: limits, job and resource; announcements, which
/// nobody listens to; the number of a write and of grants since the last; and of the numbers of its knowledge everything
/// but whether they are the same. A time that is past is past.
pub fn of_coordinator(whole: &str, now: u64) -> String {
    let from = whole.find("takeover: Takeover {").expect("a coordinator has a take-over");
    let to = whole.rfind(", announcements: [").expect("a coordinator has announcements");
    let books = whole[..to].rfind(", writer: Writer {").expect("a coordinator has a writer");
    let mut writer = whole[books..to].to_owned();
    let known = number(&writer, "{ knowledge: ", 0).map_or(0, |(.., number)| number);
    let same = |value| u64::from(value == known);
    replace(&mut writer, ", stored: Some(", 0, same);
    replace(&mut writer, ", knowledge: ", 0, same);
    replace(&mut writer, "{ knowledge: ", 0, |_| 0);
    replace(&mut writer, "revision: Revision(", 0, |_| 0);
    let tail = writer.rfind(", not_before: ").unwrap_or(0);
    replace(&mut writer, ", not_before: ", tail, |value| value.max(now));
    replace(&mut writer, ", revision: ", tail, |_| 0);
    replace(&mut writer, ", granted: ", tail, |_| 0);
    let mut rest = whole[from..books].to_owned();
    // Since when a worker is in session, and when one was lost that may still turn up: only asked long after.
    for (key, until) in [("welcomed: true", ", ends: 0, since: "), ("Loss { worker: ", ", at: ")] {
        let places: Vec<usize> = rest.match_indices(key).map(|(place, _)| place).collect();
        for place in places.into_iter().rev() {
            if key == "welcomed: true" && rest[..place].ends_with("session: None, ") {
                continue;
            }
            replace(&mut rest, until, place, |_| 0);
        }
    }
    rest + &writer
}

/// What matters in a worker's text. When it last heard an operator does not, for no world lasts until it is an orphan. Of
/// the time that an attempt takes it matters only whether it is none: with that more leases are prefetched, and no world
/// lasts until a longer mean is as short again. Attempts are told apart by their order, so their numbers do not matter.
pub fn of_worker(whole: &str, now: u64) -> String {
    let mut text = whole.to_owned();
    replace(&mut text, ", heard: ", 0, |_| 0);
    replace(&mut text, ", mean_micros: Some(", 0, |value| value.min(1));
    replace(&mut text, ", last: ", 0, |_| 0);
    for (key, until) in [("RunId(", "RunId("), ("RunId(", ", since: ")] {
        let places: Vec<usize> = text.match_indices(key).map(|(place, _)| place).collect();
        for place in places.into_iter().rev() {
            replace(&mut text, until, place, |value| u64::from(until != key && value == now));
        }
    }
    text
}
