//! Processes of pods, as this machine sees them: possible only where the nodes of the cluster are on it.

use std::{fs, process::Command, time::SystemTime};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use crate::{Result, ensure};

/// SIGKILL to the processes of a pod's containers; when.
///
/// # Errors
/// When there is none, or it could not be killed.
pub fn kill(pod: &Pod) -> Result<SystemTime> {
    let found = of(pod)?;
    let at = SystemTime::now();
    let killed = Command::new("kill").arg("-KILL").args(found.iter().map(u32::to_string)).status()?;
    ensure(killed.success(), || format!("could not kill {found:?} of pod {}", pod.name_any()))?;
    Ok(at)
}

/// Bytes of memory that the processes of a pod's containers have resident.
///
/// # Errors
/// When there is none.
pub fn resident(pod: &Pod) -> Result<u64> {
    of(pod)?.into_iter().map(resident_of).sum()
}

/// The network that a pod's containers are in.
///
/// # Errors
/// When there is no process of it.
pub fn network(pod: &Pod) -> Result<fs::File> {
    let pid = of(pod)?.into_iter().next().ok_or("a pod without processes")?;
    Ok(fs::File::open(format!("/proc/{pid}/ns/net"))?)
}

/// A process is in the control group that bears its container's ID.
fn of(pod: &Pod) -> Result<Vec<u32>> {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let containers: Vec<&str> = statuses
        .filter_map(|container| container.container_id.as_deref()?.split_once("://").map(|(_, id)| id))
        .filter(|id| !id.is_empty())
        .collect();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(pid) = entry?.file_name().to_string_lossy().parse() else { continue };
        // A process may end while we look.
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        if containers.iter().any(|id| groups.contains(id)) {
            found.push(pid);
        }
    }
    let none = || format!("no process of pod {} is on this machine: unset CLUSTER=current", pod.name_any());
    ensure(!found.is_empty(), none)?;
    Ok(found)
}

fn resident_of(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).ok_or("a process that has no memory")?;
    Ok(kib.trim().parse::<u64>()? * 1024)
}
