//! Names.

use std::net::IpAddr;

use mirrord_protocol::layer::{ADDRESS_LEN, Cause, Name, Request, Status, decode_address};

use crate::agent::NAME_SERVER;
use crate::client::{App, udp};
use crate::{app, on_one_thread, ready, ready_with};

fn resolve(client: &App, name: &str, v4: bool, v6: bool) -> Result<(Vec<IpAddr>, String), Cause> {
    let name = Name::new(name.as_bytes()).unwrap();
    let answer = client.ask(&Request::Resolve { name, v4, v6 });
    if answer.reply.status != Status::Done {
        return Err(Cause::of(answer.reply.value));
    }
    let (count, rest) = answer.payload.split_first_chunk::<2>().unwrap();
    let (addresses, canonical) =
        rest.split_at(usize::from(u16::from_le_bytes(*count)) * ADDRESS_LEN);
    let (addresses, _) = addresses.as_chunks::<ADDRESS_LEN>();
    let addresses = addresses.iter().map(|bytes| decode_address(bytes).unwrap().ip());
    Ok((addresses.collect(), String::from_utf8(canonical.to_vec()).unwrap()))
}

#[test]
fn names_are_resolved_as_at_the_target() {
    on_one_thread(async {
        let (session, _agent) = ready().await;
        let client = session.app.clone();
        app(move || {
            let found = |name: &str| {
                let (addresses, canonical) = resolve(&client, name, true, true).unwrap();
                format!("{addresses:?} {canonical}")
            };
            assert_eq!(found("db"), "[10.1.2.3] db.shop.example");
            assert_eq!(found("db.shop.example."), "[10.1.2.3] db.shop.example");
            assert_eq!(found("only"), "[2001:db8::7] only.example");
            assert_eq!(found("in-hosts"), "[10.9.9.9] in-hosts");
            assert_eq!(found("added"), "[10.0.0.1] added");
            assert_eq!(resolve(&client, "nobody", true, true), Err(Cause::NotFound));
            assert_eq!(resolve(&client, "only", true, false), Err(Cause::NoData));
            assert_eq!(client.map().hostname(), b"web-0");
        })
        .await;
    });
}

#[test]
fn questions_are_answered_as_they_came() {
    on_one_thread(async {
        let (session, _agent) = ready().await;
        let client = session.app.clone();
        app(move || {
            let ask = |name: &[u8], search| {
                let name = Name::new(name).unwrap();
                client.ask(&Request::Query { name, class: 1, kind: 1, search })
            };
            let answer = ask(b"db", true);
            assert_eq!(answer.reply.status, Status::Done);
            assert!(answer.payload.ends_with(&[0, 4, 10, 1, 2, 3]));
            let answer = ask(b"db", false);
            assert_eq!(answer.reply.status, Status::Refused);
            assert_eq!(Cause::of(answer.reply.value), Cause::NotFound);
            assert_eq!(ask(b"a..b", false).reply.status, Status::Refused);
            assert_eq!(ask(&[0xff; 63], false).reply.status, Status::Refused);
        })
        .await;
    });
}

#[test]
fn who_asks_a_name_server_itself_asks_the_targets() {
    on_one_thread(async {
        let (session, _agent) = ready().await;
        let client = session.app.clone();
        app(move || {
            let to = client.peer((NAME_SERVER, 53).into()).unwrap();
            let socket = udp();
            let mut question = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
            question.extend(b"\x02db\x04shop\x07example\0\0\x01\0\x01");
            socket.send_to(&question, to).unwrap();
            let mut buffer = [0; 512];
            let (len, from) = socket.recv_from(&mut buffer).unwrap();
            assert_eq!(from, to);
            assert!(buffer[..len].ends_with(&[0, 4, 10, 1, 2, 3]));
        })
        .await;
    });
}

#[test]
fn a_resolver_of_its_own_finds_what_the_targets_search_list_leads_to() {
    let conf = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers = conf.lines().filter_map(|line| line.strip_prefix("nameserver "));
    let mut servers = servers.filter_map(|server| server.trim().parse::<IpAddr>().ok());
    let Some(server) = servers.next() else {
        return eprintln!("SKIPPED: this machine has no name server");
    };
    on_one_thread(async move {
        let (session, _agent) = ready().await;
        let client = session.app.clone();
        app(move || {
            let to = client.peer((server, 53).into()).unwrap();
            let ask = |name: &[u8]| {
                let socket = udp();
                let mut question = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
                question.push(u8::try_from(name.len()).unwrap());
                question.extend(name);
                question.extend(b"\0\0\x01\0\x01");
                socket.send_to(&question, to).unwrap();
                let mut buffer = [0; 512];
                let (len, _) = socket.recv_from(&mut buffer).unwrap();
                buffer[..len].to_vec()
            };
            assert!(ask(b"db").ends_with(&[0, 4, 10, 1, 2, 3]));
            assert!(ask(b"in-hosts").ends_with(&[0, 4, 10, 9, 9, 9]));
            assert_eq!(ask(b"nobody")[3] & 0xf, 3);
        })
        .await;
    });
}

#[test]
fn without_the_targets_names_the_app_asks_by_itself() {
    on_one_thread(async {
        let (session, _agent) = ready_with(|config, _| config.remote_dns = false).await;
        let client = session.app.clone();
        app(move || {
            let name = Name::new(b"db").unwrap();
            let resolve = Request::Resolve { name, v4: true, v6: true };
            let query = Request::Query { name, class: 1, kind: 1, search: true };
            for request in [resolve, query] {
                assert_eq!(client.ask(&request).reply.status, Status::Direct);
            }
        })
        .await;
    });
}
