//! Whether the kernel has killed processes of this container because they wanted more memory than its limit.

use std::{fs::File, sync::OnceLock};

use super::kernel;

/// Where the kernel counts them: cgroup v2, and v1.
const COUNTERS: [&str; 2] = ["/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"];

/// How many it has killed so far; none where it does not say.
pub fn killed() -> u64 {
    static COUNTER: OnceLock<Option<File>> = OnceLock::new();
    let counter = COUNTER.get_or_init(|| COUNTERS.iter().find_map(|path| File::open(path).ok()));
    let text = counter.as_ref().and_then(|counter| kernel::text(counter).ok());
    text.map_or(0, |text| counted(&text))
}

fn counted(text: &str) -> u64 {
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
    count.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_of_cgroups_are_read() {
        assert_eq!(counted("low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n"), 2);
        assert_eq!(counted("oom_kill_disable 0\nunder_oom 0\noom_kill 7\n"), 7);
        assert_eq!(counted("oom_kill_disable 0\nunder_oom 0\n"), 0);
    }
}
