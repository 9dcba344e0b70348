//! The cluster: machines, pods, and the kubelet, which starts and ends processes and tells of it in its own time.

use hyperflow_core::{
    coordinator::{Node as NodeSeen, Pod as PodSeen},
    worker,
};

use super::{
    process::Process,
    world::{STEP, World},
};

/// A machine that is silent for so long is not ready.
const GRACE: u64 = 1000;

#[derive(Default)]
pub struct Machine {
    pub name: String,
    pub silent_from: u64,
    pub silent_until: u64,
    pub cordoned_until: u64,
    /// What may have been charged to it: a machine with too much of that gets no leases.
    pub points: u64,
}

impl Machine {
    fn is_ready(&self, now: u64) -> bool {
        !(self.silent_from + GRACE..self.silent_until).contains(&now)
    }

    fn is_silent(&self, now: u64) -> bool {
        now < self.silent_until
    }

    pub fn is_fit(&self, now: u64) -> bool {
        self.is_ready(now) && now >= self.cordoned_until
    }
}

pub struct Pod {
    pub name: String,
    pub uid: String,
    pub machine: Option<usize>,
    pub process: Option<Process>,
    starts_at: u64,
    restarts: u64,
    pub deleting: bool,
    disruption: Option<&'static str>,
    /// What will disrupt it, and when.
    pub disrupted_at: Option<(u64, &'static str)>,
    ends: u32,
    ended: Option<&'static str>,
    /// Ends that the kubelet has not told of yet, and when it will.
    untold: Vec<(u64, &'static str)>,
    gone_at: Option<u64>,
}

fn says(word: &'static str) -> (String, String) {
    (word.into(), "as the cluster says".into())
}

impl World {
    pub fn create_pod(&mut self, name: &str) {
        if self.pods.values().any(|pod| pod.name == name) {
            return;
        }
        self.last_pod += 1;
        let pod = Pod {
            name: name.into(),
            uid: format!("{:08x}-{}", self.chance.draw() >> 32, self.last_pod),
            machine: None,
            process: None,
            starts_at: 0,
            restarts: 0,
            deleting: false,
            disruption: None,
            disrupted_at: None,
            ends: 0,
            ended: None,
            untold: Vec::new(),
            gone_at: None,
        };
        self.pods.insert(self.last_pod, pod);
    }

    pub fn delete_pod(&mut self, name: &str, uid: &str) {
        if let Some(pod) = self.pods.values_mut().find(|pod| pod.name == name && pod.uid == uid) {
            pod.deleting = true;
        }
    }

    pub fn pods_seen(&self) -> Vec<PodSeen> {
        let seen = |pod: &Pod| PodSeen {
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            node: pod.machine.map(|machine| self.machines[machine].name.clone()),
            leaving: pod.deleting,
            trouble: None,
            disruption: pod.disruption.map(says),
            ends: pod.ends,
            ended: pod.ended.map(says),
        };
        self.pods.values().map(seen).collect()
    }

    pub fn nodes_seen(&self) -> Vec<NodeSeen> {
        let seen = |machine: &Machine| NodeSeen {
            name: machine.name.clone(),
            ready: machine.is_ready(self.now),
            cordoned: self.now < machine.cordoned_until,
            pressure: None,
        };
        self.machines.iter().map(seen).collect()
    }

    /// The scheduler, the kubelets and the processes have their turn.
    pub fn pods_act(&mut self) {
        let all: Vec<u64> = self.pods.keys().copied().collect();
        for pod in all {
            self.control_plane_acts(pod);
            self.kubelet_acts(pod);
            self.process_lives(pod);
        }
    }

    /// What the API server has to do with: binding, disruptions, the kubelet's news.
    fn control_plane_acts(&mut self, number: u64) {
        let now = self.now;
        let Some(pod) = self.pods.get_mut(&number).filter(|_| !self.api.is_away(now)) else { return };
        if pod.machine.is_none() {
            let fit = |(place, machine): (usize, &Machine)| machine.is_fit(now).then_some(place);
            let fit: Vec<usize> = self.machines.iter().enumerate().filter_map(fit).collect();
            pod.machine = self.chance.pick(&fit);
            pod.starts_at = now + 50 + self.chance.below(500);
        }
        if let Some((_, word)) = pod.disrupted_at.take_if(|(at, _)| *at <= now) {
            pod.disruption = Some(word);
            pod.deleting = true;
        }
        let silent = pod.machine.is_some_and(|machine| self.machines[machine].is_silent(now));
        if !silent && pod.untold.first().is_some_and(|(at, _)| *at <= now) {
            let (_, word) = pod.untold.remove(0);
            pod.ends += 1;
            pod.ended = Some(word);
        }
        if pod.gone_at.is_some_and(|at| at <= now) || (pod.deleting && pod.machine.is_none()) {
            self.pods.remove(&number);
        }
    }

    fn kubelet_acts(&mut self, number: u64) {
        let (now, time) = (self.now, self.time());
        let Some(pod) = self.pods.get_mut(&number) else { return };
        let Some(machine) = pod.machine.filter(|machine| !self.machines[*machine].is_silent(now)) else { return };
        match &pod.process {
            None if pod.deleting => {
                let at = now + self.chance.below(300);
                pod.gone_at.get_or_insert(at);
            }
            None if now >= pod.starts_at => {
                let nonce = self.chance.draw();
                pod.process = Some(Process::new(time, &self.api.seen.uid, &pod.uid, nonce, self.scenario.slots));
            }
            Some(process) if process.exited.is_some() => {
                let word = process.exited.unwrap_or_default();
                let explained = word == "Completed" || word == "OOMKilled" && self.machines[machine].points == 0;
                self.machines[machine].points += if explained { 0 } else { 1000 };
                self.process_ends(number, word, true);
            }
            Some(process) if pod.deleting && process.terminated.is_none() && now >= process.frozen_until => {
                self.process_handles(number, worker::Event::Terminate);
            }
            _ => {}
        }
    }

    /// The kubelet tells of it some time later, and starts the container again unless the pod goes.
    pub fn process_ends(&mut self, number: u64, word: &'static str, hangs_up: bool) {
        self.blame(number);
        for id in self.streams_of(number) {
            if hangs_up { self.close(id) } else { self.stall(id) }
        }
        let (told, again) = (self.now + self.chance.below(1500), self.now + 100 + self.chance.below(900));
        let Some(pod) = self.pods.get_mut(&number) else { return };
        if pod.process.take().is_some() {
            if word == "OOMKilled" {
                self.store.visit(if told < again { "out of memory, told early" } else { "out of memory, told late" });
            }
            pod.starts_at = again + pod.restarts.min(5) * 500;
            pod.restarts += 1;
            pod.untold.push((told, word));
        }
    }

    /// Whatever a process ran when its stream broke may be taken for the cause of its death.
    pub fn blame(&mut self, pod: u64) {
        let Some(pod) = self.pods.get(&pod) else { return };
        for index in pod.process.iter().flat_map(|process| process.runs()) {
            *self.deaths.entry(index).or_default() += 1;
        }
        if let Some(machine) = pod.machine {
            self.machines[machine].points += 1000;
        }
    }

    fn process_lives(&mut self, number: u64) {
        let now = self.now;
        let Some(process) = self.pods.get_mut(&number).and_then(|pod| pod.process.as_mut()) else { return };
        if now < process.frozen_until || process.exited.is_some() {
            return;
        }
        let hangs_up = std::mem::take(&mut process.hangs_up);
        let session = process.session;
        if let Some(id) = session.filter(|_| hangs_up) {
            self.close(id);
        }
        let lost = session.is_some_and(|id| hangs_up || self.streams.get(&id).is_none_or(|stream| stream.closed));
        let Some(process) = self.pods.get_mut(&number).and_then(|pod| pod.process.as_mut()) else { return };
        if lost {
            process.session = None;
            self.process_handles(number, worker::Event::Disconnected);
        } else if session.is_none() && now >= process.cut_off_until && self.chance.once_in(10) {
            self.connect(number);
        }
        self.deliver_to_worker(number);
        let Some(process) = self.pods.get_mut(&number).and_then(|pod| pod.process.as_mut()) else { return };
        for event in process.work(STEP, &mut self.store) {
            self.process_handles(number, event);
        }
        self.process_handles(number, worker::Event::Flush);
    }

    pub fn process_handles(&mut self, number: u64, event: worker::Event) {
        let time = self.time();
        let Some(process) = self.pods.get_mut(&number).and_then(|pod| pod.process.as_mut()) else { return };
        let says = process.handle(time, event, &mut self.chance, &self.scenario, &mut self.store);
        self.say(number, says);
    }
}
