//! Ids of containers, and the names that runtimes make of them.

use std::{fmt, str::FromStr};

/// Shorter ones would be found in names by chance; longer ones no runtime makes.
const LENGTH: std::ops::RangeInclusive<usize> = 12..=128;

/// A container's id, as its runtime gave it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ContainerId(String);

/// The text is no container's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a container's id has 12 to 128 letters, digits, dashes and underscores")]
pub struct NotAnId;

impl FromStr for ContainerId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let may_be = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        match LENGTH.contains(&text.len()) && text.bytes().all(may_be) {
            true => Ok(Self(text.to_owned())),
            false => Err(NotAnId),
        }
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ContainerId {
    /// Whether a process with this `/proc/PID/cgroup` is in the container.
    pub(super) fn has(&self, cgroups: &str) -> bool {
        let paths = cgroups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
        paths.flat_map(|path| path.split('/')).any(|name| self.is_named(name))
    }

    /// Whether a cgroup's name is the container's: `ID`, `RUNTIME-ID.scope`, or
    /// `SLICE:RUNTIME:ID`. The monitor of a container has a cgroup like its own.
    fn is_named(&self, name: &str) -> bool {
        let name = name.strip_suffix(".scope").unwrap_or(name);
        let Some(before) = name.strip_suffix(&self.0) else { return false };
        before.is_empty()
            || before.ends_with(':')
            || before.ends_with('-') && !before.ends_with("conmon-")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "eb81890927c4071dbe1a52ec769476e0e208354df4921150e3bc36ac74b2195f";

    fn is_in(path: &str) -> bool {
        let id: ContainerId = ID.parse().unwrap();
        let path = path.replace("ID", ID);
        let (first, unified) = (format!("0::/\n8:pids:{path}\n"), format!("0::{path}"));
        assert_eq!(id.has(&first), id.has(&unified), "{path}");
        id.has(&first)
    }

    #[test]
    fn the_cgroups_of_every_runtime_are_recognised() {
        for path in [
            "/kubepods/besteffort/podb6e072bd-1064-47cd-ba4c-9d3c8193c64a/ID",
            "/kubepods.slice/kubepods-pod1.slice/cri-containerd-ID.scope",
            "/kubepods.slice/kubepods-pod1.slice/crio-ID.scope",
            "/kubepods.slice/kubepods-pod1.slice/crio-ID.scope/container",
            "/kubepods.slice/kubepods-pod1.slice/docker-ID.scope",
            "/system.slice/kubepods-burstable-pod1.slice:cri-containerd:ID",
            "/docker/0123456789ab/kubepods/pod1/ID/init.scope",
            "/../../pod1/ID",
            "/../cri-containerd-ID.scope",
        ] {
            assert!(is_in(path), "{path}");
        }
    }

    #[test]
    fn other_cgroups_are_not_the_containers() {
        for path in [
            "/",
            "",
            "/IDf",
            "/fID",
            "/cri-containerd-fID.scope",
            "/cri-containerd-ID-more.scope",
            "/crio-conmon-ID.scope",
            "/libpod-conmon-ID.scope",
        ] {
            assert!(!is_in(path), "{path}");
        }
        let id: ContainerId = ID.parse().unwrap();
        assert!(!id.has("not a line of cgroups\n\n::\n"));
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in ["", "short", "../../../etc/passwd", "0123456789ab/", "0123456789äöü", "a b"]
        {
            assert_eq!(text.parse::<ContainerId>(), Err(NotAnId), "{text}");
        }
        assert_eq!("x".repeat(129).parse::<ContainerId>(), Err(NotAnId));
        assert_eq!("crio_name-0123".parse::<ContainerId>().unwrap().to_string(), "crio_name-0123");
    }
}
