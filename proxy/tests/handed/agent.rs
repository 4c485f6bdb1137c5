//! An agent of which only the tunnel is real.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use mirrord_protocol::control::{Protocol, TargetIndex};
use mirrord_protocol::frame::{ClientAddr, Delivery, Description, Frame, Open, OrigDst};
use mirrord_tunnel::{Events, Greeting, Stream, Tunnel, TunnelError, accept};
use tokio::process::Child;
use tokio::task::{JoinHandle, spawn_local};

use crate::sidecar::{Sidecar, token};

/// What an agent says and does.
#[derive(Clone)]
pub struct Manner {
    pub name: &'static str,
    pub addresses: Vec<&'static str>,
    pub resolv_conf: &'static str,
    /// Why it subscribes to nothing.
    pub refuses: Option<&'static str>,
}

/// The manner of an agent beside a target of this name and address.
pub fn beside(name: &'static str, address: &'static str) -> Manner {
    let resolv_conf = "nameserver 10.96.0.10\n";
    Manner { name, addresses: vec![address], resolv_conf, refuses: None }
}

/// An agent at the far end of a pipe.
pub struct Agent {
    pub tunnel: Tunnel,
    /// Which ports it was asked for.
    pub ports: Rc<RefCell<Vec<u16>>>,
    /// Whether it was asked for the environment.
    pub asked_env: Rc<RefCell<Vec<bool>>>,
    pub bringer: Child,
    driving: JoinHandle<TunnelError>,
    doing: Rc<Doing>,
}

struct Doing {
    manner: Manner,
    tunnel: Tunnel,
    ports: Rc<RefCell<Vec<u16>>>,
    asked_env: Rc<RefCell<Vec<bool>>>,
}

impl Agent {
    /// Comes up beside a target, through a new pipe.
    pub async fn start(sidecar: &Sidecar, target: TargetIndex, manner: Manner) -> Self {
        let id = format!("c{target}");
        let (bringer, pipe) = sidecar.bring(target, Some(&id));
        let admit = |asked: Option<&str>| asked.map(str::to_owned).ok_or_else(String::new);
        let (mut socket, asked) = accept(pipe, &token(), admit).await.unwrap();
        assert_eq!(asked, id);
        let mut greeting = Greeting::hear(&mut socket).await.unwrap();
        if greeting.received.is_some() {
            greeting = greeting.deny(&mut socket).await.unwrap();
        }
        let tunnel = Tunnel::of(&greeting);
        let (ports, asked_env) = (Rc::default(), Rc::default());
        let doing = Rc::new(Doing {
            manner,
            tunnel: tunnel.clone(),
            ports: Rc::clone(&ports),
            asked_env: Rc::clone(&asked_env),
        });
        let (driven, acting) = (tunnel.clone(), doing.clone());
        let driving = spawn_local(async move { driven.drive(socket, &*acting).await });
        Self { tunnel, ports, asked_env, bringer, driving, doing }
    }

    /// Its pipe breaks.
    pub async fn cut(&mut self) {
        self.driving.abort();
        assert!(self.bringer.wait().await.unwrap().success());
    }

    /// It is reached through another pipe.
    pub async fn resume(&mut self, sidecar: &Sidecar, target: TargetIndex) {
        let (bringer, pipe) = sidecar.bring(target, Some("again"));
        let mut socket = accept(pipe, &token(), |_| Ok(())).await.unwrap().0;
        let greeting = Greeting::hear(&mut socket).await.unwrap();
        assert_eq!(greeting.tunnel, self.tunnel.id());
        assert!(self.tunnel.goes_on(&greeting));
        self.tunnel.answer(&mut socket, &greeting).await.unwrap();
        let (driven, acting) = (self.tunnel.clone(), self.doing.clone());
        self.driving = spawn_local(async move { driven.drive(socket, &*acting).await });
        self.bringer = bringer;
    }

    /// A client of its target has come.
    pub fn client(&self, client: &str, server: &str) -> Stream {
        self.tunnel.open(Open::Incoming {
            protocol: Protocol::Tcp,
            delivery: Delivery::Steal,
            client: ClientAddr(client.parse().unwrap()),
            server: OrigDst(server.parse().unwrap()),
        })
    }

    /// Dies, and waits for who brought its pipe.
    pub async fn die(mut self) -> std::process::ExitStatus {
        self.driving.abort();
        self.bringer.wait().await.unwrap()
    }

    /// Waits until the other side ends the tunnel.
    pub async fn ended(mut self) -> std::process::ExitStatus {
        self.driving.await.unwrap();
        self.bringer.wait().await.unwrap()
    }
}

impl Events for Doing {
    fn opened(&self, stream: Stream, _: Open) {
        let name = self.manner.name;
        spawn_local(async move {
            stream.accept();
            stream.send(Bytes::from(name)).await.unwrap();
            stream.finish();
            stream.broken().await;
        });
    }

    fn message(&self, frame: Frame) -> Result<(), TunnelError> {
        match frame {
            Frame::Describe { env } => {
                self.asked_env.borrow_mut().push(env);
                let addresses = &self.manner.addresses;
                let description = Description {
                    hostname: self.manner.name.into(),
                    addresses: addresses.iter().map(|ip| (ip.parse().unwrap(), 24)).collect(),
                    resolv_conf: Bytes::from(self.manner.resolv_conf),
                    hosts: Bytes::from(format!("{} {}\n", addresses[0], self.manner.name)),
                    environ: Bytes::from("A=b\0"),
                };
                self.tunnel.send(&Frame::Description(Box::new(description)));
            }
            Frame::Subscribe(port, _) => {
                self.ports.borrow_mut().push(port.number);
                let error = self.manner.refuses.map(str::to_owned);
                self.tunnel.send(&Frame::Subscribed(port, error));
            }
            Frame::Unsubscribe(port) => self.ports.borrow_mut().retain(|p| *p != port.number),
            _ => return Err(TunnelError::Unexpected),
        }
        Ok(())
    }
}
