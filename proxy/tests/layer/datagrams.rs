//! UDP, both ways.

use std::cell::RefCell;
use std::net::{SocketAddr, UdpSocket};
use std::rc::Rc;
use std::time::Duration;

use mirrord_protocol::control::Protocol;
use mirrord_protocol::layer::{Slot, Status};
use socket2::{Domain, Socket, Type};

use crate::agent::{REACHABLE, REFUSING, TARGET};
use crate::client::udp;
use crate::{app, on_one_thread, ready, until};

#[test]
fn datagrams_go_to_a_remote_address_and_their_answers_come_from_it() {
    on_one_thread(async {
        let (session, _agent) = ready().await;
        let client = session.app.clone();
        app(move || {
            let remote = SocketAddr::from((REACHABLE, 5000));
            let to = client.peer(remote).unwrap();
            assert_eq!(client.peer(remote).unwrap(), to, "one stand-in for all");
            let page = client.map();
            assert_eq!(page.datagrams(), to.port());
            let slot = Slot::of_remote(to.ip()).unwrap();
            assert_eq!(page.local(slot), Some((TARGET, 0).into()));
            let (socket, connected) = (udp(), udp());
            connected.connect(to).unwrap();
            let mut buffer = [0; 2048];
            for len in [0, 1, 1400] {
                socket.send_to(&vec![7; len], to).unwrap();
                assert_eq!(socket.recv_from(&mut buffer).unwrap(), (len, to));
                connected.send(&vec![8; len]).unwrap();
                assert_eq!(connected.recv(&mut buffer).unwrap(), len);
            }
        })
        .await;
    });
}

#[test]
fn an_address_to_which_no_way_leads_has_no_stand_in() {
    on_one_thread(async {
        let (session, _agent) = ready().await;
        let client = session.app.clone();
        app(move || {
            let port = u16::try_from(nix::libc::ENETUNREACH).unwrap();
            let refused = client.peer((REFUSING, port).into());
            assert_eq!(refused, Err(nix::libc::ENETUNREACH));
        })
        .await;
    });
}

#[test]
fn a_targets_client_is_answered() {
    on_one_thread(async {
        let (session, agent) = ready().await;
        let client = session.app.clone();
        let socket = app(move || {
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
            assert_eq!(client.bind(&socket, "0.0.0.0:5353").status, Status::Done);
            UdpSocket::from(socket)
        })
        .await;
        agent.wants(&[5353]).await;
        let stream = agent.client(Protocol::Udp, "203.0.113.9:40000", 5353);
        let heard: Rc<RefCell<Vec<Vec<u8>>>> = Rc::default();
        let hears = Rc::clone(&heard);
        stream.on_datagram(move |payload| hears.borrow_mut().push(payload.to_vec()));
        stream.send_datagram(b"question");
        let page = session.app.map();
        app(move || {
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let mut buffer = [0; 64];
            let (len, from) = socket.recv_from(&mut buffer).unwrap();
            assert_eq!(&buffer[..len], b"question");
            assert_eq!(page.behind(from), Some("203.0.113.9:40000".parse().unwrap()));
            socket.send_to(b"answer", from).unwrap();
            socket
        })
        .await;
        until("the client is answered", || *heard.borrow() == [b"answer"]).await;
    });
}
