//! What the kernel shows of a container: a process in a cgroup and in namespaces.

use std::{
    fs,
    io::{BufRead, BufReader, ErrorKind},
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use mirrord_netns::enter::ContainerId;

/// A process in a cgroup named after its container, and with namespaces of its own.
pub struct Container {
    pub id: ContainerId,
    child: Child,
    _stdin: ChildStdin,
    cgroup: PathBuf,
}

impl Container {
    /// Starts one whose host name is its own too, and in its variable `CONTAINER`; `flags` are
    /// those of unshare(1).
    pub fn start(name: &str, flags: &[&str]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let id = format!("{name}-{:08x}{number:08x}", std::process::id());
        let cgroup = cgroups().join(format!("cri-containerd-{id}.scope"));
        fs::create_dir(&cgroup).unwrap();
        let script = format!(
            "echo $$ > {}/cgroup.procs; exec unshare {} sh -c 'hostname {name} 2> /dev/null; \
             ip link set lo up; echo ready; read x'",
            cgroup.display(),
            flags.join(" "),
        );
        let mut child = Command::new("sh")
            .args(["-c", &script])
            .env("CONTAINER", name)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        let stdin = child.stdin.take().unwrap();
        Self { child, _stdin: stdin, id: id.parse().unwrap(), cgroup }
    }

    fn members(&self) -> String {
        fs::read_to_string(self.cgroup.join("cgroup.procs")).unwrap_or_default()
    }

    /// Kills all of it.
    pub fn kill(&mut self) {
        for pid in self.members().lines() {
            let _ = Command::new("kill").args(["-9", pid]).stderr(Stdio::null()).status();
        }
        let _ = self.child.wait();
        while !self.members().is_empty() {
            thread::yield_now();
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.kill();
        while fs::remove_dir(&self.cgroup).is_err_and(|e| e.kind() == ErrorKind::ResourceBusy) {
            thread::yield_now();
        }
    }
}

/// Where cgroups can be made: any hierarchy will do.
fn cgroups() -> PathBuf {
    let root = PathBuf::from("/sys/fs/cgroup");
    let pids = root.join("pids");
    if pids.is_dir() { pids } else { root }
}
