//! What a seed settles before its run begins: the job, the cluster, and what is wrong with them.

use hyperflow_api::{ShardJobStatus, ids::JobUid, ids::ShardIndex};
use hyperflow_core::coordinator::{Limits, Seen};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::chance::Chance;

pub const LEASE_MILLIS: u64 = 2000;
/// A store counts as lost when nobody has heard of it for so long.
pub const LOST_MILLIS: u64 = 3000;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Files are copied to an output; or else nothing is done to numbers.
    pub copies: bool,
    pub shards: u32,
    pub parallelism: u32,
    pub slots: u32,
    pub machines: u64,
    /// So many times slower than the fastest.
    pub pace: u64,
    /// Pods that are slower than others: one in so many.
    pub slow: Option<u64>,
    /// So many times.
    #[serde(default = "six")]
    pub slow_by: u64,
    /// A shard that kills every worker that runs it.
    pub poison: Option<ShardIndex>,
    /// A shard that wants more memory than a worker has.
    pub hungry: Option<ShardIndex>,
    /// A shard of which no attempt can do better: it ends the job.
    #[serde(default)]
    pub fatal: Option<ShardIndex>,
    /// The task fails in one attempt of so many.
    pub failing: Option<u64>,
    pub max_attempts: u32,
    /// The operator may read nodes.
    pub nodes_known: bool,
    pub orphan_seconds: u32,
    /// Whatever ends a worker is explained at once, but for the shards above.
    pub gentle: bool,
    /// What is far behind is run a second time.
    #[serde(default)]
    pub speculation: bool,
    /// There is a last command.
    #[serde(default)]
    pub finally: bool,
    /// What is done about exit code [`ODD`], by a rule.
    #[serde(default)]
    pub rule: Option<Rule>,
    /// So many percent of the shards may fail, and whether the job stops when more have.
    #[serde(default)]
    pub tolerates: Option<(u32, bool)>,
    /// The program cannot succeed: every attempt of every shard fails alike.
    #[serde(default)]
    pub hopeless: bool,
    /// Another run is asked for at this time, whatever the job does then.
    #[serde(default)]
    pub rerun_at: Option<u64>,
    /// On so many machines each block is kept.
    #[serde(default)]
    pub blocks: Option<u32>,
    /// Blocks lie on the machines, or else go with the pods.
    #[serde(default)]
    pub disks_stay: bool,
    /// Machines are in so many zones. None: it is not known.
    #[serde(default)]
    pub zones: Option<u32>,
    /// When the faults have ended, shards are held until all copies are there again.
    #[serde(default)]
    pub calm: bool,
    /// And another one when it has ended.
    #[serde(default)]
    pub rerun_at_end: bool,
}

fn six() -> u64 {
    6
}

/// What a rule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rule {
    Ignore,
    FailShard,
    FailJob,
}

/// The exit code that a rule is about, and another.
pub const ODD: i32 = 75;
pub const PLAIN: i32 = 1;

impl Scenario {
    pub fn draw(chance: &mut Chance) -> Self {
        let most = if chance.once_in(3) { 60 } else { 16 };
        let shards = u32::try_from(1 + chance.below(most)).unwrap();
        let some_shard = |chance: &mut Chance| u32::try_from(chance.below(shards.into())).unwrap();
        let poison = chance.once_in(8).then(|| some_shard(chance));
        let hungry = chance.once_in(8).then(|| some_shard(chance)).filter(|index| poison != Some(*index));
        let pace = chance.pick(&[1, 1, 2, 4]).unwrap();
        let failing = chance.once_in(2).then(|| 10 + chance.below(50));
        let gentle = chance.once_in(8);
        let fatal = chance.once_in(12).then(|| some_shard(chance));
        let fatal = fatal.filter(|index| ![poison, hungry].contains(&Some(*index)));
        let copies = !chance.once_in(4);
        // Of another chance, so that what came after it in older seeds comes as it did.
        let mut other = Chance(chance.0 ^ 0x0007_314e);
        let speculation = copies && other.once_in(3);
        let mut drawn = Self {
            copies,
            shards,
            parallelism: u32::try_from(1 + chance.below(4)).unwrap(),
            slots: u32::try_from(1 + chance.below(3)).unwrap(),
            machines: 2 + chance.below(2),
            pace,
            slow: (pace == 1 && (chance.once_in(3) || speculation)).then_some(3),
            slow_by: if speculation { 10 } else { six() },
            poison,
            hungry,
            fatal,
            failing,
            max_attempts: if hungry.is_some() { 4 } else { 10 },
            nodes_known: gentle || !chance.once_in(4),
            orphan_seconds: if chance.once_in(8) { 4 } else { 600 },
            gentle,
            rule: None,
            tolerates: None,
            hopeless: false,
            rerun_at: None,
            rerun_at_end: false,
            blocks: None,
            disks_stay: false,
            zones: None,
            calm: false,
            speculation,
            finally: copies && other.once_in(4),
        };
        drawn.draw_policy(chance);
        drawn.speculation &= drawn.copies;
        drawn.finally &= drawn.copies;
        let mut other = Chance(chance.0 ^ 0xb10c);
        if drawn.copies && other.once_in(4) {
            drawn.blocks = Some(u32::try_from(1 + other.below(2)).unwrap());
            drawn.disks_stay = other.once_in(2);
            drawn.machines = 3 + other.below(2);
            drawn.parallelism = drawn.parallelism.max(3);
            if other.once_in(3) {
                drawn.draw_calm(&mut other);
            }
            drawn.zones = other.once_in(2).then_some(2);
        }
        drawn
    }

    pub fn zone_of(&self, machine: usize) -> Option<String> {
        self.zones.map(|zones| format!("zone-{}", machine % zones as usize))
    }

    /// A job that is not over before its copies are judged, with a worker for each machine.
    fn draw_calm(&mut self, chance: &mut Chance) {
        self.calm = true;
        self.blocks = Some(u32::try_from(1 + chance.below(3)).unwrap());
        self.disks_stay = !chance.once_in(3);
        self.machines = 3 + chance.below(4);
        (self.parallelism, self.slots) = (u32::try_from(self.machines).unwrap(), 1);
        self.shards = self.shards.clamp(2 * self.parallelism, 30);
        (self.poison, self.hungry, self.fatal, self.rule, self.tolerates) = (None, None, None, None, None);
        (self.hopeless, self.speculation, self.gentle) = (false, false, false);
        (self.rerun_at, self.rerun_at_end, self.max_attempts) = (None, false, 10);
    }

    /// Rules, shards that may fail, a program that cannot succeed, and other runs.
    fn draw_policy(&mut self, chance: &mut Chance) {
        self.rerun_at = chance.once_in(6).then(|| 500 + chance.below(8000));
        self.rerun_at_end = chance.once_in(6);
        if chance.once_in(4) {
            self.rule = chance.pick(&[Rule::Ignore, Rule::FailShard, Rule::FailShard, Rule::FailJob]);
            self.failing = Some(if self.rule == Some(Rule::FailJob) { 60 } else { 3 });
            self.fatal = None;
            self.max_attempts = if self.hungry.is_some() { 4 } else { 2 };
        }
        if chance.once_in(4) {
            self.fatal = None;
            self.tolerates = Some((5 + u32::try_from(chance.below(40)).unwrap(), chance.once_in(2)));
            self.failing = self.failing.map(|one_in| one_in.min(4));
            self.max_attempts = if self.hungry.is_some() { 4 } else { 2 };
        }
        if self.shards > 30 && chance.once_in(3) {
            (self.hopeless, self.copies, self.max_attempts) = (true, false, 1);
            (self.poison, self.hungry, self.fatal, self.rule, self.rerun_at) = (None, None, None, None, None);
            (self.rerun_at_end, self.tolerates) = (false, None);
        }
    }

    pub fn limits(&self) -> Limits {
        Limits { lease_millis: LEASE_MILLIS, orphan_seconds: self.orphan_seconds, blocks_lost_millis: LOST_MILLIS }
    }

    pub fn seen(&self) -> Seen {
        let mut spec = if self.copies { copy() } else { noop(self.shards) };
        if self.speculation {
            spec["speculation"] = json!({"mode": "Duplicate"});
        }
        if let Some(replicas) = self.blocks {
            spec["blocks"] = json!({"replicas": replicas});
        }
        if self.finally {
            spec["task"] = json!({"exec": {"image": "i", "command": ["work"], "input": "Stdin", "output": "Stdout"}});
            spec["finally"] = json!({"command": ["merge"]});
        }
        spec["parallelism"] = self.parallelism.into();
        spec["workers"]["slots"] = self.slots.into();
        spec["failurePolicy"] =
            json!({"maxAttempts": self.max_attempts, "backoff": {"initialSeconds": 1, "maxSeconds": 4}});
        if let Some(rule) = self.rule {
            let codes = json!({"operator": "In", "values": [ODD]});
            spec["failurePolicy"]["rules"] = json!([{"action": rule, "onExitCodes": codes}]);
        }
        if let Some((percent, stops)) = self.tolerates {
            spec["failurePolicy"]["maxFailedShards"] = json!(format!("{percent}%"));
            spec["failurePolicy"]["whenExceeded"] = json!(if stops { "Stop" } else { "Finish" });
        }
        Seen {
            uid: JobUid("5b1e0c44".into()),
            namespace: "n".into(),
            name: "j".into(),
            generation: 1,
            spec: serde_json::from_value(spec).unwrap(),
            status: ShardJobStatus::default(),
            deleting: false,
            abandoned: false,
        }
    }
}

fn copy() -> Value {
    json!({
        "source": {"files": {"url": "file:///data/in", "boundary": "Byte", "bytesPerShard": "1Mi"}},
        "task": {"copy": {}}, "output": {"url": "file:///data/out/"},
        "workers": {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    })
}

fn noop(shards: u32) -> Value {
    json!({"source": {"numbers": {"count": shards}}, "task": {"noop": {}}, "workers": {}})
}
