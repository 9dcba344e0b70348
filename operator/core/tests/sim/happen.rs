//! How each fault comes to pass.

use hyperflow_api::rerun::{Rerun, Scope};
use hyperflow_core::coordinator::Event;

use super::{
    attempt::Trouble,
    faults::{Fault, Silence, Which},
    pods::Machine,
    world::{Turn, World},
};

/// A leader that is cut off from the API server is replaced when its Lease has run out.
const REPLACED: u64 = 5000;

fn choose(which: Which, of: usize) -> usize {
    usize::try_from(which % of.max(1) as u64).unwrap()
}

impl World {
    pub fn comes_to_pass(&mut self, fault: Fault) {
        let operators = self.operators.len();
        match fault {
            Fault::OperatorKilled { which, back } => self.kill_operator(choose(which, operators), back),
            Fault::OperatorDies { which, effects, back } => {
                self.operators[choose(which, operators)].dies_in = Some((effects, back));
            }
            Fault::LeaderChanged { from, begins, ends } => self.hand_over(choose(from, operators), begins, ends),
            Fault::OperatorCutOff { which, millis } => {
                self.visit("operator cut off");
                let place = choose(which, operators);
                self.operators[place].cut_off_until = self.now + millis;
                if self.operators[place].leads(self.now) && millis > REPLACED {
                    self.hand_over(place, REPLACED, millis);
                }
            }
            Fault::OperatorBlind { which, millis } => {
                self.operators[choose(which, operators)].blind_until = self.now + millis;
            }
            Fault::Write { which, fate } => self.operators[choose(which, operators)].fate = Some(fate),
            Fault::PodRefused { which } => {
                let refused = Event::PodRefused("QuotaExceeded".into(), "exceeded quota".into());
                self.desk_hears(choose(which, operators), vec![refused]);
            }
            Fault::ApiServerAway { millis } => self.api_server_goes(millis),
            Fault::Restored { writes } if self.now >= self.api.away_until && self.api.restore(writes) => {
                self.visit("restored");
                self.store.back_in_run(self.api.seen.status.run.and_then(|run| u32::try_from(run).ok()).unwrap_or(1));
                // There may be no plan any more, and the next one is of the changed spec.
                self.spec_changed = None;
                self.changed();
            }
            Fault::Restored { .. } => {}
            Fault::Suspended { .. } | Fault::Scaled { .. } | Fault::FrozenEdited | Fault::Deleted { .. } => {
                self.user_acts(fault);
            }
            fault => self.breaks(fault),
        }
    }

    /// Things that befall a machine, a worker, or what is between it and others.
    fn breaks(&mut self, fault: Fault) {
        let there: Vec<u64> = self.pods.keys().copied().collect();
        let pick = |which: Which| there.get(choose(which, there.len())).copied().unwrap_or(0);
        match fault {
            Fault::Evicted { pod } => self.disrupted(pick(pod), "EvictionByEvictionAPI"),
            Fault::Preempted { pod } => self.disrupted(pick(pod), "PreemptionByScheduler"),
            Fault::Cordoned { machine, millis } => {
                self.visit("machine cordoned");
                let machine = choose(machine, self.machines.len());
                self.machines[machine].cordoned_until = self.now + millis;
                self.changed();
                self.after(millis, Turn::NodesChanged);
            }
            Fault::WorkerKilled { pod } => {
                self.visit("worker killed");
                self.process_ends(pick(pod), "Error", true);
            }
            Fault::WorkerOutOfMemory { pod } => {
                self.visit("worker out of memory");
                self.process_ends(pick(pod), "OOMKilled", true);
            }
            Fault::WorkerDies { pod, steps } => self.with(pick(pod), |process| process.dies_in = Some(steps)),
            Fault::WorkerFrozen { pod, millis } => self.freeze(pick(pod), millis),
            Fault::WorkerTerminated { pod } => {
                let pod = pick(pod);
                let nonce = self.pods.get(&pod).and_then(|pod| pod.process.as_ref()).map(|process| process.id.nonce);
                nonce.into_iter().for_each(|nonce| self.asked_to_terminate(pod, nonce));
            }
            Fault::MachineLost { machine, millis } => {
                let place = self.unluckiest().unwrap_or_else(|| choose(machine, self.machines.len()));
                let sound = |(other, machine): (usize, &Machine)| other != place && machine.is_fit(self.now);
                if self.machines.iter().enumerate().any(sound) {
                    self.machine_falls_silent(place, millis, Silence::WithoutPower, true);
                }
            }
            Fault::MachineSilent { machine, millis, how, drained } => {
                self.machine_falls_silent(choose(machine, self.machines.len()), millis, how, drained);
            }
            Fault::Parted { machine, count, millis, first, how } => {
                self.visit("several machines away");
                for number in 0..count {
                    let place = choose(machine.wrapping_add(number), self.machines.len());
                    self.machine_falls_silent(place, if number == 0 { first } else { millis }, how, false);
                }
            }
            Fault::StreamCut { pod } => {
                self.visit("stream cut");
                self.streams_of(pick(pod)).into_iter().for_each(|id| self.close(id, true));
            }
            Fault::StreamStalled { pod, millis } => {
                self.visit("stream stalled");
                self.blame(pick(pod));
                self.streams_of(pick(pod)).into_iter().for_each(|id| self.stall(id, millis));
            }
            Fault::MessageTricked { pod, up, trick } if self.play_trick(pick(pod), up, trick) => {
                self.visit("message lost, repeated, swapped or late");
                self.blame(pick(pod));
            }
            Fault::OutputFull { millis } => self.full_until = self.now + millis,
            Fault::PowerLost => self.power_is_lost(),
            Fault::StoreFails { pod } => self.with(pick(pod), |process| process.trouble = Some(Trouble::Fails)),
            Fault::StoreAnswerLost { pod } => {
                self.with(pick(pod), |process| process.trouble = Some(Trouble::AnswerLost));
            }
            _ => {}
        }
    }

    /// The machine of the shard that has suffered most: nothing is given up for what happens to machines, however often.
    fn unluckiest(&self) -> Option<usize> {
        let suffered = |pod: u64| {
            let deaths = |index| self.hardship.get(&index).map_or(0, |hardship| hardship.deaths);
            self.suspects(pod).into_iter().map(deaths).max().unwrap_or(0)
        };
        let pod = self.pods.iter().max_by_key(|(number, _)| suffered(**number))?;
        pod.1.machine
    }

    fn with(&mut self, pod: u64, change: impl FnOnce(&mut super::process::Process)) {
        if let Some(process) = self.pods.get_mut(&pod).and_then(|pod| pod.process.as_mut()) {
            change(process);
        }
    }

    fn freeze(&mut self, pod: u64, millis: u64) {
        self.visit("worker frozen");
        let until = self.now + millis;
        self.blame(pod);
        self.with(pod, |process| process.frozen_until = until.max(process.frozen_until));
    }

    /// Another process leads; the one that did may not know for a while, or may have stopped long before.
    fn hand_over(&mut self, from: usize, begins: u64, ends: u64) {
        self.visit("leader changed");
        let (begins, ends) = (self.now + begins, self.now + ends);
        for (place, operator) in self.operators.iter_mut().enumerate() {
            if place == from {
                operator.leads_until = operator.leads_until.min(ends);
            } else if operator.leads_until <= begins {
                (operator.leads_from, operator.leads_until) = (begins, u64::MAX);
            } else {
                operator.leads_until = u64::MAX;
            }
        }
    }

    fn api_server_goes(&mut self, millis: u64) {
        self.visit(if millis >= 10_000 { "API server away for long" } else { "API server away" });
        self.api.away_until = self.api.away_until.max(self.now + millis);
        self.after(millis, Turn::NodesChanged);
    }

    fn disrupted(&mut self, pod: u64, word: &'static str) {
        self.visit("pod evicted");
        self.disrupt(pod, word);
    }

    /// All of its pods at once: frozen, or cut off and at work, or dead with it.
    pub fn machine_falls_silent(&mut self, place: usize, millis: u64, how: Silence, drained: bool) {
        let (now, until) = (self.now, self.now + millis);
        if now < self.machines[place].silent_until {
            return;
        }
        (self.machines[place].silent_from, self.machines[place].silent_until) = (now, until);
        self.visit(match how {
            Silence::Frozen => "machine frozen",
            Silence::CutOff => "machine cut off",
            Silence::WithoutPower => "machine without power",
        });
        let there = |pod: &super::pods::Pod| pod.machine == Some(place);
        let pods: Vec<u64> = self.pods.iter().filter(|(_, pod)| there(pod)).map(|(&number, _)| number).collect();
        for pod in pods {
            if drained {
                self.after(3000, Turn::Disrupt(pod, "DeletionByTaintManager"));
            }
            self.blame(pod);
            match how {
                Silence::Frozen => self.with(pod, |process| process.frozen_until = until),
                Silence::CutOff => {
                    let noticed = self.chance.below(4000);
                    self.streams_of(pod).into_iter().for_each(|id| self.stall(id, noticed));
                    self.with(pod, |process| process.cut_off_until = until);
                }
                Silence::WithoutPower => {
                    // Its last word may be that it goes, or none.
                    let hangs_up = self.chance.once_in(2);
                    self.process_ends(pod, "Unknown", hangs_up);
                }
            }
        }
        // Its node is not ready some time later, and ready again when it is back.
        self.after(1000, Turn::NodesChanged);
        self.after(millis, Turn::NodesChanged);
    }

    fn power_is_lost(&mut self) {
        self.visit("power lost");
        let pods: Vec<u64> = self.pods.keys().copied().collect();
        pods.into_iter().for_each(|pod| self.process_ends(pod, "Unknown", true));
        let Self { store, chance, .. } = self;
        store.lose_power(chance);
    }

    /// What users do at their time, once the API server answers.
    pub fn user_acts(&mut self, fault: Fault) {
        if self.now < self.api.away_until {
            return self.at(self.api.away_until, Turn::User(fault));
        }
        match fault {
            Fault::Suspended { millis } if !self.api.seen.spec.suspend => {
                self.visit("suspended");
                self.api.edit(|seen| seen.spec.suspend = true);
                self.after(millis, Turn::Resumed);
            }
            Fault::Scaled { parallelism } => {
                self.visit("scaled");
                self.api.edit(|seen| seen.spec.parallelism = i32::try_from(parallelism).unwrap());
                // Nobody works for a job that was scaled to nothing, so somebody scales it again.
                self.after(4000, Turn::ScaledBack);
            }
            Fault::FrozenEdited if !self.api.seen.deleting => {
                self.visit("frozen fields edited");
                self.api.edit(|seen| {
                    if let Some(output) = &mut seen.spec.output {
                        output.url = "file:///data/elsewhere/".into();
                    }
                });
                self.spec_changed = Some(self.api.seen.generation).filter(|_| self.api.seen.status.plan.is_some());
            }
            Fault::Deleted { abandoned } if !self.api.seen.deleting => {
                self.visit("deleted");
                self.api.edit(|seen| (seen.deleting, seen.abandoned) = (true, abandoned));
            }
            _ => return,
        }
        self.changed();
    }

    pub fn resumed(&mut self) {
        self.user_edits(Turn::Resumed, |seen| seen.spec.suspend = false);
    }

    pub fn scaled_back(&mut self) {
        let parallelism = i32::try_from(self.scenario.parallelism).unwrap();
        self.user_edits(Turn::ScaledBack, |seen| seen.spec.parallelism = parallelism);
    }

    /// A user asks for another run of what is not published.
    pub fn run_again(&mut self) {
        if self.api.gone || self.api.seen.deleting {
            return;
        }
        self.reruns += 1;
        let nonce = self.reruns.to_string();
        self.visit("run again");
        self.user_edits(Turn::RunAgain, |seen| {
            seen.spec.rerun = Some(Rerun { nonce, scope: Scope::Failed, indexes: None });
        });
    }

    fn user_edits(&mut self, turn: Turn, change: impl FnOnce(&mut hyperflow_core::coordinator::Seen)) {
        if self.now < self.api.away_until {
            return self.at(self.api.away_until, turn);
        }
        self.api.edit(change);
        self.changed();
    }
}
