use std::os::unix::net::UnixListener;
use std::task::Poll;

use futures_util::stream;
use mirrord_protocol::Token;
use tokio::net::unix::pipe;
use tokio::time::timeout;

use super::*;
use crate::engine::attached::Attached;
use crate::engine::target::Target;
use crate::lock::Pinned;
use crate::session::beside::{Beside, With};
use crate::session::containers::Running;
use crate::session::door::Door;
use crate::session::far::Far;

fn session(engine: &Engine, plan: &Plan, agent: Attached) -> Session {
    let with = With {
        plan: plan.clone(),
        engine: engine.clone(),
        target: Target {
            id: "web".to_owned(),
            name: "web".to_owned(),
            hostname: "web".to_owned(),
            domainname: None,
            address: None,
            pid: 1,
            pid_mode: String::new(),
            pinned: Pinned::default(),
            users_are_own: true,
        },
        door: Door::Sidecar { engine: engine.clone(), id: "proxy".to_owned() },
        volume: Some("proxy".to_owned()),
        remaps_users: false,
        token: Token::new("t"),
        image: "mirrord".to_owned(),
    };
    let mut beside = Beside::new(with, Running::new("agent".to_owned(), agent));
    beside.ready();
    Session {
        described: None,
        engine: Some(engine.clone()),
        folder: None,
        proxy: Running::new("proxy".to_owned(), Attached::to_nothing(stream::pending())),
        far: Far::Beside(Box::new(beside)),
    }
}

#[tokio::test]
async fn the_fronts_end_is_heard_while_a_new_agent_is_on_its_way() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("docker.sock");
    // An engine that never answers.
    let _silent = UnixListener::bind(&socket).expect("a socket");
    let host = format!("unix://{}", socket.display());
    let plan = Plan::example(host);
    let engine = plan.engine().expect("an address").expect("an engine");
    let (front_tx, front_rx) = pipe::pipe().expect("a pipe");
    let mut front_tx = Some(front_tx);
    let agent = Attached::to_nothing(stream::poll_fn(move |_| {
        front_tx.take();
        Poll::Ready(None)
    }));
    let mut session = session(&engine, &plan, agent);
    let front = Front::of(front_rx).expect("signals");
    let reporter = Reporter::default();
    let mut keeper = Keeper { plan: &plan, reporter: &reporter, front };
    let (mut desk, mut stopping) = (None, Stopping::default());
    let serving = keeper.serve(&mut session, &mut desk, &mut stopping);
    let served = timeout(Duration::from_secs(1), serving).await;
    assert!(matches!(served.expect("it hears the front"), End::FrontGone));
    assert!(session.far.is_unsettled(), "a new agent is on its way");
}
