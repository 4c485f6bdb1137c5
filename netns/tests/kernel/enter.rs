//! Finding a container's process by its cgroup, and entering its namespaces.

use std::{fs, io::ErrorKind, thread};

use mirrord_netns::{
    enter::{EnterError, Place, Process},
    privileges::{Capability, has, keep_only},
};

use crate::{container::Container, support::*};

/// Runs on a thread that may end up in any namespace.
fn aside<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(act).join().unwrap())
}

fn hostname() -> String {
    nix::unistd::gethostname().unwrap().into_string().unwrap()
}

#[test]
fn a_container_is_found_by_its_id_and_its_namespaces_are_entered() {
    isolated(|| {
        let container = Container::start("found", &["-n", "-u", "-p", "-f", "--mount-proc"]);
        let process = Process::find(&container.id).unwrap();
        assert!(process.is_alive());
        let status = fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
        assert!(status.contains("\t1\n"), "its init, not who started it: {status}");
        let inside = aside(|| {
            assert_eq!(process.enter().unwrap(), Place::Other);
            assert_eq!(process.enter().unwrap(), Place::Own);
            (hostname(), ip("-br link"))
        });
        assert_eq!(inside.0, "found");
        assert_eq!(inside.1.lines().count(), 1, "{}", inside.1);
        assert_ne!(hostname(), "found");
    });
}

#[test]
fn threads_enter_containers_each_on_its_own() {
    isolated(|| {
        let containers = ["first", "second"].map(|name| Container::start(name, &["-n", "-u"]));
        let names = thread::scope(|scope| {
            let enter = |container: &Container| {
                Process::find(&container.id).unwrap().enter().unwrap();
                hostname()
            };
            let [first, second] = &containers;
            let (first, second) =
                (scope.spawn(move || enter(first)), scope.spawn(move || enter(second)));
            [first.join().unwrap(), second.join().unwrap()]
        });
        assert_eq!(names, ["first", "second"]);
    });
}

#[test]
fn a_container_that_is_gone_is_refused_by_name() {
    isolated(|| {
        let mut container = Container::start("ending", &["-n", "-u"]);
        let process = Process::find(&container.id).unwrap();
        container.kill();
        assert!(!process.is_alive());
        assert!(matches!(process.enter(), Err(EnterError::Gone(_))));
        let error = Process::find(&container.id).unwrap_err().to_string();
        assert_eq!(error, format!("no process of the container {} runs here", container.id));
    });
}

#[test]
fn a_pod_that_uses_its_nodes_network_is_refused() {
    if !has(Capability::SysAdmin) {
        return isolated(|| {});
    }
    let container = Container::start("hostnet", &["-u"]);
    isolated(|| {
        let error = Process::find(&container.id).unwrap().enter().unwrap_err();
        assert_eq!(error.to_string(), "the pod uses its node's own network");
    });
}

#[test]
fn the_own_namespaces_need_no_capability_and_others_say_which() {
    isolated(|| {
        let beside = Container::start("beside", &["-u"]);
        let other = Container::start("elsewhere", &["-n", "-u"]);
        let (own, refused) = aside(|| {
            keep_only(&[Capability::NetAdmin]).unwrap();
            let enter = |container: &Container| Process::find(&container.id).unwrap().enter();
            (enter(&beside).unwrap(), enter(&other).unwrap_err())
        });
        assert_eq!(own, Place::Own);
        let EnterError::NotAllowed(missing) = refused else { panic!("{refused}") };
        assert_eq!(missing.to_string(), "the agent has no SYS_ADMIN and no SYS_PTRACE");
    });
}

#[test]
fn a_listener_is_inherited_and_nothing_else_is() {
    use mirrord_netns::inherited::listener;
    use std::os::fd::AsRawFd;
    let bound = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener(bound.as_raw_fd()).unwrap();
    assert_eq!(taken.local_addr().unwrap(), bound.local_addr().unwrap());
    assert_eq!(taken.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    assert!(listener(-1).is_err());
    assert!(listener(udp(socket("127.0.0.1", 0)).as_raw_fd()).is_err());
    assert!(listener(fs::File::open("/dev/null").unwrap().as_raw_fd()).is_err());
}
