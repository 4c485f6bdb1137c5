//! The real proxy in the layer plane, with an agent of which only the tunnel is real, and with an
//! app that asks by hand or through the preload library. No right is needed.
#![allow(clippy::unwrap_used, missing_docs)]

mod agent;
mod client;
mod connecting;
mod datagrams;
mod dns;
mod listening;
mod names;
mod preloaded;
mod robust;
mod session;
mod unix;

use std::future::Future;
use std::time::{Duration, Instant};

use mirrord_protocol::control::{LayerConfig, ProxyConfig, ProxyEvent};
use tokio::task::LocalSet;

use agent::Agent;
use session::Session;

fn on_one_thread<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test);
}

/// A session whose app may start.
async fn ready() -> (Session, Agent) {
    ready_with(|_, _| {}).await
}

async fn ready_with(change: impl FnOnce(&mut ProxyConfig, &mut LayerConfig)) -> (Session, Agent) {
    let mut session = Session::start(change).await;
    let agent = Agent::start(&session).await;
    session.hears(|event| matches!(event, ProxyEvent::Ready(_))).await;
    (session, agent)
}

/// Does what waits, as a process of the app.
async fn app<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(act).await.unwrap()
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < Duration::from_secs(10), "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
