//! Programs with the layer, in each libc that this machine has; `probe.c` is what they are.

#[path = "../../../cli/build/layer.rs"]
mod layer;
#[path = "../common/libcs.rs"]
mod libcs;
#[path = "../common/library.rs"]
mod library;
#[path = "../../../cli/build/nested.rs"]
mod nested;
mod proxy;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};
use std::sync::OnceLock;

use libcs::Binary;
use proxy::Proxy;

/// The program in each libc.
fn probes() -> &'static [Binary] {
    static PROBES: OnceLock<Vec<Binary>> = OnceLock::new();
    let source = Path::new("tests/programs/probe.c");
    PROBES.get_or_init(|| libcs::compiled(source, &["-pthread"], libcs::ALL))
}

/// Runs a test in each of them, with a proxy of its own.
fn in_each(test: impl Fn(&dyn Fn(&[&str]) -> Program, &Proxy)) {
    for probe in probes() {
        let proxy = Proxy::start();
        test(&|words| Program::start(probe, &proxy, words), &proxy);
    }
}

/// A probe that runs.
struct Program {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Program {
    fn start(probe: &Binary, proxy: &Proxy, words: &[&str]) -> Self {
        let mut command = probe.loaded();
        command.args(words).env("MIRRORD_LAYER", proxy.variable()).stdin(Stdio::null());
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it runs");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, output }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    }

    fn rest(mut self) -> Vec<String> {
        let mut text = String::new();
        self.output.read_to_string(&mut text).expect("text");
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "{status}: {text}");
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn every_way_to_accept_shows_the_real_client() {
    in_each(|run, proxy| {
        let mut program = run(&["serve", "0.0.0.0", "8080"]);
        assert_eq!(program.line(), "listens 0.0.0.0:8080/16");
        for way in 0..6 {
            let client = proxy.client(8080, &format!("10.9.0.7:{}", 1000 + way), "10.9.0.100:80");
            if way == 3 {
                assert_eq!(program.line(), "cut 2/16");
            }
            let seen = format!("10.9.0.7:{}/16", 1000 + way);
            let expected = format!("accepted {seen} peer {seen} local 10.9.0.100:80/16");
            assert_eq!(program.line(), expected);
            drop(client);
        }
        assert_eq!(program.rest(), [""; 0]);
    });
}

#[test]
fn a_dual_stack_listener_sees_clients_of_both_families() {
    in_each(|run, proxy| {
        let mut program = run(&["serve", "::", "8081"]);
        assert_eq!(program.line(), "listens [::]:8081/28");
        let _first = proxy.client(8081, "10.9.0.7:1", "10.9.0.100:8081");
        let (peer, local) = ("[::ffff:10.9.0.7]:1/28", "[::ffff:10.9.0.100]:8081/28");
        assert_eq!(program.line(), format!("accepted {peer} peer {peer} local {local}"));
        let _second = proxy.client(8081, "[2001:db8::7]:1", "[2001:db8::100]:8081");
        let (peer, local) = ("[2001:db8::7]:1/28", "[2001:db8::100]:8081/28");
        assert_eq!(program.line(), format!("accepted {peer} peer {peer} local {local}"));
    });
}

#[test]
fn connecting_is_as_the_far_end_answers() {
    in_each(|run, _| {
        let lines = run(&["call", "10.9.0.1", "80"]).rest();
        assert_eq!(lines[0], "connect 0 -");
        assert!(lines[1].starts_with("peer 10.9.0.1:80/16 local 10.9.0.100:"), "{lines:?}");
        assert_eq!(lines[2..], ["once more -1", "heard pong"]);
        let lines = run(&["call", "2001:db8::1", "80"]).rest();
        assert!(lines[1].starts_with("peer [2001:db8::1]:80/28 local "), "{lines:?}");
        assert_eq!(lines[3], "heard pong");
        let lines = run(&["call", "10.9.0.2", "80"]).rest();
        assert_eq!(lines, ["connect -1 EHOSTUNREACH", "peer ENOTCONN"]);
        let lines = run(&["call", "10.9.0.3", "80"]).rest();
        assert_eq!(lines, ["connect -1 ECONNREFUSED", "peer ENOTCONN"]);
    });
}

#[test]
fn connecting_without_waiting_is_as_the_far_end_answers() {
    let slow = &proxy::SLOW.to_string();
    in_each(|run, _| {
        let lines = run(&["call-later", "10.9.0.1", slow]).rest();
        let begun = ["connect -1 EINPROGRESS", "again -1 EALREADY"];
        assert_eq!(lines[..2], begun);
        assert_eq!(lines[2..4], ["outcome 0", "then 0"]);
        assert!(lines[4].starts_with("peer 10.9.0.1:81/16 local 10.9.0.100:"), "{lines:?}");
        // The kernel as well says 0 once, and then that it is connected.
        assert_eq!(lines[5..], ["once more 0", "heard pong"]);
        for (ip, errno) in [("10.9.0.2", "EHOSTUNREACH"), ("10.9.0.3", "ECONNREFUSED")] {
            let lines = run(&["call-later", ip, slow]).rest();
            assert_eq!(lines[..2], begun);
            assert_eq!(lines[2], format!("outcome {errno}"));
            assert_eq!(lines[4], "peer ENOTCONN");
        }
    });
}

#[test]
fn a_socket_of_multipath_tcp_connects() {
    in_each(|run, _| {
        let lines = run(&["call-mptcp", "10.9.0.1", "80"]).rest();
        assert_eq!(lines[0], "connect -1 EINPROGRESS");
        assert_eq!(lines.last().map(String::as_str), Some("heard pong"), "{lines:?}");
    });
}

#[test]
fn a_socket_that_failed_connects_again() {
    in_each(|run, _| {
        for (bad, errno) in [("10.9.0.2", "EHOSTUNREACH"), ("10.9.0.3", "ECONNREFUSED")] {
            let lines = run(&["retry", bad, "80", "10.9.0.1"]).rest();
            assert_eq!(lines[0], format!("first -1 {errno}"));
            assert_eq!(lines[1..], ["second 0 -", "peer 10.9.0.1:80/16", "heard pong"]);
        }
    });
}

#[test]
fn a_bound_socket_connects() {
    in_each(|run, _| {
        for own in [["0.0.0.0", "0"], ["127.0.0.1", "0"], ["0.0.0.0", "4711"]] {
            let lines = run(&["from", "10.9.0.1", "80", own[0], own[1]]).rest();
            assert_eq!(lines[0], "connect 0 -", "{own:?}");
            assert!(lines[1].starts_with("peer 10.9.0.1:80/16 local 10.9.0.100:"), "{lines:?}");
            assert!(own[1] == "0" || lines[1].ends_with(":4711/16"), "{lines:?}");
            assert_eq!(lines[2], "heard pong");
        }
    });
}

#[test]
fn datagrams_go_and_come_in_every_way() {
    in_each(|run, _| {
        for (ip, shown) in [("10.9.0.1", "10.9.0.1:53/16"), ("2001:db8::1", "[2001:db8::1]:53/28")]
        {
            let lines = run(&["datagrams", ip, "53"]).rest();
            assert_eq!(lines[0], format!("recvfrom a {shown}"));
            assert_eq!(lines[1..3], ["sendmsg 3".to_owned(), format!("recvmsg one {shown}")]);
            assert_eq!(lines[3], "sendmmsg 2 3 3");
            assert_eq!(lines[4], format!("recvmmsg one {shown}"));
            assert_eq!(lines[5], format!("recvmmsg two {shown}"));
            assert_eq!(lines[6], "connect 0 -");
            assert!(lines[7].starts_with(&format!("peer {shown} local ")), "{lines:?}");
            assert_eq!(lines[8], "heard ping");
        }
    });
}

#[test]
fn a_server_of_datagrams_sees_its_clients() {
    in_each(|run, proxy| {
        let clients =
            [("0.0.0.0", 5353, "10.9.0.7:999/16"), ("::", 5354, "[::ffff:10.9.0.7]:999/28")];
        for (ip, port, shown) in clients {
            let mut program = run(&["echo", ip, &port.to_string()]);
            let line = program.line();
            assert!(line.contains(&format!(":{port}/")), "{line}");
            assert_eq!(proxy.ask(port, "10.9.0.7:999", "hello"), "hello");
            assert_eq!(program.rest(), [format!("from {shown}: hello")]);
        }
    });
}

#[test]
fn an_app_meets_its_own_listener_on_loopback() {
    in_each(|run, _| {
        let lines = run(&["meet", "0.0.0.0", "8082", "127.0.0.1"]).rest();
        let met = ["the same", "peer 127.0.0.1:8082/16 local 127.0.0.1:8082/16"];
        assert_eq!(lines[1..], met);
        let lines = run(&["meet", "127.0.0.1", "8083", "127.0.0.1"]).rest();
        assert_eq!(lines[0], "listens 127.0.0.1:8083/16");
        let lines = run(&["meet", "::", "8084", "::1"]).rest();
        assert_eq!(lines[2], "peer [::1]:8084/28 local [::1]:8084/28");
    });
}

#[test]
fn a_port_is_taken_once() {
    in_each(|run, _| {
        let lines = run(&["taken", "-", "8085"]).rest();
        assert_eq!(lines[1..3], ["second -1 EADDRINUSE", "after 0 -"]);
        assert_eq!(lines[3..], ["shared 0 -", "0.0.0.0:8085/16", "shared 0 -", "0.0.0.0:8085/16"]);
    });
}

#[test]
fn a_thread_that_accepts_is_cancelled() {
    in_each(|run, _| {
        let lines = run(&["cancel", "-", "8086"]).rest();
        assert_eq!(lines[1..], ["cleaned up", "cancelled"]);
    });
}

#[test]
fn a_signal_interrupts() {
    in_each(|run, _| {
        let lines = run(&["interrupt", "-", "8087"]).rest();
        assert_eq!(lines[1..], ["accept -1 EINTR"]);
    });
}

#[test]
fn no_question_to_the_proxy_is_interrupted() {
    in_each(|run, _| {
        let lines = run(&["storm", "10.9.0.1", "8093"]).rest();
        assert_eq!(lines, ["bound 200 listened 200 connected 20"]);
    });
}

#[test]
fn descriptors_are_numbered_as_without_us() {
    in_each(|run, _| {
        assert_eq!(run(&["numbers", "10.9.0.1", "8088"]).rest(), ["0 0 3 0"]);
        let lines = run(&["full", "10.9.0.1", "8089"]).rest();
        assert_eq!(lines, ["bind -1 EMFILE", "connect -1 EMFILE"]);
    });
}

#[test]
fn children_share_what_was_mapped() {
    in_each(|run, _| {
        let lines = run(&["forks", "10.9.0.1", "8090"]).rest();
        let rest = ["listens 0.0.0.0:8090/16", "child 0.0.0.0:8090/16"];
        assert_eq!((lines[0].as_str(), &lines[1..]), ("vfork 0", &rest.map(str::to_owned)[..]));
    });
}

#[test]
fn odd_arguments_are_the_kernels_to_judge() {
    in_each(|run, _| {
        let lines = run(&["odd", "10.9.0.1", "8091"]).rest();
        let expected = [
            "null -1 EFAULT",
            "short -1 EINVAL",
            "bad -1 EBADF",
            "negative -1 EINVAL",
            "unnamed family 1/2",
            "fast open -1 EOPNOTSUPP",
            "unspec 0",
            "family -1 EAFNOSUPPORT",
            "any port 127.0.0.1:",
        ];
        for (line, expected) in lines.iter().zip(expected) {
            assert!(expected.starts_with(line), "{line}, not {expected}");
        }
    });
}

#[test]
fn many_threads_accept_at_once() {
    in_each(|run, proxy| {
        let mut program = run(&["threads", "-", "8092"]);
        program.line();
        for count in 0..500 {
            let mut client =
                proxy.client(8092, &format!("10.9.0.77:{}", count + 1), "10.9.0.100:1");
            let _ = client.write_all(b"x");
        }
        assert_eq!(program.rest(), ["all"]);
    });
}

#[test]
fn programs_are_left_alone_by_name() {
    in_each(|run, proxy| {
        let names = libcs::ALL.iter().map(|libc| format!("probe-{libc:?}"));
        proxy.skip(&names.collect::<Vec<_>>().join("\0"));
        let free = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = free.local_addr().expect("an address");
        drop(free);
        let mut program = run(&["serve", "127.0.0.1", &address.port().to_string()]);
        assert_eq!(program.line(), format!("listens {address}/16"));
        let connected = TcpStream::connect(address);
        assert!(connected.is_ok(), "it is at its own port");
    });
}

#[test]
fn without_a_proxy_what_needs_none_goes_on() {
    for probe in probes() {
        let run = |words: &[&str]| {
            let mut command = probe.loaded();
            command.args(words).env("MIRRORD_LAYER", "mirrord-layer-test-nobody");
            let output = command.output().expect("it runs");
            assert!(output.status.success());
            String::from_utf8(output.stdout).expect("text")
        };
        assert_eq!(run(&["numbers", "10.9.0.1", "8095"]), "0 -1 3 -1\n");
        assert!(run(&["call", "127.0.0.1", "1"]).starts_with("connect -1 ECONNREFUSED\n"));
        assert!(run(&["call", "10.9.0.1", "1"]).starts_with("connect -1 ENETUNREACH\n"));
    }
}
