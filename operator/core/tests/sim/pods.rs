//! The cluster: machines, pods, and the kubelet, which starts and ends processes and tells of it in its own time.

use std::collections::BTreeSet;

use hyperflow_api::ids::ShardIndex;
use hyperflow_core::{
    coordinator::{Node as NodeSeen, Pod as PodSeen, made_of, workers_digest},
    worker,
};

use super::{
    clock::Clock,
    process::Process,
    world::{Turn, World},
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
    pub deleting: bool,
    /// Where its blocks lie.
    pub store: Option<String>,
    /// What it was made of.
    made_of: String,
    pub run: u32,
    restarts: u64,
    disruption: Option<&'static str>,
    ends: u32,
    ended: Option<&'static str>,
}

fn says(word: &'static str) -> (String, String) {
    (word.into(), "as the cluster says".into())
}

impl World {
    pub fn create_pod(&mut self, name: &str, run: u32) {
        if self.pods.values().any(|pod| pod.name == name) {
            return;
        }
        self.last_pod += 1;
        let uid = format!("{:08x}-{}", self.chance.draw() >> 32, self.last_pod);
        let pod = Pod {
            name: name.into(),
            uid,
            machine: None,
            process: None,
            deleting: false,
            store: None,
            made_of: made_of(&workers_digest(&self.api.seen.spec), run),
            run,
            restarts: 0,
            disruption: None,
            ends: 0,
            ended: None,
        };
        self.pods.insert(self.last_pod, pod);
        self.after(20, Turn::Bind(self.last_pod));
        self.changed();
    }

    pub fn delete_pod(&mut self, name: &str, uid: &str) {
        let found = self.pods.iter().find(|(_, pod)| pod.name == name && pod.uid == uid);
        if let Some(&number) = found.map(|(number, _)| number) {
            self.begin_to_delete(number);
        }
    }

    fn begin_to_delete(&mut self, number: u64) {
        let Some(pod) = self.pods.get_mut(&number).filter(|pod| !pod.deleting) else { return };
        pod.deleting = true;
        self.changed();
        self.after(20, Turn::KubeletEnds(number));
    }

    pub fn pods_seen(&self) -> Vec<PodSeen> {
        let seen = |pod: &Pod| PodSeen {
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            node: pod.machine.map(|machine| self.machines[machine].name.clone()),
            zone: pod.machine.and_then(|machine| self.scenario.zone_of(machine)),
            leaving: pod.deleting,
            trouble: None,
            made_of: Some(pod.made_of.clone()),
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

    /// The scheduler finds a machine for a pod.
    pub fn bind(&mut self, number: u64) {
        let now = self.now;
        let fit = |(place, machine): (usize, &Machine)| machine.is_fit(now).then_some(place);
        let fit: Vec<usize> = self.machines.iter().enumerate().filter_map(fit).collect();
        let fit = if self.scenario.calm { self.emptiest(&fit) } else { fit };
        let machine = self.chance.pick(&fit).filter(|_| now >= self.api.away_until);
        let Some(pod) = self.pods.get_mut(&number).filter(|pod| !pod.deleting) else { return };
        pod.machine = machine;
        if machine.is_none() {
            return self.after(200, Turn::Bind(number));
        }
        self.changed();
        let wait = 50 + self.chance.below(500);
        self.after(wait, Turn::KubeletStarts(number));
    }

    /// Pods with blocks are spread.
    fn emptiest(&self, places: &[usize]) -> Vec<usize> {
        let pods = |place: usize| self.pods.values().filter(|pod| pod.machine == Some(place)).count();
        let least = places.iter().map(|place| pods(*place)).min();
        places.iter().copied().filter(|place| Some(pods(*place)) == least).collect()
    }

    /// Whether a pod's kubelet can do nothing just now.
    fn kubelet_is_silent(&self, pod: &Pod) -> bool {
        pod.machine.is_some_and(|machine| self.machines[machine].is_silent(self.now))
    }

    pub fn kubelet_starts(&mut self, number: u64) {
        let Some(pod) = self.pods.get(&number).filter(|pod| !pod.deleting && pod.process.is_none()) else { return };
        if self.kubelet_is_silent(pod) {
            return self.after(100, Turn::KubeletStarts(number));
        }
        let (nonce, clock) = (self.chance.draw(), Clock::draw(&mut self.chance));
        let (now, slots, uid) = (self.now, self.scenario.slots, self.api.seen.uid.clone());
        let host = self.host(number);
        let Some(pod) = self.pods.get_mut(&number) else { return };
        pod.store = host.as_ref().map(|host| host.store.clone());
        pod.process = Some(Process::new(clock, now, &uid, &pod.uid, nonce, slots).with_host(host));
        self.after(5, Turn::Connect { pod: number, nonce });
        self.process_hears(number, nonce, None);
    }

    /// A pod is to be deleted: its process is asked to terminate, and when that is over the pod is gone.
    pub fn kubelet_ends(&mut self, number: u64) {
        let Some(pod) = self.pods.get(&number) else { return };
        if self.kubelet_is_silent(pod) || self.now < self.api.away_until {
            return self.after(100, Turn::KubeletEnds(number));
        }
        let asks = pod.process.as_ref().map(|process| (process.id.nonce, process.terminated));
        match asks {
            Some((nonce, false)) => self.asked_to_terminate(number, nonce),
            Some((_, true)) => {}
            None => {
                let wait = if pod.machine.is_some() { self.chance.below(300) } else { 0 };
                self.after(wait, Turn::PodGone(number));
            }
        }
    }

    pub fn asked_to_terminate(&mut self, number: u64, nonce: u64) {
        self.process_hears(number, nonce, Some(worker::Event::Terminate));
    }

    pub fn pod_gone(&mut self, number: u64) {
        if self.pods.get(&number).is_some_and(|pod| pod.process.is_none()) {
            self.pods.remove(&number);
            self.changed();
        }
    }

    /// The kubelet tells of it some time later, and starts the container again unless the pod goes.
    pub fn process_ends(&mut self, number: u64, word: &'static str, hangs_up: bool) {
        self.blame(number);
        let suspects = self.suspects(number);
        for id in self.streams_of(number) {
            let stalls = self.chance.below(4000);
            if hangs_up { self.close(id, false) } else { self.stall(id, stalls) }
        }
        let (told, again) = (self.chance.below(1500), 100 + self.chance.below(900));
        let Some(pod) = self.pods.get_mut(&number) else { return };
        if pod.process.take().is_none() {
            return;
        }
        let explained = word == "Completed";
        if let Some(machine) = pod.machine.filter(|_| !explained) {
            self.machines[machine].points += 1000;
        }
        if word == "OOMKilled" {
            for index in suspects {
                self.hardship.entry(index).or_default().failures += 1;
            }
            self.tally.visit(if told < again { "out of memory, told early" } else { "out of memory, told late" });
        }
        let backoff = pod.restarts.min(5) * 500;
        pod.restarts += 1;
        self.absence_begins();
        self.after(told, Turn::KubeletTells(number, word));
        self.after(again + backoff, Turn::KubeletStarts(number));
        if self.pods.get(&number).is_some_and(|pod| pod.deleting) {
            self.after(20, Turn::KubeletEnds(number));
        }
    }

    pub fn kubelet_tells(&mut self, number: u64, word: &'static str) {
        let Some(pod) = self.pods.get(&number) else { return };
        if self.kubelet_is_silent(pod) || self.now < self.api.away_until {
            return self.after(100, Turn::KubeletTells(number, word));
        }
        if let Some(pod) = self.pods.get_mut(&number) {
            pod.ends += 1;
            pod.ended = Some(word);
            self.changed();
        }
    }

    /// The cluster wants the pod away.
    pub fn disrupt(&mut self, number: u64, word: &'static str) {
        if self.now < self.api.away_until {
            return self.at(self.api.away_until, Turn::Disrupt(number, word));
        }
        if let Some(pod) = self.pods.get_mut(&number).filter(|pod| !pod.deleting) {
            pod.disruption = Some(word);
            self.begin_to_delete(number);
        }
    }

    /// Whatever a process ran when its stream broke may be taken for the cause of its death.
    pub fn blame(&mut self, number: u64) {
        for index in self.suspects(number) {
            self.hardship.entry(index).or_default().deaths += 1;
        }
        if let Some(machine) = self.pods.get(&number).and_then(|pod| pod.machine) {
            self.machines[machine].points += 1000;
        }
    }

    /// What a process runs, or would by what the operator knows.
    pub fn suspects(&self, number: u64) -> BTreeSet<ShardIndex> {
        let process = self.pods.get(&number).and_then(|pod| pod.process.as_ref());
        let given = self.streams.values().filter(|stream| stream.pod == number).flat_map(|stream| &stream.given);
        process.iter().flat_map(|process| process.runs()).chain(given.copied()).collect()
    }
}
