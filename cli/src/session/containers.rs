//! The session's two containers while it runs.

use mirrord_protocol::control::ProxyEvent;
use serde::de::DeserializeOwned;

use crate::engine::attached::{Attached, Line};

/// Log lines that are kept to explain an end that was not announced.
const KEPT_LINES: usize = 8;

/// What an agent is told when its session is over: anything behind its configuration means that.
const DISMISSAL: &str = "leave";

/// One of the two, running.
pub struct Running {
    /// Its id.
    pub id: String,
    attached: Attached,
    last_words: Vec<String>,
}

/// What one of them said.
#[derive(Debug)]
pub enum Said<E> {
    /// An event.
    Event(E),
    /// A line of its log.
    Log(String),
    /// Nothing more: it has ended.
    Ended,
}

impl Running {
    /// Takes over a started container.
    pub fn new(id: String, attached: Attached) -> Self {
        Self { id, attached, last_words: Vec::new() }
    }

    /// What it says next. Can be cancelled without loss.
    pub async fn next<E: DeserializeOwned>(&mut self) -> Said<E> {
        match self.attached.next_line().await {
            None => Said::Ended,
            Some(Line::Err(line)) => self.log(line),
            Some(Line::Out(line)) => match serde_json::from_str(&line) {
                Ok(event) => Said::Event(event),
                Err(_) => self.log(line),
            },
        }
    }

    fn log<E>(&mut self, line: String) -> Said<E> {
        if self.last_words.len() == KEPT_LINES {
            self.last_words.remove(0);
        }
        self.last_words.push(line.clone());
        Said::Log(line)
    }

    /// The last lines of its log.
    pub fn last_words(&self) -> &[String] {
        &self.last_words
    }

    /// Waits until it needs nobody any more, or has ended.
    pub async fn left(&mut self) {
        loop {
            match self.next().await {
                Said::Event(ProxyEvent::Left) | Said::Ended => return,
                _ => {}
            }
        }
    }

    /// Waits for its end and listens to nothing.
    pub async fn ended(&mut self) {
        while self.attached.next_line().await.is_some() {}
    }

    /// Tells an agent that the session is over; whether it could be told.
    pub async fn dismiss(&mut self) -> bool {
        self.attached.send(&DISMISSAL).await.is_ok()
    }

    /// Tells it to leave.
    pub async fn leave(&mut self) {
        self.attached.close_input().await;
    }
}

/// What the proxy said.
pub type ProxySaid = Said<ProxyEvent>;
