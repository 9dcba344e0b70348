//! Tells people: Events of the resource. What cannot be told is logged, and nothing waits for it.

use hyperflow_core::coordinator::Announcement;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tokio::sync::mpsc;
use tracing::warn;

use crate::{client::call, telemetry::chain};

/// Events that wait at most; more are dropped.
const WAITING: usize = 256;
/// The API server takes notes of 1 kB.
const LONGEST_NOTE: usize = 1000;

/// Where announcements are handed in. Cheap to clone.
#[derive(Clone)]
pub struct Announcer(mpsc::Sender<(ObjectReference, Announcement)>);

/// The task that sends them.
pub struct Herald {
    waiting: mpsc::Receiver<(ObjectReference, Announcement)>,
    recorder: Recorder,
}

/// A pair that belongs together. `instance` is the pod's name.
#[must_use]
pub fn pair(client: Client, instance: String) -> (Announcer, Herald) {
    let (announcer, waiting) = mpsc::channel(WAITING);
    let recorder = Recorder::new(client, Reporter { controller: "hyperflow".into(), instance: Some(instance) });
    (Announcer(announcer), Herald { waiting, recorder })
}

impl Announcer {
    /// Hands an announcement in; returns at once.
    pub fn announce(&self, about: ObjectReference, announcement: Announcement) {
        if let Err(error) = self.0.try_send((about, announcement)) {
            let (about, Announcement { reason, message, .. }) = match error {
                mpsc::error::TrySendError::Full(dropped) | mpsc::error::TrySendError::Closed(dropped) => dropped,
            };
            warn!(job = about.name, namespace = about.namespace, reason, message, "an Event was dropped");
        }
    }
}

impl Herald {
    /// Sends what is handed in, one by one, for as long as anyone may hand something in.
    pub async fn run(mut self) {
        while let Some((about, Announcement { warning, reason, message })) = self.waiting.recv().await {
            let event = Event {
                type_: if warning { EventType::Warning } else { EventType::Normal },
                reason: reason.into(),
                note: Some(shorten(message)),
                action: reason.into(),
                secondary: None,
            };
            let name = about.name.clone().unwrap_or_default();
            if let Err(error) = call("write event of shardjob", &name, self.recorder.publish(&event, &about)).await {
                warn!(error = chain(&error), reason, "an Event was not written");
            }
        }
    }
}

fn shorten(mut note: String) -> String {
    if note.len() > LONGEST_NOTE {
        note.truncate(note.floor_char_boundary(LONGEST_NOTE - '…'.len_utf8()));
        note.push('…');
    }
    note
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_notes_are_cut_between_characters() {
        assert_eq!(shorten("short".into()), "short");
        let cut = shorten("ü".repeat(600));
        assert!(cut.len() <= LONGEST_NOTE && cut.ends_with("ü…"), "{}", cut.len());
    }
}
