//! What the session is told of the store: all of it once for a plan, then what changes, in the order in which it did.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use hyperflow_api::replica::{GroupHeld, Holdings, LoadEnd};
use hyperflow_core::worker::Event;

use super::{
    Keeper,
    error::BlockError,
    inventory::{self, View},
};
use crate::{
    logs,
    work::{Work, locked},
};

/// The plan, which lies on another volume, is tried again after so long.
const AGAIN: Duration = Duration::from_secs(5);

/// How far the telling is.
#[derive(Debug, Default)]
pub struct News {
    state: Mutex<State>,
    /// Whoever looks at a group tells of it before the next one looks.
    telling: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    /// Digest of the plan that the store is compared with.
    plan: Option<String>,
    /// All of it was told.
    told: bool,
    /// What changed meanwhile.
    waiting: BTreeSet<u32>,
    ended: Vec<LoadEnd>,
}

impl News {
    /// Whether all is to be looked through: this plan is another one than before, or `shared` says that others may have
    /// changed what is there.
    fn begin(&self, plan: &str, shared: bool) -> bool {
        let mut state = locked(&self.state);
        if state.plan.as_deref() == Some(plan) && !shared {
            return false;
        }
        *state = State { plan: Some(plan.into()), ended: std::mem::take(&mut state.ended), ..State::default() };
        true
    }

    fn is_of(&self, plan: &str) -> bool {
        locked(&self.state).plan.as_deref() == Some(plan)
    }
}

impl Keeper {
    /// Compares the store with a plan, in the background: all of it, the first time, and in each session where another pod may
    /// have the same volume.
    pub fn survey(self: &Arc<Self>, work: &Arc<Work>, plan: &str) {
        self.work_for(work);
        if !self.news().begin(plan, self.host().persistent) {
            return;
        }
        let (keeper, work, plan) = (self.clone(), work.clone(), plan.to_owned());
        let thread = thread::Builder::new().name("inventory".into()).spawn(move || {
            while keeper.news().is_of(&plan) {
                match keeper.tell_all(&work) {
                    Ok(()) => return,
                    Err(error) => tracing::info!(error = logs::causes(&error), "blocks are looked through later"),
                }
                thread::sleep(AGAIN);
            }
        });
        if let Err(error) = thread {
            tracing::error!(%error, "cannot start a thread: the blocks of this worker are not used");
        }
    }

    fn tell_all(&self, work: &Work) -> Result<(), BlockError> {
        let plan = work.plan_in_force().map_err(BlockError::Source)?;
        let groups = inventory::survey(self.disk(), &plan)?;
        let digest = plan.plan().digest().to_owned();
        let _telling = locked(&self.news().telling);
        let (waiting, ended) = {
            let mut state = locked(&self.news().state);
            state.told = true;
            (std::mem::take(&mut state.waiting), std::mem::take(&mut state.ended))
        };
        let total = |of: fn(&GroupHeld) -> u32| groups.iter().map(of).map(u64::from).sum::<u64>();
        let (good, stale, corrupt) = (total(|held| held.good), total(|held| held.stale), total(|held| held.corrupt));
        tracing::info!(groups = groups.len(), good, stale, corrupt, "the store was compared with the plan");
        self.count(&groups, true);
        self.say(Holdings { plan: digest.clone(), full: true, free: self.disk().room().free(), groups, ended });
        // Of what changed while all was looked at, it is not known how much was seen.
        for group in waiting {
            let held = self.view(work, group)?.held;
            self.count(&[held], false);
            let (free, groups) = (self.disk().room().free(), vec![held]);
            self.say(Holdings { plan: digest.clone(), full: false, free, groups, ended: Vec::new() });
        }
        Ok(())
    }

    /// A group has changed; loads have ended.
    pub fn tell(&self, work: &Work, group: u32, ended: Vec<LoadEnd>) {
        let _telling = locked(&self.news().telling);
        let digest = {
            let mut state = locked(&self.news().state);
            if !state.told {
                state.waiting.insert(group);
                state.ended.extend(ended);
                return;
            }
            state.plan.clone().unwrap_or_default()
        };
        let groups = match self.view(work, group) {
            Ok(view) => vec![view.held],
            Err(error) => {
                tracing::warn!(error = logs::causes(&error), group, "cannot look at a group of blocks");
                Vec::new()
            }
        };
        self.count(&groups, false);
        self.say(Holdings { plan: digest, full: false, free: self.disk().room().free(), groups, ended });
    }

    /// A group as it is now.
    pub fn view(&self, work: &Work, group: u32) -> Result<View, BlockError> {
        let plan = work.plan_in_force().map_err(BlockError::Source)?;
        inventory::view(self.disk(), group, &inventory::planned(&plan, group)?)
    }

    fn say(&self, holdings: Holdings) {
        // Without a session the process ends.
        let _ = self.reports().blocking_send(Event::Stocked(holdings));
    }
}
