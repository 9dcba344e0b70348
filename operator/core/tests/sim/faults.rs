//! What breaks, and what users do meanwhile.

use hyperflow_core::{coordinator::Event, worker};

use super::world::World;

impl World {
    /// Things that everybody hears the cause of, or that end nobody.
    pub fn something_happens(&mut self) {
        match self.chance.below(4000) {
            0..=2 => self.kill_operator(),
            3..=6 => self.hand_over(),
            7 | 8 => self.api_server_goes(),
            9 | 10 if self.scenario.restores => {
                self.store.visit("restored");
                self.api.restore(&mut self.chance);
            }
            11 | 12 if self.resume_at.is_none() && !self.api.is_away(self.now) => {
                self.store.visit("suspended");
                self.api.edit(|seen| seen.spec.suspend = true);
                self.resume_at = Some(self.now + self.chance.below(8000));
            }
            13..=17 => self.evict(),
            18..=20 => {
                let until = self.now + self.chance.below(8000);
                let machine = self.some_machine();
                self.store.visit("machine cordoned");
                self.machines[machine].cordoned_until = until;
            }
            21 => {
                let operator = self.some_operator();
                self.desk_handles(operator, Event::PodRefused("QuotaExceeded".into(), "exceeded quota".into()));
            }
            _ => {}
        }
    }

    /// Things whose cause nobody hears of.
    pub fn something_breaks(&mut self) {
        let pods: Vec<u64> = self.pods.keys().copied().collect();
        let Some(pod) = self.chance.pick(&pods) else { return };
        match self.chance.below(1500) {
            0 => {
                self.store.visit("worker killed");
                self.process_ends(pod, "Error", true);
            }
            1 => {
                self.store.visit("worker out of memory");
                self.process_ends(pod, "OOMKilled", true);
            }
            2 => {
                self.store.visit("worker frozen");
                let until = self.now + self.chance.below(6000);
                self.blame(pod);
                self.with_process(pod, |process| process.frozen_until = until);
            }
            3 | 4 => {
                self.store.visit("stream cut");
                self.blame(pod);
                self.streams_of(pod).into_iter().for_each(|id| self.close(id));
            }
            5 => self.process_handles(pod, worker::Event::Terminate),
            6 => self.machine_falls_silent(),
            _ => {}
        }
    }

    fn with_process(&mut self, pod: u64, change: impl FnOnce(&mut super::process::Process)) {
        if let Some(process) = self.pods.get_mut(&pod).and_then(|pod| pod.process.as_mut()) {
            change(process);
        }
    }

    fn some_machine(&mut self) -> usize {
        usize::try_from(self.chance.below(self.machines.len() as u64)).unwrap()
    }

    fn some_operator(&mut self) -> usize {
        usize::try_from(self.chance.below(self.operators.len() as u64)).unwrap()
    }

    fn kill_operator(&mut self) {
        let operator = self.some_operator();
        if self.operators[operator].desk.is_some() {
            self.store.visit("operator killed");
            self.end_desk(operator, None);
        }
        let returns = self.now + self.chance.below(5000);
        let operator = &mut self.operators[operator];
        operator.leads_from = operator.leads_from.max(returns);
    }

    /// Another process leads; the one that did may not know for a while, or may have stopped long before.
    fn hand_over(&mut self) {
        self.store.visit("leader changed");
        let from = self.some_operator();
        let (begins, ends) = (self.now + self.chance.below(5000), self.now + self.chance.below(10_000));
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

    fn api_server_goes(&mut self) {
        if self.api.is_away(self.now) {
            return;
        }
        let long = self.chance.once_in(3);
        self.store.visit(if long { "API server away for long" } else { "API server away" });
        let millis = if long { 10_000 + self.chance.below(50_000) } else { self.chance.below(3000) };
        self.api.away_until = self.now + millis;
    }

    fn evict(&mut self) {
        let pods: Vec<u64> = self.pods.keys().copied().collect();
        let Some(pod) = self.chance.pick(&pods).filter(|_| !self.api.is_away(self.now)) else { return };
        self.store.visit("pod evicted");
        let word = self.chance.pick(&["EvictionByEvictionAPI", "PreemptionByScheduler"]).unwrap_or_default();
        if let Some(pod) = self.pods.get_mut(&pod) {
            pod.disrupted_at.get_or_insert((self.now, word));
        }
    }

    /// All of its pods at once: frozen, or cut off and at work, or dead with it.
    fn machine_falls_silent(&mut self) {
        let (machine, until) = (self.some_machine(), self.now + 300 + self.chance.below(8000));
        if self.now < self.machines[machine].silent_until {
            return;
        }
        (self.machines[machine].silent_from, self.machines[machine].silent_until) = (self.now, until);
        let (kind, drains) = (self.chance.below(3), self.chance.once_in(3));
        self.store
            .visit(["machine frozen", "machine cut off", "machine without power"][usize::try_from(kind).unwrap()]);
        let there = |pod: &super::pods::Pod| pod.machine == Some(machine);
        let pods: Vec<u64> = self.pods.iter().filter(|(_, pod)| there(pod)).map(|(&number, _)| number).collect();
        for pod in pods {
            if drains && let Some(pod) = self.pods.get_mut(&pod) {
                pod.disrupted_at.get_or_insert((self.now + 3000, "DeletionByTaintManager"));
            }
            self.blame(pod);
            match kind {
                0 => self.with_process(pod, |process| process.frozen_until = until),
                1 => {
                    self.streams_of(pod).into_iter().for_each(|id| self.stall(id));
                    self.with_process(pod, |process| process.cut_off_until = until);
                }
                _ => self.process_ends(pod, "Unknown", false),
            }
        }
    }

    /// What users do at their time, once the API server answers.
    pub fn users_act(&mut self) {
        if self.api.is_away(self.now) {
            return;
        }
        if self.resume_at.take_if(|at| *at <= self.now).is_some() {
            self.api.edit(|seen| seen.spec.suspend = false);
        }
        if self.scenario.deleted_at.is_some_and(|at| self.now >= at) && !self.api.seen.deleting {
            self.store.visit("deleted");
            self.store.deleting = true;
            let abandoned = self.chance.once_in(6);
            self.api.edit(|seen| (seen.deleting, seen.abandoned) = (true, abandoned));
        }
    }
}
